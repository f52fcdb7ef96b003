#include "audit/report_merge.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "audit/report_tree.hpp"
#include "audit/statistics.hpp"
#include "audit/verdict.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::audit {
namespace {

template <class Visit>
void each_expectation(Report& report, Visit visit) {
  for (CheckResult& check : report.checks)
    for (ExpectationResult& expectation : check.expectations) visit(expectation);
  for (EditResult& edit : report.edits)
    for (ExpectationResult& expectation : edit.expectations) visit(expectation);
}

bool asks_beyond_control(const ExpectationResult& expectation) {
  return expectation.control && expectation.text.find(" beyond control") != std::string::npos;
}

/// Statuses after those of expectations have changed. An edit's own (it changed nothing, it was refused) stays.
template <class Change>
void with_statuses(Report& report, Change change) {
  std::vector<bool> derived;
  for (const EditResult& edit : report.edits)
    derived.push_back(!edit.expectations.empty() && edit.status == worst_of(edit.expectations));
  change();
  for (CheckResult& check : report.checks) conclude(check);
  for (std::size_t i = 0; i < report.edits.size(); ++i)
    if (derived[i]) report.edits[i].status = worst_of(report.edits[i].expectations);
}

/// As if each effect had been the only one.
void take_back_correction(Report& report) {
  with_statuses(report, [&] {
    each_expectation(report, [](ExpectationResult& expectation) {
      if (!expectation.control) return;
      const Decision decided = beyond_control(*expectation.control);
      const bool by_control = expectation.status == decided.status && expectation.reason == decided.reason;
      if (asks_beyond_control(expectation) && by_control && !expectation.across) {
        expectation.status = Status::pass;
        expectation.reason.clear();
      }
      if (!expectation.across) expectation.control->p_holm = expectation.control->p;
    });
  });
}

void correct(Report& report) {
  std::vector<double> p;
  each_expectation(report, [&](ExpectationResult& expectation) {
    if (expectation.control) p.push_back(expectation.control->p);
  });
  const std::vector<double> corrected = holm(p);
  auto next = corrected.begin();
  with_statuses(report, [&] {
    each_expectation(report, [&](ExpectationResult& expectation) {
      if (!expectation.control) return;
      // Of what was repeated only one combination's control is here: its correction is never made less.
      const double corrected_p = *next++;
      double& p_holm = expectation.control->p_holm;
      p_holm = expectation.across ? std::max(p_holm, corrected_p) : corrected_p;
      if (!asks_beyond_control(expectation) || expectation.status != Status::pass) return;
      auto [status, reason] = beyond_control(*expectation.control);
      expectation.status = status;
      expectation.reason = std::move(reason);
    });
  });
}

class Merger {
 public:
  void add(const ReportFile& part) {
    path_ = &part.path;
    if (part.report.planted_faults) {
      throw model::InputError(*path_ +
                              " tells of planted faults, which belong to one run of `proviso mutate`\n  help: merge "
                              "reports of `proviso audit`");
    }
    Report report = part.report;
    take_back_correction(report);
    if (!first_) {
      first_ = &part;
      begin(report);
    }
    require_same_run(report);
    files(result_.rules, report.rules);
    files(result_.data, report.data);
    run(part, report.run);
    if (result_.program_sha256 != report.program_sha256) result_.program_sha256.clear();
    if (result_.libtorch != report.libtorch) result_.libtorch.clear();

    join(result_.checks, report.checks, [](const CheckResult& check) { return "check " + check.name; });
    join(result_.edits, report.edits, [](const EditResult& edit) { return "edit " + edit.name; });
    join(result_.circuits, report.circuits, [](const CircuitResult& circuit) { return "circuit " + circuit.name; });
    join(result_.examples, report.examples, [](const ExampleResult& example) {
      return "example " + example.rule + " " + example.kind + " (" + example.where + ")";
    });
    join(result_.annotated, report.annotated, [](const Annotated& annotated) {
      return "the notes of " + annotated.declaration + " (" + annotated.where + ")";
    });
    for (const FeatureResult& feature : report.features) this->feature(feature);
    for (const RuleActivity& activity : report.rule_activity) {
      const Tree tree = tree_of_part(activity);
      const bool known = std::any_of(result_.rule_activity.begin(), result_.rule_activity.end(),
                                     [&](const RuleActivity& other) { return tree_of_part(other) == tree; });
      if (!known) result_.rule_activity.push_back(activity);
    }
  }

