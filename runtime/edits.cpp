#include "runtime/edits.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>

#include "editing/corpus.hpp"
#include "editing/fold.hpp"
#include "editing/rome.hpp"
#include "editing/side_effects.hpp"
#include "runtime/random.hpp"

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

editing::RomeRequest rome_request(const dsl::MethodCall& call, const dsl::Fact& fact, std::uint64_t seed) {
  editing::RomeRequest request;
  request.subject = fact.subject;
  request.prompt_template = fact.prompt_template;
  request.target = fact.to;
  request.seed = seed;
  const auto take = [&]<class T>(const char* name, T& into) {
    if (const auto value = parameter<T>(call, name)) into = *value;
  };
  if (parameter<std::string>(call, "variant") == "original") request.variant = editing::RomeRequest::Variant::original;
  take("steps", request.steps);
  take("learning_rate", request.learning_rate);
  take("kl_factor", request.kl_factor);
  take("weight_decay", request.weight_decay);
  take("clamp", request.clamp);
  take("early_stop", request.early_stop);
  take("ridge", request.ridge);
  take("seed", request.seed);
  take("prefixes", request.prefixes);
  return request;
}

/// Solves and applies the changes of one edit in turn; what it applied is undone when it goes.
class EditSolver {
 public:
  EditSolver(const dsl::EditDecl& declaration, model::Transformer& transformer, const BoundRules& bound,
             const std::vector<Direction>& features, const editing::Corpus* unseen, SolvedEdit& solved)
      : declaration_(declaration),
        transformer_(transformer),
        bound_(bound),
        features_(features),
        unseen_(unseen),
        solved_(solved),
        applied_(transformer) {}

  void rome(const SecondMoments& moments, std::uint64_t seed) {
    for (const auto& change : declaration_.changes) {
      const auto& fact = std::get<dsl::Fact>(change);
      auto solution =
          editing::solve_rome(transformer_, *bound_.tokenizer, rome_request(declaration_.method, fact, seed),
                              moments.of(declaration_, transformer_.config()));
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

  void project() {
    const double strength = parameter<double>(declaration_.method, "strength").value_or(1);
    std::map<dsl::Site, std::vector<dsl::FeatureId>> at;  // all features of a site go at once
    for (const auto& change : declaration_.changes) {
      const auto& remove = std::get<dsl::Remove>(change);
      for (const auto& site : bound_.expand(remove.sites)) {
        auto& there = at[site];
        if (std::find(there.begin(), there.end(), remove.feature) == there.end()) there.push_back(remove.feature);
      }
    }
    editing::Certificate certificate;
    certificate.method = "project";
    certificate.parameters = {{"strength", std::to_string(strength)}};
    double left_over = 0;
    for (const auto& [site, ids] : at) {
      std::vector<at::Tensor> rows;
      for (dsl::FeatureId id : ids) rows.push_back(features_[id].d);
      const auto directions = at::stack(rows);
      auto folded = editing::fold(editing::removal(directions, strength), transformer_, site);
      if (const auto* refusal = std::get_if<editing::Refusal>(&folded)) {
        solved_.refused = refusal->reason;
        return;
      }
      for (auto& delta : std::get<std::vector<editing::WeightDelta>>(folded)) {
        certificate.changes.push_back(editing::describe_change(transformer_, delta));
        keep(std::move(delta));
      }
      const auto writer = transformer_.writer(site);
      const auto weight = transformer_.get(writer->weight).to(at::kDouble);
      const auto written =
          site.kind == dsl::SiteKind::embed ? directions.matmul(weight.t()) : directions.matmul(weight);
      left_over = std::max(left_over, (written.norm() / weight.norm()).item<double>());
    }
    // With strength 1 what the maps still write along the directions is rounding.
    certificate.algebra = {{"left_along_directions_over_weight", left_over}};
    if (unseen_) {
      applied_.revert();
      add(editing::norm_ratio(transformer_, *bound_.tokenizer, solved_.deltas, *unseen_), certificate.measured);
    }
    solved_.certificates.push_back(std::move(certificate));
  }

  void costs() {
    if (!unseen_ || !solved_.refused.empty()) return;
    applied_.revert();
    solved_.costs = editing::text_costs(transformer_, *bound_.tokenizer, solved_.deltas, *unseen_);
  }

 private:
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
  const editing::Corpus* unseen_;  // null: side effects are not measured
  SolvedEdit& solved_;
  editing::AppliedDeltas applied_;
};

}  // namespace

SecondMoments::Key SecondMoments::key(const dsl::EditDecl& edit, const model::ModelConfig& config) const {
  return {parameter<std::int64_t>(edit.method, "layer").value_or(editing::default_rome_layer(config)),
          parameter<std::string>(edit.method, "second_moments")
              .value_or(parameter<std::string>(edit.method, "text").value_or(corpus_path_))};
}

void SecondMoments::prepare(const dsl::EditDecl& edit, const model::Transformer& transformer,
                            const model::Tokenizer& tokenizer) {
  if (edit.method.method != dsl::EditMethod::rome) return;
  const Key wanted = key(edit, transformer.config());
  if (moments_.contains(wanted)) return;
  if (const auto stored = parameter<std::string>(edit.method, "second_moments")) {
    moments_[wanted] = editing::read_second_moment(*stored, wanted.first, transformer.config().neurons);
    return;
  }
  moments_[wanted] = editing::second_moment(transformer, tokenizer, wanted.first, editing::read_corpus(wanted.second),
                                            cache_directory_);
}

const editing::SecondMoment& SecondMoments::of(const dsl::EditDecl& edit, const model::ModelConfig& config) const {
  return moments_.at(key(edit, config));
}

SolvedEdit solve_edit(dsl::EditId edit, model::Transformer& transformer, const BoundRules& bound,
                      const std::vector<Direction>& features, const SecondMoments& moments,
                      const editing::Corpus* unseen, std::uint64_t seed) {
  const auto& declaration = bound.rules->edits[edit];
  SolvedEdit solved;
  solved.edit = edit;
  EditSolver solver(declaration, transformer, bound, features, unseen, solved);
  switch (declaration.method.method) {
    case dsl::EditMethod::rome:
      solver.rome(moments, seed);
      break;
    case dsl::EditMethod::project:
      solver.project();
      break;
  }
  solver.costs();
  if (!solved.refused.empty()) solved.deltas.clear();
  return solved;
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
    NormalSource source(mix_seed(seed, members.front()));
    auto random = at::empty(own.sizes(), at::kDouble);
    auto* values = random.mutable_data_ptr<double>();
    for (std::int64_t j = 0; j < random.numel(); ++j) values[j] = source.next();
    const auto [frame, unused] = at::linalg_qr(random);
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
