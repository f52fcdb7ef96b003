#include "audit/mutation.hpp"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "audit/statistics.hpp"
#include "audit/verdict.hpp"
#include "dsl/metric_traits.hpp"
#include "editing/corpus.hpp"
#include "editing/side_effects.hpp"
#include "editing/weight_delta.hpp"
#include "runtime/bind.hpp"

namespace proviso::audit {

namespace {

/// Enough to tell a fault from rounding.
constexpr std::int64_t kTokensToWeigh = 512;

double kl_of(const std::vector<editing::WeightDelta>& deltas, model::Transformer& transformer,
             const model::Tokenizer& tokenizer, const editing::Corpus& unseen) {
  const auto costs = editing::text_costs(transformer, tokenizer, deltas, unseen, kTokensToWeigh);
  return std::find_if(costs.begin(), costs.end(), [](const auto& cost) { return cost.first == "kl"; })->second;
}

/// What an audit found, by the names of what it judged. What is experimental gates nothing.
struct Verdicts {
  std::map<std::string, Status> by_name;
  std::string stopped;  ///< why there is no report, where there is none
};

/// What stopped an audit, without the prompts that messages tell of: "error[reads-sink]".
std::string codes(const std::vector<dsl::Diagnostic>& diagnostics) {
  std::string text;
  for (const auto& diagnostic : diagnostics) {
    const std::string code = "error[" + std::string(dsl::slug(diagnostic.code)) + "]";
    if (text.find(code) == std::string::npos) text += (text.empty() ? "" : ", ") + code;
  }
  return text;
}

Verdicts verdicts(const Report& report) {
  Verdicts found;
  for (const Judgement& judgement : judgements(report)) {
    if (!judgement.experimental) found.by_name[full_name(judgement)] = judgement.status;
  }
  return found;
}

Verdicts verdicts(model::Transformer& transformer, const runtime::BoundRules& bound, const dsl::SourceSet& sources,
                  const AuditOptions& options, const runtime::SessionOptions& session_options) {
  runtime::Session session(transformer, bound, session_options);
  const auto outcome = audit(session, bound, sources, options);
  if (outcome.value) return verdicts(*outcome.value);
  Verdicts none;
  none.stopped = codes(outcome.diagnostics);
  return none;
}

/// A gate stops at what neither passes nor is waived.
bool stands(const Verdicts& found, const std::string& name) {
  const auto status = found.by_name.find(name);
  return status != found.by_name.end() && (status->second == Status::pass || status->second == Status::waived);
}

void count(const FaultResult& fault, FaultTally& tally) {
  if (fault.outcome == "not planted") return;
  ++tally.planted;
  tally.caught += fault.outcome == "caught";
  tally.doubted += fault.outcome == "doubted";
}

void conclude(FaultTally& tally) {
  if (tally.planted == 0) {
    tally.share.value = std::numeric_limits<double>::quiet_NaN();
    tally.share.why_no_interval = "nothing was planted";
    return;
  }
  std::vector<Sample> found;
  for (std::int64_t i = 0; i < tally.planted; ++i) {
    found.push_back({i < tally.caught + tally.doubted ? 1.0 : 0.0, i});
  }
  tally.share = wilson(found, tally.share.confidence);
}

class Mutation {
 public:
  Mutation(model::Transformer& transformer, const runtime::BoundRules& bound, const dsl::SourceSet& sources,
           const AuditOptions& audit, const runtime::SessionOptions& session, const MutationOptions& options,
           const Report& clean)
      : transformer_(transformer),
        bound_(bound),
        sources_(sources),
        audit_(audit),
        mutant_audit_(audit),
        session_(session),
        options_(options),
        unseen_(editing::read_corpus(session.held_out_path)),
        clean_(transformer, bound, session) {
    // What is kept on disk is known by the model's files, which say nothing of faults.
    mutant_ = session;
    mutant_.cache_directory.clear();
    mutant_.progress = {};
    for (const auto& [name, status] : verdicts(clean).by_name) {
      if (status == Status::pass) result_.watching.push_back(name);
    }
    mutant_audit_.left_out = unwatched();
  }

  PlantedFaults run() {
    if (result_.watching.empty()) return std::move(result_);
    const at::NoGradGuard no_grad;
    const auto audited = audited_things();
    clean_.build(audited.features);
    const auto chosen = runtime::choose_faults(transformer_, bound_, audited, options_.faults);
    for (const auto& [kind, why] : chosen.left_out) {
      result_.left_out.emplace_back(runtime::fault_kind_name(kind), why);
    }
    total_ = options_.controls + std::ssize(chosen.faults);
    for (std::int64_t i = 1; i <= options_.controls; ++i) control(session_.seed + static_cast<std::uint64_t>(i));
    for (const auto& fault : chosen.faults) plant(fault);
    tell({});
    tally();
    return std::move(result_);
  }

 private:
  /// Checks that can catch nothing, and need not be measured: their effects must be, since Holm's correction counts
  /// them.
  std::set<std::string> unwatched() const {
    std::set<std::string> names;
    for (const auto& check : bound_.rules->checks) {
      const auto has_effect = [](const dsl::Expectation& expectation) {
        return std::holds_alternative<dsl::metric::Effect>(expectation.metric.node);
      };
      const bool watched =
          std::find(result_.watching.begin(), result_.watching.end(), "check/" + check.name) != result_.watching.end();
      if (!watched && std::none_of(check.expectations.begin(), check.expectations.end(), has_effect))
        names.insert(check.name);
    }
    return names;
  }

