#include "runtime/edits.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <optional>

#include "editing/batch_edit.hpp"
#include "editing/corpus.hpp"
#include "editing/fine_tune.hpp"
#include "editing/fold.hpp"
#include "editing/node_ablation.hpp"
#include "editing/rome.hpp"
#include "editing/side_effects.hpp"
#include "runtime/erasure.hpp"
#include "runtime/model/random.hpp"

namespace proviso::runtime {

namespace {

template <class T>
std::optional<T> parameter(const dsl::MethodCall& call, const std::string& name) {
  const auto found = call.parameters.find(name);
  if (found == call.parameters.end()) return std::nullopt;
  if constexpr (std::is_same_v<T, std::string>) {
    return std::get<std::string>(found->second);
  } else {
    return static_cast<T>(std::get<double>(found->second));
  }
}

/// Replaces `into` where the call names the parameter.
template <class T>
void take(const dsl::MethodCall& call, const char* name, T& into) {
  if (const auto value = parameter<T>(call, name)) into = *value;
}

/// What all methods that write facts take.
template <class Request>
void take_common(const dsl::MethodCall& call, std::uint64_t seed, Request& request) {
  request.seed = seed;
  take(call, "steps", request.steps);
  take(call, "learning_rate", request.learning_rate);
  take(call, "kl_factor", request.kl_factor);
  take(call, "weight_decay", request.weight_decay);
  take(call, "clamp", request.clamp);
  take(call, "early_stop", request.early_stop);
  take(call, "prefixes", request.prefixes);
  take(call, "seed", request.seed);
  take(call, "ridge", request.ridge);
}

editing::EditedFact edited(const dsl::Fact& fact) {
  return {fact.subject, fact.prompt_template, fact.to, fact.from.value_or("")};
}

editing::RomeRequest rome_request(const dsl::MethodCall& call, const dsl::Fact& fact, std::uint64_t seed) {
  editing::RomeRequest request{edited(fact), {}};
  if (parameter<std::string>(call, "variant") == "original") request.variant = editing::RomeRequest::Variant::original;
  take_common(call, seed, request);
  return request;
}

std::optional<editing::BatchMethod> batch_method(dsl::EditMethod method) {
  switch (method) {
    case dsl::EditMethod::memit:
      return editing::BatchMethod::memit;
    case dsl::EditMethod::emmet:
      return editing::BatchMethod::emmet;
    case dsl::EditMethod::alphaedit:
      return editing::BatchMethod::alphaedit;
    case dsl::EditMethod::rome:
    case dsl::EditMethod::ft:
    case dsl::EditMethod::project:
    case dsl::EditMethod::leace:
    case dsl::EditMethod::ablate:
      break;
  }
  return std::nullopt;
}

/// Solves and applies the changes of one edit in turn; what it applied is undone when it goes.
class EditSolver {
 public:
  EditSolver(const dsl::EditDecl& declaration, model::Transformer& transformer, const BoundRules& bound,
             const std::vector<Direction>& features, const CostText* costs, SolvedEdit& solved)
      : declaration_(declaration),
        transformer_(transformer),
        bound_(bound),
        features_(features),
        costs_(costs),
        unseen_(costs ? &costs->unseen : nullptr),
        solved_(solved),
        applied_(transformer) {}

  void rome(const SecondMoments& moments, std::uint64_t seed) {
    const auto& moment = *moments.of(solved_.edit, bound_).front();
    for (const auto& fact : bound_.facts[solved_.edit]) {
      auto solution = editing::solve_rome(transformer_, *bound_.tokenizer,
                                          rome_request(declaration_.method, fact.fact, seed), moment);
      if (const auto* refusal = std::get_if<editing::Refusal>(&solution)) {
        solved_.refused = refusal->reason;
        return;
      }
      auto& made = std::get<editing::RomeSolution>(solution);
      if (unseen_) {
        add(editing::key_reach(transformer_, *bound_.tokenizer, made, *unseen_), made.certificate.algebra);
      }
      solved_.certificates.push_back(std::move(made.certificate));
      keep(std::move(made.delta));
    }
  }

