// Circuits on tiny random models: what the patched pass, the attributions and the selection say, held to other ways of
// computing the same.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "runtime/circuits/find_circuit.hpp"
#include "runtime/circuits/patched_pairs.hpp"
#include "runtime/hooks.hpp"
#include "runtime/model/sinks.hpp"
#include "tests/support/random_model.hpp"
#include "tests/unit/runtime/near_prompts.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::runtime {
namespace {

using dsl::Site;
using dsl::SiteKind;

nlohmann::json biased_llama() {
  auto json = test::tiny_llama_json();
  json["attention_bias"] = true;
  json["mlp_bias"] = true;
  return json;
}

nlohmann::json any_family() {
  return GENERATE(test::tiny_llama_json(), biased_llama(), test::tiny_gpt2_json(), test::tiny_json("gpt_neox"),
                  test::tiny_json("qwen3"));
}

BoundCircuit pairs_of(const model::Tokenizer& tokenizer,
                      const std::vector<std::pair<std::string, std::string>>& texts) {
  BoundCircuit circuit;
  for (const auto& [clean, corrupt] : texts) {
    BoundPair pair;
    pair.clean.tokens = tokenizer.encode(clean);
    pair.corrupt.tokens = tokenizer.encode(corrupt);
    pair.raised = tokenizer.encode("a").front();
    pair.lowered = tokenizer.encode("b").front();
    circuit.pairs.push_back(pair);
  }
  return circuit;
}

}  // namespace

TEST_CASE("a reader that gives the stream leaves a pass as it is, and a head's input is its own") {
  const test::RandomModel tiny(any_family());
  const auto rows = test::rows_of(*tiny.tokenizer, {"The cat sat", "A dog"});
  const auto& config = tiny.transformer->config();

  struct Seen : model::SiteVisitor {
    at::Tensor z;
    bool wants(const Site& site) const override { return site == Site{SiteKind::z, 0}; }
    void visit(const Site&, at::Tensor& x, const model::PackedLayout&) override { z = x.clone(); }
  };
  struct Reader : model::StreamReader {
    std::int64_t heads = 0;
    std::optional<SiteKind> changed;
    at::Tensor input(SiteKind kind, std::int64_t layer, const at::Tensor& stream) override {
      if (kind == SiteKind::mlp_pre || kind == SiteKind::final_norm) return stream;
      const at::Tensor of_heads = stream.unsqueeze(1).repeat({1, heads, 1});
      if (changed == kind && layer == 0) of_heads.select(1, 2).mul_(at::linspace(-1, 2, stream.size(1)));
      return of_heads;
    }
  };
  const auto run = [&](model::StreamReader* reader, Seen& seen) {
    at::Tensor all;
    model::Pass pass;
    pass.rows = &rows;
    pass.reader = reader;
    pass.visitor = &seen;
    pass.logits_at = std::nullopt;
    pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { all = logits.clone(); };
    tiny.transformer->forward(pass);
    return all;
  };
  const at::NoGradGuard no_grad;
  Seen plain, read;
  Reader reader;
  reader.heads = config.heads;
  CHECK(at::allclose(run(nullptr, plain), run(&reader, read), 1e-4, 1e-5));
  for (const SiteKind kind : {SiteKind::q, SiteKind::k, SiteKind::v}) {
    reader.changed = kind;
    Seen changed;
    run(&reader, changed);
    const auto difference = (changed.z - read.z).view({-1, config.heads, config.head_dim}).abs().amax({0, 2});
    for (std::int64_t head = 0; head < config.heads; ++head) {
      INFO(dsl::site_name(kind) << " head " << head);
      CHECK((difference[head].item<float>() > 1e-4) == (head == 2));
    }
  }
}

