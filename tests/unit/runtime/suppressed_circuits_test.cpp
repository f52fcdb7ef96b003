// Circuits taken out of a model: as hooks, whole nodes or single edges, and out of the weights.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "editing/node_ablation.hpp"
#include "runtime/circuits/find_circuit.hpp"
#include "runtime/circuits/patched_pairs.hpp"
#include "runtime/hooks.hpp"
#include "tests/support/random_model.hpp"

namespace proviso::runtime {
namespace {

using dsl::Site;
using dsl::SiteKind;

nlohmann::json any_family() { return GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json()); }

std::vector<BoundPair> pairs_of(const model::Tokenizer& tokenizer,
                                const std::vector<std::pair<std::string, std::string>>& texts) {
  std::vector<BoundPair> pairs;
  for (const auto& [clean, corrupt] : texts) {
    BoundPair pair;
    pair.clean.tokens = tokenizer.encode(clean);
    pair.corrupt.tokens = tokenizer.encode(corrupt);
    pair.clean.cluster = std::ssize(pairs);
    pair.raised = tokenizer.encode("a").front();
    pair.lowered = tokenizer.encode("b").front();
    pairs.push_back(pair);
  }
  return pairs;
}

const std::vector<Direction> kNoFeatures;
const std::vector<std::pair<std::string, std::string>> kTexts = {{"The cat sat", "The hat fit"}, {"A dog", "I dig"}};

/// Puts constants in the place of heads' z and MLPs' outputs from a position on.
struct Constants : model::SiteVisitor {
  struct Part {
    Site site;
    std::int64_t begin = 0;
    at::Tensor value;
  };
  std::vector<Part> parts;
  std::int64_t from = 1;
  double share = 1;
  bool wants(const Site& site) const override { return site.kind == SiteKind::z || site.kind == SiteKind::mlp_out; }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout& layout) override {
    for (const auto& part : parts) {
      if (part.site != site) continue;
      const at::Tensor acts = layout.positions.ge(from).to(at::kFloat).unsqueeze(1) * share;
      const at::Tensor here = x.narrow(1, part.begin, part.value.numel());
      here.copy_(here + acts * (part.value - here));
    }
  }
};

/// A head and an MLP of a tiny model, with what they write on the corrupt prompts in the mean.
struct Chosen {
  CircuitParts parts;
  Constants by_hand;
  std::vector<editing::AblatedNode> nodes;
};

Chosen chosen(const PatchedPairs& pairs, const model::ModelConfig& config) {
  Chosen result;
  const auto& graph = pairs.graph();
  result.parts.corrupt = pairs.corrupt_means();
  result.parts.nodes = at::zeros({graph.sources()}, at::kBool);
  for (const std::int64_t source : {std::int64_t{0}, graph.first_head(0) + 1, graph.mlp(0), graph.first_head(1) + 2})
    result.parts.nodes[source] = true;
  result.parts.edges = graph.between(result.parts.nodes);
  const auto& means = result.parts.corrupt;
  const auto head = [&](std::int64_t layer, std::int64_t number) {
    const auto mean = means.z[static_cast<std::size_t>(layer)].narrow(0, number * config.head_dim, config.head_dim);
    result.by_hand.parts.push_back({{SiteKind::z, layer}, number * config.head_dim, mean});
    result.nodes.push_back({layer, number, mean});
  };
  head(0, 1);
  head(1, 2);
  result.by_hand.parts.push_back({{SiteKind::mlp_out, 0}, 0, means.mlp_out[0]});
  result.nodes.push_back({0, -1, means.mlp_out[0]});
  return result;
}

at::Tensor hooked(const test::RandomModel& tiny, const CircuitParts& parts, double share,
                  const std::vector<model::Row>& rows) {
  HookProgram program(kNoFeatures, tiny.transformer->card());
  program.replacements().emplace(*tiny.transformer);
  program.replacements()->add(parts, share, false);
  program.finish(at::kCPU);
  HookPass hooks(program);
  std::vector<RowMemory> memories(rows.size());
  std::vector<RowMemory*> pointers;
  for (auto& memory : memories) pointers.push_back(&memory);
  hooks.begin(pointers);
  return test::logits_of(*tiny.transformer, rows, &hooks);
}

}  // namespace