  void batch(editing::BatchMethod method, const std::vector<SolvedEdit>& earlier, const InheritedKeys& inherited,
             const SecondMoments& moments, std::uint64_t seed) {
    const auto& call = declaration_.method;
    auto request = editing::default_batch_request(method, transformer_.config());
    take_common(call, seed, request);
    take(call, "covariance_weight", request.covariance_weight);
    take(call, "null_threshold", request.null_threshold);
    for (const auto& fact : bound_.facts[solved_.edit]) request.facts.push_back(edited(fact.fact));
    if (request.facts.empty()) return;  // an empty file: the edit changes no byte
    const auto of_layers = moments.of(solved_.edit, bound_);
    std::vector<at::Tensor> kept;
    for (const auto* moment : of_layers) {
      std::vector<at::Tensor> keys;
      if (const auto found = inherited.find(moment->layer); found != inherited.end())
        keys.push_back(found->second.to(moment->C.device()));
      for (const auto& edit : earlier) {
        if (const auto found = edit.kept_keys.find(moment->layer); found != edit.kept_keys.end())
          keys.push_back(found->second);
      }
      kept.push_back(keys.empty() ? at::Tensor() : at::cat(keys, 1));
    }
    auto solution = editing::solve_batch(transformer_, *bound_.tokenizer, request, of_layers, kept);
    if (const auto* refusal = std::get_if<editing::Refusal>(&solution)) {
      solved_.refused = refusal->reason;
      return;
    }
    auto& made = std::get<editing::BatchSolution>(solution);
    if (method == editing::BatchMethod::alphaedit) {
      for (std::size_t i = 0; i < of_layers.size(); ++i) solved_.kept_keys[of_layers[i]->layer] = made.keys[i];
    }
    solved_.deltas = std::move(made.deltas);
    certify(std::move(made.certificate), std::move(made.facts));
  }

  void fine_tune() {
    const auto& call = declaration_.method;
    editing::FineTuneRequest request;
    request.layer = editing::default_rome_layer(transformer_.config());  // the same place as rome's
    take(call, "layer", request.layer);
    take(call, "norm", request.norm);
    take(call, "steps", request.steps);
    take(call, "learning_rate", request.learning_rate);
    take(call, "early_stop", request.early_stop);
    for (const auto& fact : bound_.facts[solved_.edit]) request.facts.push_back(edited(fact.fact));
    if (request.facts.empty()) return;  // an empty file: the edit changes no byte
    auto solution = editing::solve_fine_tune(transformer_, *bound_.tokenizer, request);
    if (const auto* refusal = std::get_if<editing::Refusal>(&solution)) {
      solved_.refused = refusal->reason;
      return;
    }
    auto& made = std::get<editing::FineTuneSolution>(solution);
    solved_.deltas = {std::move(made.delta)};
    certify(std::move(made.certificate), std::move(made.facts));
  }