TEST_CASE("all edges give the clean measure, and none the corrupt one") {
  const test::RandomModel tiny(any_family());
  const bool probability = GENERATE(false, true);
  auto circuit = pairs_of(*tiny.tokenizer, {{"The cat sat", "The hat fit"}, {"A dog", "I dig"}});
  circuit.probability = probability;
  const PatchedPairs pairs(*tiny.transformer, circuit);
  const auto& graph = pairs.graph();
  const auto all = pairs.measure(graph.all()), none = pairs.measure(at::zeros_like(graph.all()));
  CHECK(none == pairs.edgeless());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double least = probability ? 1e-5 : 1e-4;  // a token of 256 has a probability of some 0.004
    CHECK(all[i] == Approx(pairs.clean()[i]).margin(least / 10));
    CHECK(std::abs(pairs.clean()[i] - pairs.edgeless()[i]) > least);
    // What the model itself says.
    const auto& tokens = circuit.pairs[i].clean.tokens;
    const auto logits = test::logits_of(*tiny.transformer, {{tokens, std::ssize(tokens)}})[-1];
    const auto raised = logits[circuit.pairs[i].raised].item<double>();
    const double expected = probability ? std::exp(raised - logits.logsumexp(0).item<double>())
                                        : raised - logits[circuit.pairs[i].lowered].item<double>();
    CHECK(pairs.clean()[i] == Approx(expected).margin(1e-5));
  }
  CHECK(graph.all().sum().item<std::int64_t>() == graph.edges());
}

TEST_CASE("patching one edge by brute force is leaving that edge out") {
  const test::RandomModel tiny(any_family());
  const PatchedPairs pairs(*tiny.transformer,
                           pairs_of(*tiny.tokenizer, {{"The cat sat", "The hat fit"}, {"A dog", "I dig"}}));
  const auto& graph = pairs.graph();
  const auto scores = pairs.brute_force();
  CHECK(scores.masked_select(graph.all().logical_not()).abs().max().item<double>() == 0);
  for (std::int64_t destination = 0; destination < graph.destinations(); destination += 3) {
    const auto at = graph.reading(destination);
    const std::int64_t source = (destination * 5 + 1) % graph.readers(at.kind, at.layer).sources;
    auto edges = graph.all();
    edges[destination][source] = false;
    INFO(graph.source_name(source) << " -> " << graph.destination_name(destination));
    CHECK(mean(pairs.measure(edges)) - mean(pairs.clean()) ==
          Approx(scores[destination][source].item<double>()).margin(1e-5));
  }
}

TEST_CASE("patching one node by brute force is putting what it wrote on the corrupt prompt in its place") {
  const test::RandomModel tiny(any_family());
  const auto circuit = pairs_of(*tiny.tokenizer, {{"The cat sat", "The hat fit"}, {"A dog", "I dig"}});
  const PatchedPairs pairs(*tiny.transformer, circuit);
  const auto scores = pairs.brute_force_nodes();
  const auto& config = tiny.transformer->config();
  const at::NoGradGuard no_grad;

  /// Keeps what heads and MLPs write, and puts what another run kept in the place of one of them.
  struct Nodes : model::SiteVisitor {
    std::map<Site, at::Tensor> kept;
    const Nodes* other = nullptr;
    Site patched;
    std::int64_t begin = 0, width = 0;
    bool wants(const Site& site) const override { return site.kind == SiteKind::z || site.kind == SiteKind::mlp_out; }
    void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
      if (other && site == patched) x.narrow(1, begin, width).copy_(other->kept.at(site).narrow(1, begin, width));
      kept[site] = x.clone();
    }
  };
  std::map<std::string, double> expected;
  for (const auto& pair : circuit.pairs) {
    const auto m = [&](const std::vector<std::int64_t>& tokens, Nodes& nodes) {
      const auto last = test::logits_of(*tiny.transformer, {{tokens, std::ssize(tokens)}}, &nodes)[-1];
      return (last[pair.raised] - last[pair.lowered]).item<double>();
    };
    Nodes corrupt, clean;
    m(pair.corrupt.tokens, corrupt);
    const double before = m(pair.clean.tokens, clean);
    const auto patch = [&](const std::string& name, Site site, std::int64_t begin, std::int64_t width) {
      Nodes nodes;
      nodes.other = &corrupt;
      nodes.patched = site;
      nodes.begin = begin;
      nodes.width = width;
      expected[name] += (m(pair.clean.tokens, nodes) - before) / static_cast<double>(circuit.pairs.size());
    };
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
      const std::string number = std::to_string(layer);
      for (std::int64_t head = 0; head < config.heads; ++head)
        patch("a" + number + ".h" + std::to_string(head), {SiteKind::z, layer}, head * config.head_dim,
              config.head_dim);
      patch("m" + number, {SiteKind::mlp_out, layer}, 0, config.width);
    }
  }
  CHECK(std::ssize(expected) == pairs.graph().nodes());
  CHECK(scores[0].item<double>() == 0);
  double largest = 0;
  for (std::int64_t node = 1; node < pairs.graph().sources(); ++node) {
    INFO(pairs.graph().source_name(node));
    const double change = expected.at(pairs.graph().source_name(node));
    CHECK(scores[node].item<double>() == Approx(change).margin(1e-5));
    largest = std::max(largest, std::abs(change));
  }
  CHECK(largest > 1e-3);
}