  runtime::AuditedThings audited_things() const {
    runtime::AuditedThings audited;
    audited.features = plan_audit(bound_, audit_).features;
    for (const auto& check : bound_.rules->checks) {
      if (check.imported || !audit_.selection.takes(check)) continue;
      for (const auto& expectation : check.expectations) {
        const auto sets = dsl::prompt_sets(expectation.metric);
        audited.sets.insert(sets.begin(), sets.end());
      }
    }
    return audited;
  }

  void tell(std::string_view stage) {
    if (session_.progress) session_.progress(stage, done_++, total_);
  }

  std::variant<std::vector<editing::WeightDelta>, editing::Refusal> solve(const runtime::Fault& fault) {
    return runtime::solve_fault(fault, transformer_, bound_, clean_.features(),
                                editing::read_corpus(session_.corpus_path), session_.cache_directory, session_.seed);
  }

  void control(std::uint64_t seed) {
    const auto fault = runtime::harmless_noise(transformer_, seed);
    tell("auditing without a fault, seed " + std::to_string(seed));
    MutationControl control;
    control.seed = seed;
    const auto solved = solve(fault);
    editing::AppliedDeltas applied(transformer_);
    if (const auto* deltas = std::get_if<std::vector<editing::WeightDelta>>(&solved)) {
      control.kl = kl_of(*deltas, transformer_, *bound_.tokenizer, unseen_);
      for (const auto& delta : *deltas) applied.apply(delta);
    }
    // Attacks are drawn when rules are bound.
    auto bound = runtime::bind(bound_.rules, *bound_.card, bound_.tokenizer, "", seed);
    if (bound.value) {
      auto options = mutant_;
      options.seed = seed;
      const auto found = verdicts(transformer_, *bound.value, sources_, mutant_audit_, options);
      for (const std::string& name : result_.watching) {
        if (!stands(found, name)) control.alarms.push_back(name);
      }
    } else {
      control.alarms.push_back(codes(bound.diagnostics));
    }
    result_.controls.push_back(std::move(control));
  }

  void plant(const runtime::Fault& fault) {
    tell("auditing with a planted " + std::string(runtime::fault_kind_name(fault.kind)));
    FaultResult result;
    result.kind = runtime::fault_kind_name(fault.kind);
    result.strength = fault.strength;
    result.what = fault.what;
    result.outcome = "not planted";
    const auto solved = solve(fault);
    if (const auto* refusal = std::get_if<editing::Refusal>(&solved)) {
      result.reason = refusal->reason;
    } else {
      audit_with(fault, std::get<0>(solved), result);
    }
    result_.faults.push_back(std::move(result));
  }

  void audit_with(const runtime::Fault& fault, const std::vector<editing::WeightDelta>& deltas, FaultResult& result) {
    result.kl = kl_of(deltas, transformer_, *bound_.tokenizer, unseen_);
    editing::AppliedDeltas applied(transformer_);
    for (const auto& delta : deltas) applied.apply(delta);
    const bool written = std::holds_alternative<runtime::WrittenFault>(fault.change);
    if (written && !runtime::says_fault(fault, transformer_)) {
      result.reason = "the model does not say it with the fault in it";
      return;
    }
    if (!written && *result.kl < kLeastFaultKl) {
      result.reason = "it hardly moves the model";
      return;
    }
    const auto found = verdicts(transformer_, bound_, sources_, mutant_audit_, mutant_);
    result.reason = found.stopped;
    bool fails = !found.stopped.empty();
    for (const std::string& name : result_.watching) {
      if (!found.stopped.empty() || stands(found, name)) continue;
      result.by.push_back(name);
      const auto status = found.by_name.find(name);
      fails =
          fails || status == found.by_name.end() || status->second == Status::fail || status->second == Status::error;
    }
    result.outcome = fails ? "caught" : result.by.empty() ? "missed" : "doubted";
  }

  void tally() {
    for (const FaultResult& fault : result_.faults) {
      auto found = std::find_if(result_.kinds.begin(), result_.kinds.end(), [&](const FaultTally& tally) {
        return tally.kind == fault.kind && tally.strength == fault.strength;
      });
      if (found == result_.kinds.end()) {
        result_.kinds.push_back({fault.kind, fault.strength});
        found = std::prev(result_.kinds.end());
      }
      count(fault, *found);
      count(fault, result_.all);
    }
    for (FaultTally& tally : result_.kinds) conclude(tally);
    conclude(result_.all);
  }

  model::Transformer& transformer_;
  const runtime::BoundRules& bound_;
  const dsl::SourceSet& sources_;
  const AuditOptions& audit_;
  AuditOptions mutant_audit_;  ///< without what can catch nothing
  const runtime::SessionOptions& session_;
  const MutationOptions& options_;
  editing::Corpus unseen_;
  runtime::Session clean_;  // whose features directions are planted along
  runtime::SessionOptions mutant_;
  PlantedFaults result_;
  std::int64_t done_ = 0, total_ = 0;
};

}  // namespace

PlantedFaults plant_faults(model::Transformer& transformer, const runtime::BoundRules& bound,
                           const dsl::SourceSet& sources, const AuditOptions& audit,
                           const runtime::SessionOptions& session, const MutationOptions& options,
                           const Report& clean) {
  return Mutation(transformer, bound, sources, audit, session, options, clean).run();
}

}  // namespace proviso::audit