TEST_CASE("a circuit of nodes is suppressed where they write, from position 1 on") {
  const test::RandomModel tiny(any_family());
  const at::NoGradGuard no_grad;
  const PatchedPairs pairs(*tiny.transformer, pairs_of(*tiny.tokenizer, kTexts), false);
  Chosen nodes = chosen(pairs, tiny.transformer->config());
  const auto rows = test::rows_of(*tiny.tokenizer, {"The cat sat on", "Six dogs"});
  const auto plain = test::logits_of(*tiny.transformer, rows);
  for (const double share : {1.0, 0.4}) {
    nodes.by_hand.share = share;
    const auto taken = hooked(tiny, nodes.parts, share, rows);
    CHECK(at::allclose(taken, test::logits_of(*tiny.transformer, rows, &nodes.by_hand), 1e-4, 1e-5));
    CHECK((taken - plain).abs().max().item<double>() > 1e-3);
    CHECK(at::equal(taken[0], plain[0]));  // position 0 stays as it is
  }
}

TEST_CASE("suppressing every edge out of a node is suppressing the node, and one edge is not") {
  const test::RandomModel tiny(any_family());
  const at::NoGradGuard no_grad;
  const PatchedPairs pairs(*tiny.transformer, pairs_of(*tiny.tokenizer, kTexts), false);
  const auto& graph = pairs.graph();
  const auto rows = test::rows_of(*tiny.tokenizer, {"The cat sat on", "Six dogs"});
  const auto plain = test::logits_of(*tiny.transformer, rows);
  for (const std::int64_t source : {graph.first_head(0) + 1, graph.mlp(0)}) {
    CircuitParts node, edges, edge;
    node.corrupt = edges.corrupt = edge.corrupt = pairs.corrupt_means();
    node.nodes = at::zeros({graph.sources()}, at::kBool);
    node.nodes[source] = true;
    edges.edges = at::zeros({graph.destinations(), graph.sources()}, at::kBool);
    edges.edges.select(1, source).copy_(graph.all().select(1, source));
    edge.edges = at::zeros_like(edges.edges);
    edge.edges[graph.destinations() - 1][source] = true;
    const auto whole = hooked(tiny, node, 1, rows), all = hooked(tiny, edges, 1, rows),
               direct = hooked(tiny, edge, 1, rows);
    INFO(graph.source_name(source));
    CHECK(at::allclose(all, whole, 1e-4, 2e-5));
    CHECK((direct - plain).abs().max().item<double>() > 1e-4);
    CHECK_FALSE(at::allclose(direct, whole, 1e-4, 2e-5));
    // The path to the logits alone: what is put in place of it there is linear before the last norm.
    edges.edges[graph.destinations() - 1][source] = false;
    CHECK_FALSE(at::allclose(hooked(tiny, edges, 1, rows), whole, 1e-4, 2e-5));
  }
}

TEST_CASE("edges are suppressed alike in one pass and over a cache") {
  const test::RandomModel tiny(any_family());
  const at::NoGradGuard no_grad;
  const PatchedPairs pairs(*tiny.transformer, pairs_of(*tiny.tokenizer, kTexts), false);
  const auto& graph = pairs.graph();
  CircuitParts parts;
  parts.corrupt = pairs.corrupt_means();
  parts.edges = graph.strongest(pairs.attribution(), 12);
  const auto tokens = tiny.tokenizer->encode("The cat sat on");
  const auto whole = hooked(tiny, parts, 1, {{tokens, std::ssize(tokens)}});

  HookProgram program(kNoFeatures, tiny.transformer->card());
  program.replacements().emplace(*tiny.transformer);
  program.replacements()->add(parts, 1, false);
  program.finish(at::kCPU);
  HookPass hooks(program);
  model::KeyValueCache cache;
  std::vector<at::Tensor> logits;
  RowMemory memory;
  for (const auto token : tokens) {
    hooks.begin({&memory});
    const std::vector<model::Row> row = {{{token}, std::ssize(tokens)}};
    model::Pass pass;
    pass.rows = &row;
    pass.cache = &cache;
    pass.visitor = &hooks;
    pass.logits_at = std::nullopt;
    pass.on_logits = [&](std::int64_t, const at::Tensor& chunk) { logits.push_back(chunk.clone()); };
    tiny.transformer->forward(pass);
  }
  CHECK(at::allclose(at::cat(logits), whole, 1e-4, 2e-5));
}