TEST_CASE("attribution is exact where the model is linear between the prompts") {
  const test::RandomModel tiny(any_family());
  bring_near(*tiny.transformer, *tiny.tokenizer, "c", "h", 1e-3);
  bring_near(*tiny.transformer, *tiny.tokenizer, "d", "D", 1e-3);
  const PatchedPairs pairs(*tiny.transformer,
                           pairs_of(*tiny.tokenizer, {{"The cat sat", "The hat sat"}, {"A d", "A D"}}));
  const auto exact = pairs.brute_force();
  const double size = exact.abs().max().item<double>();
  CHECK(size > 1e-4);
  for (const auto& scores : {pairs.attribution(), pairs.integrated_attribution(4)}) {
    CHECK((scores - exact).abs().max().item<double>() < 0.03 * size);
    CHECK((scores * exact).sum().item<double>() > 0.999 * scores.norm().item<double>() * exact.norm().item<double>());
  }
  // A node's score is the sum of its edges'.
  const auto of_nodes = pairs.brute_force_nodes(),
             summed = pairs.attribution().sum(0).index_fill_(0, at::zeros({1}, at::kLong), 0);
  CHECK((summed - of_nodes).abs().max().item<double>() < 0.03 * of_nodes.abs().max().item<double>());
}

namespace {

/// One stream for all, in which what some sources write is replaced, after `before` has acted.
struct Replace : model::SiteVisitor {
  model::SiteVisitor* before = nullptr;
  std::map<Site, std::function<void(at::Tensor&)>> changes;
  std::map<Site, at::Tensor> seen;
  bool wants(const Site& site) const override {
    return site.kind == SiteKind::embed || site.kind == SiteKind::z || site.kind == SiteKind::mlp_out ||
           site.kind == SiteKind::resid_post || site.kind == SiteKind::resid_mid || (before && before->wants(site));
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout& layout) override {
    if (before && before->wants(site)) before->visit(site, x, layout);
    if (const auto change = changes.find(site); change != changes.end()) change->second(x);
    seen[site] = x.clone();
  }
};

double m_of(const model::Transformer& transformer, const BoundPair& pair, const std::vector<std::int64_t>& tokens,
            model::SiteVisitor& visitor) {
  const auto last = test::logits_of(transformer, {{tokens, std::ssize(tokens)}}, &visitor)[-1];
  return (last[pair.raised] - last[pair.lowered]).item<double>();
}

/// A source's site, and its part of the width.
struct Part {
  Site site;
  std::int64_t begin = 0, width = 0;
};

std::vector<Part> parts_of(const CircuitGraph& graph, const model::ModelConfig& config) {
  std::vector<Part> parts = {{{SiteKind::embed}, 0, config.width}};
  for (std::int64_t layer = 0; layer < graph.layers(); ++layer) {
    for (std::int64_t head = 0; head < graph.heads(); ++head)
      parts.push_back({{SiteKind::z, layer}, head * config.head_dim, config.head_dim});
    parts.push_back({{SiteKind::mlp_out, layer}, 0, config.width});
  }
  return parts;
}

}  // namespace