  Report take() {
    correct(result_);
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(const std::string& other, const std::string& what) const {
    throw model::InputError(other + " and " + *path_ + " " + what +
                            "\n  help: merge parts of one audit: one model, one program, one date and seed, each check "
                            "measured once or with the same result");
  }

  void begin(const Report& report) {
    result_.version = report.version;
    result_.program_sha256 = report.program_sha256;
    result_.libtorch = report.libtorch;
    result_.model = report.model;
    result_.run.seed = report.run.seed;
    result_.run.date = report.run.date;
    result_.run.device = report.run.device;
    result_.run.threads = report.run.threads;
    result_.run.machine = report.run.machine;
  }

  void require_same_run(const Report& report) const {
    const auto same = [this](const std::string& what, const std::string& first, const std::string& here) {
      if (first != here) refuse(first_->path, "are not of one " + what + ": " + first + " and " + here);
    };
    const ModelFacts &first = result_.model, &here = report.model;
    same("program version", result_.version, report.version);
    same("model", first.name + " " + first.sha256, here.name + " " + here.sha256);
    same("dtype", first.dtype, here.dtype);
    same("date", result_.run.date, report.run.date);
    same("seed", std::to_string(result_.run.seed), std::to_string(report.run.seed));
  }

  void files(std::vector<std::pair<std::string, std::string>>& into,
             const std::vector<std::pair<std::string, std::string>>& from) {
    for (const auto& file : from) {
      const auto [origin, is_new] = origins_.emplace("file " + file.first, *path_);
      if (is_new) {
        into.push_back(file);
      } else if (std::find(into.begin(), into.end(), file) == into.end()) {
        refuse(origin->second, "read different versions of " + file.first);
      }
    }
  }

  void run(const ReportFile& part, const RunFacts& from) {
    RunFacts& run = result_.run;
    const auto add_word = [](std::string& list, const std::string& word) {
      if (word.empty() || (", " + list + ", ").find(", " + word + ", ") != std::string::npos) return;
      list += (list.empty() ? "" : ", ") + word;
    };
    add_word(run.device, from.device);
    add_word(run.only, from.only);
    run.threads = std::max(run.threads, from.threads);
    run.sequences += from.sequences;
    run.tokens += from.tokens;
    run.tokens_saved += from.tokens_saved;
    run.seconds += from.seconds;
    if (run.machine != from.machine) run.machine.reset();
    run.merged.push_back({part.path, part.sha256, from.only, from.device, from.threads, from.seconds});
  }

  template <class Part, class Name>
  void join(std::vector<Part>& into, const std::vector<Part>& from, Name name) {
    for (const Part& part : from) {
      const auto [origin, is_new] = origins_.emplace(name(part), *path_);
      if (is_new) {
        into.push_back(part);
        continue;
      }
      const auto known =
          std::find_if(into.begin(), into.end(), [&](const Part& other) { return name(other) == name(part); });
      if (tree_of_part(*known) != tree_of_part(part)) refuse(origin->second, "disagree on " + name(part));
    }
  }

  /// Directions built on another number of threads differ in their last digits.
  void feature(const FeatureResult& feature) {
    const auto [origin, is_new] = origins_.emplace("feature " + feature.name, *path_);
    if (is_new) return void(result_.features.push_back(feature));
    constexpr double kRounding = 1e-4;
    const FeatureResult& known = *std::find_if(result_.features.begin(), result_.features.end(),
                                               [&](const FeatureResult& other) { return other.name == feature.name; });
    const double most = kRounding * std::max(std::abs(known.b), std::abs(known.c));
    const bool same = known.site == feature.site && known.constructor == feature.constructor &&
                      known.built_on == feature.built_on && std::abs(known.b - feature.b) <= most &&
                      std::abs(known.c - feature.c) <= most;
    if (!same) refuse(origin->second, "disagree on feature " + feature.name);
  }

  Report result_;
  const ReportFile* first_ = nullptr;
  const std::string* path_ = nullptr;           ///< of the part being added
  std::map<std::string, std::string> origins_;  ///< "check calm" → the report that it came from
};

}  // namespace

Report merged(const std::vector<ReportFile>& parts) {
  Merger merger;
  for (const ReportFile& part : parts) merger.add(part);
  return merger.take();
}

}  // namespace proviso::audit