TEST_CASE("a circuit removed from the weights gives its constants at every position, exactly, and comes back") {
  const test::RandomModel tiny(any_family());
  const at::NoGradGuard no_grad;
  const PatchedPairs pairs(*tiny.transformer, pairs_of(*tiny.tokenizer, kTexts), false);
  Chosen nodes = chosen(pairs, tiny.transformer->config());
  nodes.by_hand.from = 0;
  const auto rows = test::rows_of(*tiny.tokenizer, {"The cat sat on", "Six dogs"});
  const auto before = test::logits_of(*tiny.transformer, rows);
  for (const bool zero : {false, true}) {
    for (const double strength : {1.0, 0.3}) {
      auto removed = nodes.nodes;
      nodes.by_hand.share = strength;
      for (std::size_t i = 0; i < removed.size(); ++i) {
        if (zero) removed[i].constant = at::zeros_like(removed[i].constant);
        nodes.by_hand.parts[i].value = removed[i].constant.clone();
      }
      auto solved = editing::ablate_nodes(*tiny.transformer, removed, strength);
      REQUIRE(std::holds_alternative<std::vector<editing::WeightDelta>>(solved));
      {
        editing::AppliedDeltas applied(*tiny.transformer);
        for (const auto& delta : std::get<std::vector<editing::WeightDelta>>(solved)) CHECK(applied.apply(delta));
        const auto edited = test::logits_of(*tiny.transformer, rows);
        applied.revert();
        CHECK(at::allclose(edited, test::logits_of(*tiny.transformer, rows, &nodes.by_hand), 1e-4, 1e-5));
        CHECK((edited - before).abs().max().item<double>() > 1e-3);
      }
      CHECK(at::equal(test::logits_of(*tiny.transformer, rows), before));
    }
  }
}

TEST_CASE("sets of edges measured together are measured as by themselves") {
  const test::RandomModel tiny(any_family());
  const PatchedPairs pairs(*tiny.transformer, pairs_of(*tiny.tokenizer, kTexts), false);
  const auto& graph = pairs.graph();
  const auto scores = pairs.attribution();
  std::vector<at::Tensor> sets = {graph.all(), at::zeros_like(graph.all())};
  for (const std::int64_t count : {3, 17, 60}) sets.push_back(graph.strongest(scores, count));
  const auto together = pairs.measure_each(sets);
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const auto alone = pairs.measure(sets[i]);
    REQUIRE(alone.size() == together[i].size());
    for (std::size_t pair = 0; pair < alone.size(); ++pair)
      CHECK(together[i][pair] == Approx(alone[pair]).margin(1e-6));
  }
}

TEST_CASE("a grown circuit has every edge on a way to the logits, the strongest into what is kept first") {
  const test::RandomModel tiny;
  const PatchedPairs pairs(*tiny.transformer, pairs_of(*tiny.tokenizer, kTexts), false);
  const auto& graph = pairs.graph();
  const auto scores = pairs.attribution();
  at::Tensor before = at::zeros_like(graph.all());
  for (std::int64_t count = 1; count <= 25; ++count) {
    const auto grown = graph.grown(scores, count);
    REQUIRE(grown.sum().item<std::int64_t>() == count);
    CHECK(grown.logical_and(before).equal(before));  // one edge more each time
    before = grown;
  }
  // Of what leads to the logits directly the strongest comes first.
  const auto first = graph.grown(scores, 1);
  const auto of_logits = scores[graph.destinations() - 1].abs();
  CHECK(first[graph.destinations() - 1][of_logits.argmax().item<std::int64_t>()].item<bool>());
  CHECK(graph.grown(scores, graph.edges()).equal(graph.all()));
}