TEST_CASE("edges left out carry nothing, or the mean over the clean prompts") {
  const test::RandomModel tiny(any_family());
  const auto& transformer = *tiny.transformer;
  const auto circuit = pairs_of(*tiny.tokenizer, {{"The cat sat", "The hat fit"}, {"A dog", "I dig"}});
  const at::NoGradGuard no_grad;
  std::vector<Replace> clean(circuit.pairs.size());
  for (std::size_t i = 0; i < clean.size(); ++i)
    m_of(transformer, circuit.pairs[i], circuit.pairs[i].clean.tokens, clean[i]);

  for (const dsl::Ablation ablation : {dsl::Ablation::zero, dsl::Ablation::mean}) {
    const PatchedPairs pairs(transformer, circuit, ablation);
    const auto& graph = pairs.graph();
    const auto parts = parts_of(graph, transformer.config());
    // Position 0 apart, without secondary sinks, each prompt weighing one.
    const auto put_in = [&](const Part& part, const at::Tensor& x) {
      at::Tensor value = at::zeros_like(x);
      if (ablation == dsl::Ablation::zero) return value;
      at::Tensor first = at::zeros({x.size(1)}, at::kDouble), others = at::zeros_like(first);
      for (const auto& one : clean) {
        const bool after_attention = part.site.kind == SiteKind::mlp_out && !transformer.config().parallel_blocks;
        const Site stream = part.site.kind == SiteKind::embed ? part.site
                            : after_attention                 ? Site{SiteKind::resid_mid, part.site.layer}
                            : part.site.layer == 0            ? Site{SiteKind::embed}
                                                              : Site{SiteKind::resid_post, part.site.layer - 1};
        const auto norms = one.seen.at(stream).norm(2, 1).contiguous();
        const auto ordinary =
            model::ordinary_positions({norms.const_data_ptr<float>(), static_cast<std::size_t>(norms.numel())});
        const auto& values = one.seen.at(part.site);
        first += values[0].to(at::kDouble);
        at::Tensor sum = at::zeros_like(first);
        int counted = 0;
        for (std::int64_t i = 1; i < values.size(0); ++i) {
          if (!ordinary[static_cast<std::size_t>(i)]) continue;
          sum += values[i].to(at::kDouble);
          ++counted;
        }
        others += sum / counted;
      }
      const auto prompts = static_cast<double>(clean.size());
      value.copy_((others / prompts).expand_as(x));
      value[0].copy_(first / prompts);
      return value;
    };
    const auto by_hand = [&](const BoundPair& pair, const std::vector<std::size_t>& left_out) {
      Replace replace;
      for (const auto source : left_out) {
        const Part part = parts[source];
        auto& change = replace.changes[part.site];
        change = [&, part, before = change](at::Tensor& x) {
          if (before) before(x);
          x.narrow(1, part.begin, part.width).copy_(put_in(part, x).narrow(1, part.begin, part.width));
        };
      }
      return m_of(transformer, pair, pair.clean.tokens, replace);
    };
    std::vector<std::size_t> every(parts.size());
    std::iota(every.begin(), every.end(), std::size_t{0});
    const auto all = pairs.measure(graph.all()), none = pairs.measure(at::zeros_like(graph.all()));
    CHECK(none == pairs.edgeless());
    for (std::size_t i = 0; i < all.size(); ++i) {
      CHECK(all[i] == Approx(pairs.clean()[i]).margin(1e-5));
      CHECK(none[i] == Approx(by_hand(circuit.pairs[i], every)).margin(1e-5));
    }
    for (std::size_t source = 0; source < parts.size(); source += 2) {
      auto edges = graph.all();
      edges.select(1, static_cast<std::int64_t>(source)).fill_(false);
      INFO(graph.source_name(static_cast<std::int64_t>(source)));
      const auto m = pairs.measure(edges);
      for (std::size_t i = 0; i < m.size(); ++i)
        CHECK(m[i] == Approx(by_hand(circuit.pairs[i], {source})).margin(1e-5));
    }
  }
}

