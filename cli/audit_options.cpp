#include "cli/audit_options.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "audit/verdict.hpp"
#include "runtime/plan.hpp"

namespace proviso::cli {

audit::AuditOptions audit_options(const Invocation& invocation) {
  audit::AuditOptions options;
  options.seed = invocation.options.seed;
  options.as_of = audit::utc_today();
  std::vector<std::string> passes;
  for (const auto& pass : runtime::plan_passes()) passes.emplace_back(pass.name);
  for (const auto& name : invocation.options.disabled_passes) {
    if (std::find(passes.begin(), passes.end(), name) == passes.end()) {
      const auto nearest = dsl::nearest_name(name, passes);
      throw model::InputError("there is no plan pass `" + name + "`\n  help: " +
                              (nearest ? "did you mean `" + *nearest + "`?" : "`proviso explain` lists them"));
    }
    options.passes_off.insert(name);
  }
  options.cache_directory = invocation.options.cache;
  options.corpus_path = shipped_corpus();
  options.held_out_path = shipped_held_out();
  return options;
}

void complete(audit::Report& report, const Invocation& invocation, const ModelFiles& files) {
  report.version = PROVISO_VERSION;
  report.model.dtype = invocation.options.dtype;
  report.model.sha256 = files.card.sha256(invocation.options.cache);
  report.run.device = invocation.options.device;
  report.run.threads = threads_in_use();
}

dsl::Date parse_date(const std::string& text) {
  dsl::Date date;
  int read = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2d%n", &date.year, &date.month, &date.day, &read) == 3 &&
      read == static_cast<int>(text.size())) {
    const std::chrono::year_month_day day{std::chrono::year(date.year),
                                          std::chrono::month(static_cast<unsigned>(date.month)),
                                          std::chrono::day(static_cast<unsigned>(date.day))};
    if (day.ok()) return date;
  }
  throw model::InputError("`" + text + "` is no day\n  help: write it as YYYY-MM-DD");
}

void check_selection(const dsl::RuleSet& rules, const audit::Selection& selection) {
  const auto own = [](const auto& declared) { return !declared.imported; };
  const auto with_examples = [&](const dsl::RuleDecl& rule) {
    return own(rule) && !(rule.fires_on.empty() && rule.silent_on.empty());
  };
  const bool anything = (selection.checks && std::any_of(rules.checks.begin(), rules.checks.end(), own)) ||
                        (selection.edits && std::any_of(rules.edits.begin(), rules.edits.end(), own)) ||
                        std::any_of(rules.rules.begin(), rules.rules.end(), with_examples);
  if (!anything && selection.checks) {
    throw model::InputError("these files hold no check, edit or example: an audit of nothing would pass\n"
                            "  help: write a check; what a file only `use`s does not run");
  }
  if (selection.only.empty()) return;
  std::vector<std::string> names;
  bool any = false;
  const auto look = [&](const auto& declarations) {
    for (const auto& declared : declarations) {
      if (declared.imported) continue;
      names.push_back(declared.name);
      any = any || selection.takes(declared);
    }
  };
  look(rules.checks);
  look(rules.edits);
  look(rules.rules);
  if (any) return;
  const auto nearest = dsl::nearest_name(selection.only, names);
  throw model::InputError("`--only " + selection.only + "` takes no check, edit or rule" +
                          (nearest ? "\n  help: did you mean `" + *nearest + "`?" : ""));
}

}  // namespace proviso::cli