  void project() {
    const auto& call = declaration_.method;
    const double strength = parameter<double>(call, "strength").value_or(1);
    const bool keep_norms = parameter<std::string>(call, "norms") == "keep";
    const auto peak = parameter<double>(call, "peak");
    if (peak && *peak > static_cast<double>(transformer_.config().layers - 1)) {
      solved_.refused = "the peak at layer " + editing::short_text(*peak) + " lies beyond the model's last layer, " +
                        std::to_string(transformer_.config().layers - 1);
      return;
    }
    std::map<dsl::Site, std::vector<dsl::FeatureId>> at;  // all features of a site go at once
    for (const auto& change : declaration_.changes) {
      const auto& remove = std::get<dsl::Remove>(change);
      for (const auto& site : bound_.expand(remove.sites)) {
        auto& there = at[site];
        const auto members = dsl::members_of(bound_.rules->features[remove.feature]);
        for (const dsl::FeatureId feature : members.empty() ? std::vector{remove.feature} : members) {
          if (std::find(there.begin(), there.end(), feature) == there.end()) there.push_back(feature);
        }
      }
    }
    editing::Certificate certificate;
    certificate.method = "project";
    certificate.parameters = {{"strength", editing::short_text(strength)}};
    if (peak) {
      certificate.parameters.emplace_back("peak", editing::short_text(*peak));
      certificate.parameters.emplace_back("reach", editing::short_text(*parameter<double>(call, "reach")));
      certificate.parameters.emplace_back("edge", editing::short_text(parameter<double>(call, "edge").value_or(0)));
    }
    if (keep_norms) certificate.parameters.emplace_back("norms", "keep");
    double left_over = 0;
    for (const auto& [site, ids] : at) {
      const double here = strength_at(site, strength);
      if (here == 0) continue;
      std::vector<at::Tensor> rows;
      for (dsl::FeatureId id : ids) rows.push_back(features_[id].d);
      const auto directions = at::stack(rows);
      auto folded = editing::fold(editing::removal(directions, here), transformer_, site);
      if (const auto* refusal = std::get_if<editing::Refusal>(&folded)) {
        solved_.refused = refusal->reason;
        return;
      }
      auto& deltas = std::get<std::vector<editing::WeightDelta>>(folded);
      if (keep_norms) deltas = editing::norms_kept(deltas, transformer_, site);
      for (auto& delta : deltas) {
        certificate.changes.push_back(editing::describe_change(transformer_, delta));
        keep(std::move(delta));
      }
      if (peak) certificate.algebra.emplace_back("strength_" + dsl::to_string(site), here);
      const auto writer = transformer_.writer(site);
      const auto weight = transformer_.get(writer->weight).cpu().to(at::kDouble);
      const auto written =
          site.kind == dsl::SiteKind::embed ? directions.matmul(weight.t()) : directions.matmul(weight);
      left_over = std::max(left_over, (written.norm() / weight.norm()).item<double>());
    }
    if (peak && certificate.changes.empty() && strength > 0) {
      solved_.refused = "none of its sites lies within `reach` of layer " + editing::short_text(*peak) +
                        ", so nothing would change: name other layers, or let it reach further";
      return;
    }
    // With strength 1 what the maps still write along the directions is rounding.
    certificate.algebra.emplace_back("left_along_directions_over_weight", left_over);
    if (unseen_) {
      applied_.revert();
      add(editing::norm_ratio(transformer_, *bound_.tokenizer, solved_.deltas, *unseen_), certificate.measured);
    }
    solved_.certificates.push_back(std::move(certificate));
  }

  void erase(std::uint64_t seed) {
    ErasureSettings settings;
    settings.seed = seed;
    take(declaration_.method, "threshold", settings.threshold);
    take(declaration_.method, "held_out", settings.held_out);
    take(declaration_.method, "seed", settings.seed);
    std::vector<const dsl::Erase*> erasures;
    for (const auto& change : declaration_.changes) erasures.push_back(&std::get<dsl::Erase>(change));
    auto made = erase_labels(erasures, bound_, transformer_, settings);
    if (const auto* refusal = std::get_if<editing::Refusal>(&made)) {
      solved_.refused = refusal->reason;
      return;
    }
    auto& erasure = std::get<Erasure>(made);
    solved_.deltas = std::move(erasure.deltas);
    solved_.certificates = std::move(erasure.certificates);
    if (unseen_)
      add(editing::norm_ratio(transformer_, *bound_.tokenizer, solved_.deltas, *unseen_),
          solved_.certificates.back().measured);
  }