TEST_CASE("under a rule every destination reads what the rule makes of its own stream") {
  auto json = GENERATE(test::tiny_llama_json(), test::tiny_gpt2_json());
  test::RulesOnModel rules(R"(
feature f = unembed("e") at resid_post[0]
feature g = unembed("t" - "h") at mlp_out[0]
rule r {
  suppress f at resid_post[0], attn_out[1]
  steer g by 1.5 at resid_mid[1] when position >= 2
  cap g to 0.1 when g > -1
}
circuit c { clean ["The cat sat", "A dog"] corrupt ["The hat fit", "I dig"]  measure logit_diff("a", "b")  using eap  keep 5 edges }
)",
                           json);
  const auto& transformer = *rules.model.transformer;
  const auto& circuit = rules.bound.circuits[0];
  Session session(*rules.model.transformer, rules.bound, {});
  REQUIRE(session.build({0, 1}).empty());
  HookProgram program(session.features(), *rules.bound.card);
  for (const auto& sentence : rules.rules->rules[0].interventions) {
    program.add(sentence, rules.bound.sites_of(sentence), false,
                [&](const std::string& text) { return rules.bound.token_id(text); }, {});
  }
  program.finish(at::kCPU);
  HookPass hooks(program);
  std::vector<RowMemory> memories;
  const auto begin = [&](const std::vector<std::string>& prompts) -> model::SiteVisitor* {
    memories.clear();
    for (const auto& prompt : prompts) memories.push_back(program.conditions().begin_row(prompt));
    std::vector<RowMemory*> pointers;
    for (auto& memory : memories) pointers.push_back(&memory);
    hooks.begin(std::move(pointers));
    return &hooks;
  };
  const at::NoGradGuard no_grad;
  const PatchedPairs pairs(transformer, circuit, dsl::Ablation::resample, begin);
  const auto& graph = pairs.graph();
  const auto parts = parts_of(graph, transformer.config());
  const auto all = pairs.measure(graph.all());
  CHECK(pairs.measure(at::zeros_like(graph.all())) == pairs.edgeless());
  const PatchedPairs as_loaded(transformer, circuit);
  for (std::size_t i = 0; i < circuit.pairs.size(); ++i) {
    const auto& pair = circuit.pairs[i];
    Replace clean, corrupt;
    clean.before = corrupt.before = begin({pair.clean.text});
    CHECK(pairs.clean()[i] == Approx(m_of(transformer, pair, pair.clean.tokens, clean)).margin(1e-5));
    begin({pair.corrupt.text});
    CHECK(pairs.edgeless()[i] == Approx(m_of(transformer, pair, pair.corrupt.tokens, corrupt)).margin(1e-5));
    CHECK(all[i] == Approx(pairs.clean()[i]).margin(1e-5));
    CHECK(std::abs(pairs.clean()[i] - as_loaded.clean()[i]) > 1e-3);
    // A source left out for all that read it is one stream in which it writes something else.
    for (std::size_t source = 0; source < parts.size(); ++source) {
      auto edges = graph.all();
      edges.select(1, static_cast<std::int64_t>(source)).fill_(false);
      Replace replace;
      replace.before = begin({pair.clean.text});
      const Part part = parts[source];
      replace.changes[part.site] = [&](at::Tensor& x) {
        x.narrow(1, part.begin, part.width).copy_(corrupt.seen.at(part.site).narrow(1, part.begin, part.width));
      };
      const double expected = m_of(transformer, pair, pair.clean.tokens, replace);
      INFO(graph.source_name(static_cast<std::int64_t>(source)));
      CHECK(pairs.measure(edges)[i] == Approx(expected).margin(1e-5));
    }
    // One edge from the embedding to the logits: what is patched has passed the suppression in between.
    struct Reader : model::StreamReader {
      std::int64_t heads = 0;
      at::Tensor added;
      at::Tensor input(SiteKind kind, std::int64_t, const at::Tensor& stream) override {
        if (kind == SiteKind::final_norm) return stream + added;
        return kind == SiteKind::mlp_pre ? stream : stream.unsqueeze(1).expand({-1, heads, -1});
      }
    } reader;
    const auto d = session.features()[0].d.to(at::kFloat);
    const auto patched = corrupt.seen.at({SiteKind::embed}) - clean.seen.at({SiteKind::embed});
    reader.heads = graph.heads();
    reader.added = patched - patched.matmul(d).outer(d);
    const std::vector<model::Row> rows{{pair.clean.tokens, std::ssize(pair.clean.tokens)}};
    at::Tensor last;
    model::Pass pass;
    pass.rows = &rows;
    pass.reader = &reader;
    pass.visitor = begin({pair.clean.text});
    pass.logits_at = std::vector<std::int64_t>{rows[0].prompt_length - 1};
    pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { last = logits[0].clone(); };
    transformer.forward(pass);
    auto edges = graph.all();
    edges[graph.destinations() - 1][0] = false;
    CHECK(pairs.measure(edges)[i] == Approx((last[pair.raised] - last[pair.lowered]).item<double>()).margin(1e-5));
  }
}

namespace {

/// Starts from an embedding, and adds a vector to what one destination reads; keeps what MLPs write.
struct Nudge : model::StreamReader, model::SiteVisitor {
  CircuitGraph::Reading at{SiteKind::final_norm};
  std::int64_t heads = 0;
  at::Tensor embed, added, mlp_out;
  at::Tensor input(SiteKind kind, std::int64_t layer, const at::Tensor& stream) override {
    const bool here = kind == at.kind && layer == at.layer && added.defined();
    if (kind == SiteKind::mlp_pre || kind == SiteKind::final_norm) return here ? stream + added : stream;
    const at::Tensor of_heads = stream.unsqueeze(1).repeat({1, heads, 1});
    if (here) of_heads.select(1, at.head).add_(added);
    return of_heads;
  }
  bool wants(const Site& site) const override {
    return site.kind == SiteKind::embed || site == Site{SiteKind::mlp_out, 0};
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
    if (site.kind == SiteKind::mlp_out) {
      mlp_out = x.clone();
    } else if (embed.defined()) {
      x = embed.clone();
    } else {
      embed = x.clone();
    }
  }
};

}  // namespace