TEST_CASE("a circuit planted in a model is found by every method, needed, and found again") {
  // Heads and MLPs add next to nothing, but for three that are planted. Their effects are of one size on these pairs:
  // where the last head's nearly cancel over them, slopes at the clean prompt alone rank it with the rest.
  const test::RandomModel tiny;
  auto& transformer = *tiny.transformer;
  const auto& config = transformer.config();
  const CircuitGraph graph(config);
  const std::vector<std::int64_t> planted = {graph.first_head(0) + 1, graph.mlp(0), graph.first_head(1) + 1};
  const auto is_planted = [&](std::int64_t source) {
    return std::find(planted.begin(), planted.end(), source) != planted.end();
  };
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const auto attention = transformer.writer({SiteKind::attn_out, layer})->weight;
    auto weight = transformer.get(attention).clone();
    for (std::int64_t head = 0; head < config.heads; ++head)
      weight.narrow(1, head * config.head_dim, config.head_dim)
          .mul_(is_planted(graph.first_head(layer) + head) ? 3 : .02);
    transformer.set(attention, weight);
    const auto mlp = transformer.writer({SiteKind::mlp_out, layer})->weight;
    transformer.set(mlp, transformer.get(mlp) * (is_planted(graph.mlp(layer)) ? 3 : .02));
  }
  BoundCircuit circuit;
  circuit.pairs =
      pairs_of(*tiny.tokenizer,
               {{"The cat sat", "The hat fit"}, {"A dog", "I dig"}, {"Six men", "Ten men"}, {"We go up", "We do it"}});
  circuit.kept = static_cast<std::int64_t>(planted.size());
  for (const auto method : {dsl::CircuitMethod::eap, dsl::CircuitMethod::eap_ig, dsl::CircuitMethod::exact}) {
    dsl::CircuitDecl declared;
    declared.method.method = method;
    declared.keep.nodes = true;
    const auto found = find_circuit(transformer, declared, circuit, {true, true}, 3);
    INFO(dsl::circuit_method_name(method));
    // AUROC of |score| for being planted, over all nodes.
    const PatchedPairs pairs(transformer, circuit);
    const auto scores = (method == dsl::CircuitMethod::exact ? pairs.brute_force_nodes()
                         : method == dsl::CircuitMethod::eap ? pairs.attribution().sum(0)
                                                             : pairs.integrated_attribution(5).sum(0))
                            .abs();
    double right = 0, compared = 0;
    for (const std::int64_t in : planted) {
      for (std::int64_t out = 1; out < graph.sources(); ++out) {
        if (is_planted(out)) continue;
        ++compared;
        right += scores[in].item<double>() > scores[out].item<double>();
      }
    }
    UNSCOPED_INFO("AUROC " << right / compared);
    CHECK(right / compared >= 0.95);
    for (const auto& node : found.nodes) CHECK(is_planted(node.number));
    REQUIRE(found.minimality);
    CHECK(found.minimality->needed == 1);
    CHECK(found.minimality->compared == graph.nodes() - std::ssize(planted));
    REQUIRE(found.stability);
    CHECK(found.stability->overlap > 0.8);
    CHECK(found.stability->low <= found.stability->overlap);
    CHECK(found.stability->inclusion.size() == planted.size());
    CHECK(found.stability->ablations.size() == 2);
    CHECK(overlap(found, found).share() == 1);
  }
}

TEST_CASE("a circuit is measured on the pairs held out, and found on the others") {
  const test::RandomModel tiny;
  BoundCircuit circuit;
  circuit.pairs = pairs_of(*tiny.tokenizer, kTexts);
  circuit.held = pairs_of(*tiny.tokenizer, {{"Six men", "Ten men"}});
  circuit.kept = 30;
  dsl::CircuitDecl declared;
  declared.method.method = dsl::CircuitMethod::eap;
  const auto found = find_circuit(*tiny.transformer, declared, circuit);
  const PatchedPairs on(*tiny.transformer, circuit), held(*tiny.transformer, circuit.held, false);
  CHECK(found.kept.equal(on.graph().alive(on.graph().strongest(on.attribution(), 30))));
  CHECK(found.clean == held.clean());
  CHECK(found.circuit == held.measure(found.kept));
  REQUIRE(found.found_on);
  CHECK(found.found_on->clean == on.clean());
}

}  // namespace proviso::runtime