  /// What the nodes of all circuits named write becomes a constant; of nodes that several hold, the first one's.
  void ablate(const std::map<dsl::CircuitId, CircuitEvidence>& circuits) {
    const double strength = parameter<double>(declaration_.method, "strength").value_or(1);
    const bool zero = parameter<std::string>(declaration_.method, "to") == "zero";
    const CircuitGraph graph(transformer_.config());
    const std::int64_t head_dim = transformer_.config().head_dim;
    std::vector<editing::AblatedNode> nodes;
    at::Tensor taken = at::zeros({graph.sources()}, at::kBool);
    taken[0] = true;  // the embedding stays
    for (const auto& change : declaration_.changes) {
      const CircuitParts& parts = circuits.at(std::get<dsl::RemoveCircuit>(change).circuit).parts;
      const at::Tensor fresh = parts.nodes.logical_and(taken.logical_not());
      taken = taken.logical_or(parts.nodes);
      for (std::int64_t layer = 0; layer < graph.layers(); ++layer) {
        const auto l = static_cast<std::size_t>(layer);
        const auto add = [&](std::int64_t head, const at::Tensor& mean) {
          nodes.push_back({layer, head, zero ? at::zeros_like(mean) : mean});
        };
        for (std::int64_t head = 0; head < graph.heads(); ++head) {
          if (fresh[graph.first_head(layer) + head].item<bool>())
            add(head, parts.corrupt.z[l].narrow(0, head * head_dim, head_dim));
        }
        if (fresh[graph.mlp(layer)].item<bool>()) add(-1, parts.corrupt.mlp_out[l]);
      }
    }
    auto made = editing::ablate_nodes(transformer_, nodes, strength);
    if (const auto* refusal = std::get_if<editing::Refusal>(&made)) {
      solved_.refused = refusal->reason;
      return;
    }
    editing::Certificate certificate;
    certificate.method = "ablate";
    certificate.parameters = {{"to", zero ? "zero" : "mean"}, {"strength", editing::short_text(strength)}};
    certificate.algebra = {
        {"nodes", static_cast<double>(nodes.size())},
        {"heads", static_cast<double>(
                      std::count_if(nodes.begin(), nodes.end(), [](const auto& node) { return node.head >= 0; }))}};
    for (auto& delta : std::get<std::vector<editing::WeightDelta>>(made)) {
      certificate.changes.push_back(editing::describe_change(transformer_, delta));
      keep(std::move(delta));
    }
    if (unseen_) {
      applied_.revert();
      add(editing::norm_ratio(transformer_, *bound_.tokenizer, solved_.deltas, *unseen_), certificate.measured);
    }
    solved_.certificates.push_back(std::move(certificate));
  }

  void costs() {
    if (!unseen_ || !solved_.refused.empty()) return;
    applied_.revert();
    const auto& tokenizer = *bound_.tokenizer;
    solved_.costs = editing::text_costs(transformer_, tokenizer, solved_.deltas, *unseen_);
    std::vector<std::string> subjects, prompts;
    for (const auto& [fact, prompt] : about()) {
      subjects.push_back(fact);
      prompts.push_back(prompt);
    }
    add(editing::unrelated_facts_kept(transformer_, tokenizer, solved_.deltas, costs_->unrelated, subjects),
        solved_.costs);
    if (prompts.empty()) prompts = openings();
    if (std::ssize(prompts) > kContinued) prompts.resize(kContinued);
    add(editing::fluency(transformer_, tokenizer, solved_.deltas, prompts), solved_.costs);
  }

 private:
  /// What `project` takes away at a site: `strength` everywhere, or by how far its layer is from `peak`. The embedding
  /// counts as a layer before the first.
  double strength_at(const dsl::Site& site, double strength) const {
    const auto& call = declaration_.method;
    const auto peak = parameter<double>(call, "peak");
    if (!peak) return strength;
    const double layer = site.kind == dsl::SiteKind::embed ? -1 : static_cast<double>(site.layer);
    const double share = std::abs(layer - *peak) / *parameter<double>(call, "reach");
    if (share > 1) return 0;
    return strength + share * (parameter<double>(call, "edge").value_or(0) - strength);
  }

  static constexpr std::int64_t kContinued = 4;  // texts to judge fluency by

  /// The facts' subjects, and their prompts.
  std::vector<std::pair<std::string, std::string>> about() const {
    std::vector<std::pair<std::string, std::string>> facts;
    for (const auto& each : bound_.facts[solved_.edit]) {
      auto prompt = each.fact.prompt_template;
      if (const auto slot = prompt.find("{}"); slot != std::string::npos) prompt.replace(slot, 2, each.fact.subject);
      facts.emplace_back(each.fact.subject, std::move(prompt));
    }
    return facts;
  }

  /// How texts that no edit sees begin.
  std::vector<std::string> openings() const {
    constexpr std::int64_t kTokens = 8;
    std::vector<std::string> texts;
    for (const auto& row : editing::corpus_rows(*unseen_, *bound_.tokenizer, kTokens)) {
      if (std::ssize(texts) == kContinued) break;
      texts.push_back(bound_.tokenizer->decode(row.tokens));
    }
    return texts;
  }