TEST_CASE("integrated attribution is the mean of slopes on the way from the corrupt to the clean embedding") {
  const test::RandomModel tiny(any_family());
  const auto circuit = pairs_of(*tiny.tokenizer, {{"The cat sat", "The hat fit"}});
  const PatchedPairs pairs(*tiny.transformer, circuit);
  const auto& graph = pairs.graph();
  const at::NoGradGuard no_grad;
  const auto& pair = circuit.pairs.front();
  const auto run = [&](const std::vector<std::int64_t>& tokens, Nudge& nudge) {
    const std::vector<model::Row> rows{{tokens, std::ssize(tokens)}};
    at::Tensor last;
    model::Pass pass;
    pass.rows = &rows;
    pass.reader = &nudge;
    pass.visitor = &nudge;
    pass.logits_at = std::vector<std::int64_t>{std::ssize(tokens) - 1};
    pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { last = logits[0].to(at::kDouble); };
    tiny.transformer->forward(pass);
    return (last[pair.raised] - last[pair.lowered]).item<double>();
  };
  Nudge clean, corrupt;
  clean.heads = corrupt.heads = graph.heads();
  run(pair.clean.tokens, clean);
  run(pair.corrupt.tokens, corrupt);

  constexpr std::int64_t kSteps = 3;
  constexpr double kStep = 1e-2;
  const auto integrated = pairs.integrated_attribution(kSteps), plain = pairs.attribution();
  const std::map<std::int64_t, at::Tensor> changes = {{0, corrupt.embed - clean.embed},
                                                      {graph.mlp(0), corrupt.mlp_out - clean.mlp_out}};
  for (const auto& [source, change] : changes) {
    for (std::int64_t destination = 0; destination < graph.destinations(); ++destination) {
      const auto at = graph.reading(destination);
      if (source >= graph.readers(at.kind, at.layer).sources) continue;
      const auto slope = [&](double share) {
        double m[2];
        for (const int side : {0, 1}) {
          Nudge nudge;
          nudge.at = at;
          nudge.heads = graph.heads();
          nudge.embed = at::lerp(corrupt.embed, clean.embed, share);
          nudge.added = change * (side == 0 ? -kStep : kStep);
          m[side] = run(pair.clean.tokens, nudge);
        }
        return (m[1] - m[0]) / (2 * kStep);
      };
      double sum = 0;
      for (std::int64_t k = 0; k < kSteps; ++k) sum += slope(static_cast<double>(k) / kSteps);
      INFO(graph.source_name(source) << " -> " << graph.destination_name(destination));
      const double margin = 2e-3 * std::max(1.0, integrated.abs().max().item<double>());
      CHECK(integrated[destination][source].item<double>() == Approx(sum / kSteps).epsilon(0.01).margin(margin));
      CHECK(plain[destination][source].item<double>() == Approx(slope(1)).epsilon(0.01).margin(margin));
    }
  }
}

