#include "cli/final_model.hpp"

#include <algorithm>

#include "audit/verdict.hpp"

namespace proviso::cli {

namespace {

bool any_missed(const audit::Report& report) {
  const auto judgements = audit::judgements(report);
  return std::any_of(judgements.begin(), judgements.end(),
                     [](const audit::Judgement& judgement) { return !(judgement.stands() || judgement.experimental); });
}

const audit::EditResult* find(const audit::Report& report, const std::string& name) {
  const auto found = std::ranges::find(report.edits, name, &audit::EditResult::name);
  return found == report.edits.end() ? nullptr : &*found;
}

bool stands(const audit::EditResult& edit) { return edit.status == audit::Status::pass; }

std::string quoted(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "`" : ", `") + name + "`";
  return text;
}

}  // namespace

FinalModel::FinalModel(runtime::Session& session, const BoundFiles& opened, const audit::AuditOptions& judged)
    : session_(session),
      opened_(opened),
      judged_(judged),
      edits_(opened.bound->rules->own_edits()),
      rules_(opened.bound->rules->own_rules()) {}

std::vector<dsl::Diagnostic> FinalModel::measure_alone() {
  auto outcome = audit::audit(session_, *opened_.bound, opened_.files->sources, judged_);
  alone_ = std::move(outcome.value);
  return std::move(outcome.diagnostics);
}

void FinalModel::measure_final(const std::vector<editing::LedgerEntry>& entries,
                               const std::vector<editing::RoundedTensor>& rounded) {
  for (const auto& tensor : rounded) {
    if (tensor.change_kept) lossy_type_ = model::element_type_name(tensor.type);
  }
  if (entries.size() == 1 && rounded.empty() && rules_.empty()) {
    final_ = alone_;
    return;
  }
  runtime::NamedTensors written;
  for (const auto& tensor : rounded) written.emplace_back(tensor.tensor, tensor.value);
  session_.write_as(std::move(written));
  final_ = measured({edits_, rules_, /*as_written=*/true});
}

bool FinalModel::missed() const { return any_missed(report()); }

audit::Report FinalModel::measured(audit::Together together, const std::string& only) {
  auto options = judged_;
  options.together = std::move(together);
  options.selection.only = only;
  // What only the model can tell was told when each edit was measured by itself.
  return *audit::audit(session_, *opened_.bound, opened_.files->sources, options).value;
}

bool FinalModel::holds(const std::string& name, audit::Together together) {
  return stands(*find(measured(std::move(together), name), name));
}

std::vector<std::string> FinalModel::broken() {
  const auto& declared = *opened_.bound->rules;
  std::vector<std::string> names, said;
  for (const dsl::EditId edit : edits_) names.push_back(declared.edits[edit].name);
  const auto why = [&](std::size_t own) -> std::string {
    for (std::size_t last = own; last < edits_.size(); ++last) {
      if (last == 0 || holds(names[own], {{edits_.begin(), edits_.begin() + last + 1}, {}})) continue;
      if (last == own) return "on what " + quoted({names.begin(), names.begin() + own}) + " left it does not hold";
      return "edit `" + names[last] + "` broke it";
    }
    std::vector<std::string> rules;
    for (const dsl::RuleId rule : rules_) rules.push_back(declared.rules[rule].name);
    if (!rules.empty() && !holds(names[own], {edits_, rules_})) return "the rules in force broke it: " + quoted(rules);
    return "it is lost where tensors are written as " + lossy_type_ + "; a wider --dtype keeps it";
  };
  for (std::size_t i = 0; i < edits_.size(); ++i) {
    const auto* alone = find(*alone_, names[i]);
    const auto* now = find(report(), names[i]);
    if (!alone || !now || !stands(*alone) || stands(*now)) continue;
    said.push_back("edit `" + names[i] + "` holds by itself and not in the final model: " + why(i));
  }
  return said;
}

void FinalModel::record(std::vector<editing::LedgerEntry>& entries) const {
  for (auto& entry : entries) {
    const auto* alone = find(*alone_, entry.name);
    const auto* now = find(report(), entry.name);
    if (!alone || !now) continue;  // rules that became weights
    for (std::size_t i = 0; i < alone->expectations.size(); ++i) {
      const auto &by_itself = alone->expectations[i], &last = now->expectations[i];
      entry.expectations.push_back({by_itself.text, std::string(audit::status_name(by_itself.status)),
                                    by_itself.estimate.value, std::string(audit::status_name(last.status)),
                                    last.estimate.value});
    }
  }
}

}  // namespace proviso::cli