  /// Of all facts together, then of each.
  void certify(editing::Certificate together, std::vector<editing::Certificate> facts) {
    if (unseen_) {
      add(editing::norm_ratio(transformer_, *bound_.tokenizer, solved_.deltas, *unseen_), together.measured);
      add(editing::site_reach(transformer_, *bound_.tokenizer, solved_.deltas, *unseen_), together.measured);
    }
    solved_.certificates.push_back(std::move(together));
    std::ranges::move(facts, std::back_inserter(solved_.certificates));
  }

  static void add(editing::NamedNumbers numbers, editing::NamedNumbers& into) {
    into.insert(into.end(), numbers.begin(), numbers.end());
  }

  void keep(editing::WeightDelta delta) {
    applied_.apply(delta);
    solved_.deltas.push_back(std::move(delta));
  }

  const dsl::EditDecl& declaration_;
  model::Transformer& transformer_;
  const BoundRules& bound_;
  const std::vector<Direction>& features_;
  const CostText* costs_;  // null: side effects are not measured
  const editing::Corpus* unseen_;
  SolvedEdit& solved_;
  editing::AppliedDeltas applied_;
};

}  // namespace

std::vector<SecondMoments::Key> SecondMoments::keys(dsl::EditId edit, const BoundRules& bound) const {
  const auto& call = bound.rules->edits[edit].method;
  const auto& config = bound.card->config;
  const auto source = parameter<std::string>(call, "second_moments")
                          .value_or(parameter<std::string>(call, "text").value_or(corpus_path_));
  const auto method = batch_method(call.method);
  std::vector<std::int64_t> layers;
  if (method) {
    layers = call.layers ? call.layers->expand(config.layers) : editing::default_batch_layers(*method, config);
  } else if (call.method == dsl::EditMethod::rome) {
    layers = {parameter<std::int64_t>(call, "layer").value_or(editing::default_rome_layer(config))};
  }
  if (const auto* traced = trace(edit)) {
    const auto* found = std::get_if<editing::CausalTrace>(traced);
    if (!found) return {};
    // As many as are published, the last of them where the trace is strongest.
    const auto count = std::min<std::int64_t>(std::ssize(layers), found->layer + 1);
    layers.resize(count);
    std::iota(layers.begin(), layers.end(), found->layer + 1 - count);
  }
  std::vector<Key> keys;
  for (const auto layer : layers) keys.emplace_back(layer, source);
  return keys;
}

const std::variant<editing::CausalTrace, editing::Refusal>* SecondMoments::trace(dsl::EditId edit) const {
  const auto found = traces_.find(edit);
  return found == traces_.end() ? nullptr : &found->second;
}

void SecondMoments::prepare(dsl::EditId edit, const model::Transformer& transformer, const BoundRules& bound,
                            std::uint64_t seed) {
  const auto& call = bound.rules->edits[edit].method;
  if (call.traced && !trace(edit) && !bound.facts[edit].empty()) {
    std::vector<editing::TracedFact> facts;
    for (const auto& each : bound.facts[edit])
      facts.push_back({each.fact.subject, each.fact.prompt_template, each.fact.from.value_or("")});
    take(call, "seed", seed);
    traces_.emplace(edit, editing::causal_trace(transformer, *bound.tokenizer, facts, seed));
  }
  std::vector<std::int64_t> to_measure;
  std::string text;
  for (const Key& wanted : keys(edit, bound)) {
    if (moments_.contains(wanted)) continue;
    const auto& [layer, source] = wanted;
    if (call.parameters.contains("second_moments")) {
      moments_[wanted] = editing::read_second_moment(transformer, source, layer, cache_directory_);
    } else {
      to_measure.push_back(layer);
      text = source;
    }
  }
  if (to_measure.empty()) return;
  for (auto& moment : editing::second_moments(transformer, *bound.tokenizer, to_measure, editing::read_corpus(text),
                                              cache_directory_)) {
    moments_[{moment.layer, text}] = std::move(moment);
  }
}

std::vector<const editing::SecondMoment*> SecondMoments::of(dsl::EditId edit, const BoundRules& bound) const {
  std::vector<const editing::SecondMoment*> found;
  for (const Key& wanted : keys(edit, bound)) found.push_back(&moments_.at(wanted));
  return found;
}

SolvedEdit solve_edit(dsl::EditId edit, model::Transformer& transformer, const BoundRules& bound,
                      const std::vector<Direction>& features, const std::map<dsl::CircuitId, CircuitEvidence>& circuits,
                      const std::vector<SolvedEdit>& earlier, const SecondMoments& moments,
                      const InheritedKeys& inherited, const CostText* costs, std::uint64_t seed) {
  const auto& declaration = bound.rules->edits[edit];
  SolvedEdit solved;
  solved.edit = edit;
  if (const auto* traced = moments.trace(edit)) {
    if (const auto* refusal = std::get_if<editing::Refusal>(traced)) {
      solved.refused = refusal->reason;
      return solved;
    }
  }
  EditSolver solver(declaration, transformer, bound, features, costs, solved);
  switch (declaration.method.method) {
    case dsl::EditMethod::rome:
      solver.rome(moments, seed);
      break;
    case dsl::EditMethod::memit:
    case dsl::EditMethod::emmet:
    case dsl::EditMethod::alphaedit:
      solver.batch(*batch_method(declaration.method.method), earlier, inherited, moments, seed);
      break;
    case dsl::EditMethod::ft:
      solver.fine_tune();
      break;
    case dsl::EditMethod::project:
      solver.project();
      break;
    case dsl::EditMethod::leace:
      solver.erase(seed);
      break;
    case dsl::EditMethod::ablate:
      solver.ablate(circuits);
      break;
  }
  if (const auto* traced = moments.trace(edit); traced && !solved.certificates.empty()) {
    auto& measured = solved.certificates.front().measured;
    const auto numbers = std::get<editing::CausalTrace>(*traced).numbers();
    measured.insert(measured.end(), numbers.begin(), numbers.end());
  }
  solver.costs();
  if (!solved.refused.empty()) solved.deltas.clear();
  return solved;
}

std::vector<editing::WeightDelta> turned_round(std::vector<editing::WeightDelta> deltas) {
  for (auto& delta : deltas) delta.left = -delta.left;
  return deltas;
}

std::vector<editing::WeightDelta> turned_at_random(const std::vector<editing::WeightDelta>& deltas,
                                                   const model::Transformer& transformer, std::uint64_t seed) {
  const auto is_table = [&](const std::string& name) {
    return name == transformer.embedding_name() || name == transformer.position_embedding_name();
  };
  // A map and its bias write one site, as do the token and the position table.
  std::map<std::string, std::vector<std::size_t>> by_site;
  for (std::size_t i = 0; i < deltas.size(); ++i) {
    const auto& name = deltas[i].tensor;
    by_site[is_table(name) ? "" : name.substr(0, name.rfind('.'))].push_back(i);
  }
  auto turned = deltas;
  for (const auto& [site, members] : by_site) {
    std::vector<at::Tensor> written;  // [width, rank] each: the directions that a delta writes along
    std::vector<std::int64_t> ranks;
    for (std::size_t i : members) {
      written.push_back(is_table(deltas[i].tensor) ? deltas[i].right.t() : deltas[i].left);
      ranks.push_back(written.back().size(1));
    }
    const auto [own, r] = at::linalg_qr(at::cat(written, 1));
    model::NormalSource source(model::mix_seed(seed, members.front()));
    auto random = at::empty(own.sizes(), at::kDouble);
    auto* values = random.mutable_data_ptr<double>();
    for (std::int64_t j = 0; j < random.numel(); ++j) values[j] = source.next();
    const auto [frame, unused] = at::linalg_qr(random.to(r.device()));
    const auto parts = frame.matmul(r).split_with_sizes(ranks, 1);
    for (std::size_t k = 0; k < members.size(); ++k) {
      auto& delta = turned[members[k]];
      (is_table(delta.tensor) ? delta.right : delta.left) =
          is_table(delta.tensor) ? parts[k].t().contiguous() : parts[k];
    }
  }
  return turned;
}

}  // namespace proviso::runtime