TEST_CASE("a planted circuit is found whole, and nothing else") {
  const auto json = any_family();
  const test::RandomModel tiny(json);
  const auto& config = tiny.transformer->config();
  // Two heads write to the stream; all others and the MLPs write nothing.
  const auto clear = [&](const Site& site, std::optional<std::int64_t> but_head) {
    const auto writer = *tiny.transformer->writer(site);
    const auto weight = tiny.transformer->get(writer.weight);
    auto left = at::zeros_like(weight);
    if (but_head) {
      left.narrow(1, *but_head * config.head_dim, config.head_dim)
          .copy_(weight.narrow(1, *but_head * config.head_dim, config.head_dim));
    }
    tiny.transformer->set(writer.weight, left);
  };
  clear({SiteKind::attn_out, 0}, 1);
  clear({SiteKind::attn_out, 1}, 2);
  clear({SiteKind::mlp_out, 0}, std::nullopt);
  clear({SiteKind::mlp_out, 1}, std::nullopt);
  const std::vector<std::pair<std::string, std::string>> kPlanted = {
      {"embed", "a0.h1<q>"}, {"embed", "a0.h1<k>"}, {"embed", "a0.h1<v>"}, {"embed", "a1.h2<q>"},
      {"embed", "a1.h2<k>"}, {"embed", "a1.h2<v>"}, {"a0.h1", "a1.h2<q>"}, {"a0.h1", "a1.h2<k>"},
      {"a0.h1", "a1.h2<v>"}, {"a0.h1", "logits"},   {"a1.h2", "logits"},   {"embed", "logits"}};

  dsl::CircuitDecl declared;
  declared.method.method = GENERATE(dsl::CircuitMethod::eap, dsl::CircuitMethod::eap_ig, dsl::CircuitMethod::exact);
  // The last tokens differ, so that every planted edge carries something.
  auto bound = pairs_of(*tiny.tokenizer, {{"The cat sat", "The hat fix"}, {"A dog", "I did"}});
  bound.kept = std::ssize(kPlanted);
  const auto found = find_circuit(*tiny.transformer, declared, bound);
  std::vector<std::pair<std::string, std::string>> edges;
  for (const auto& edge : found.edges) edges.emplace_back(edge.from, edge.to);
  CHECK_THAT(edges, Catch::UnorderedEquals(kPlanted));
  CHECK(std::is_sorted(found.edges.begin(), found.edges.end(),
                       [](const auto& a, const auto& b) { return std::abs(*a.score) > std::abs(*b.score); }));
  CHECK(std::abs(*found.edges.back().score) > 0);
  for (std::size_t i = 0; i < found.clean.size(); ++i) {
    CHECK(found.circuit[i] == Approx(found.clean[i]).margin(1e-5));
    CHECK(found.without[i] == Approx(found.edgeless[i]).margin(1e-5));
    CHECK(found.curve.back().m[i] == Approx(found.clean[i]).margin(1e-5));
  }
  // By nodes the same two heads come first, and the edges between them are those planted.
  dsl::CircuitDecl by_nodes = declared;
  by_nodes.keep.nodes = true;
  bound.kept = 2;
  const auto nodes = find_circuit(*tiny.transformer, by_nodes, bound);
  std::vector<std::string> names;
  for (const auto& node : nodes.nodes) names.push_back(node.name);
  CHECK_THAT(names, Catch::UnorderedEquals(std::vector<std::string>{"a0.h1", "a1.h2"}));
  edges.clear();
  for (const auto& edge : nodes.edges) {
    edges.emplace_back(edge.from, edge.to);
    CHECK(edge.score.has_value() == (declared.method.method != dsl::CircuitMethod::exact));
  }
  CHECK_THAT(edges, Catch::UnorderedEquals(kPlanted));
  CHECK(nodes.pruned == 0);
  for (std::size_t i = 0; i < nodes.clean.size(); ++i) {
    CHECK(nodes.circuit[i] == Approx(nodes.clean[i]).margin(1e-5));
    CHECK(nodes.without[i] == Approx(nodes.edgeless[i]).margin(1e-5));
  }
  // Kept too: edges of no effect, which lead nowhere or come from nowhere.
  bound.kept = CircuitGraph(config).edges() - 3;
  const auto most = find_circuit(*tiny.transformer, declared, bound);
  CHECK(most.circuit.front() == Approx(most.clean.front()).margin(1e-5));
}

TEST_CASE("edges on no way from the embedding to the logits change nothing") {
  const test::RandomModel tiny(any_family());
  const PatchedPairs pairs(*tiny.transformer, pairs_of(*tiny.tokenizer, {{"The cat sat", "The hat fit"}}));
  const auto& graph = pairs.graph();
  std::int64_t pruned = 0;
  for (const std::uint64_t seed : {1, 2, 3, 4}) {
    const auto edges = test::random_tensor(graph.all().sizes().vec(), seed).gt(1.0).logical_and(graph.all());
    const auto alive = graph.alive(edges);
    pruned += (edges.sum() - alive.sum()).item<std::int64_t>();
    CHECK(alive.logical_and(edges.logical_not()).sum().item<std::int64_t>() == 0);
    CHECK(at::equal(graph.alive(alive), alive));
    CHECK(pairs.measure(alive).front() == Approx(pairs.measure(edges).front()).margin(1e-5));
  }
  CHECK(pruned > 0);
}

}  // namespace proviso::runtime
