#include "audit/explanation.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "audit/html_page.hpp"
#include "audit/markup.hpp"
#include "audit/report_words.hpp"
#include "audit/sample_size.hpp"

namespace proviso::audit {

namespace {

using nlohmann::ordered_json;

constexpr std::size_t kPairsTold = 20;

/// What one check alone computes: tokens by state and sequence.
using Computed = std::map<std::pair<std::string, std::vector<std::int64_t>>, std::int64_t>;

Computed computed(const dsl::CheckDecl& check, const runtime::BoundRules& bound, const AuditOptions& options) {
  AuditOptions alone = options;
  alone.selection = {.checks = true, .edits = false, .examples = false, .only = check.name};
  const runtime::Plan plan = plan_audit(bound, alone);
  Computed result;
  for (const auto& run : plan.runs) {
    for (const auto& [id, wants] : run.wants) {
      const auto& tokens = plan.sequences[id].tokens;
      result[{plan.states[run.state].label, tokens}] = std::ssize(tokens);
    }
  }
  return result;
}

std::int64_t total(const Computed& computed) {
  std::int64_t tokens = 0;
  for (const auto& [what, count] : computed) tokens += count;
  return tokens;
}

std::int64_t in_common(const Computed& a, const Computed& b) {
  std::int64_t tokens = 0;
  for (const auto& [what, count] : a) {
    if (b.contains(what)) tokens += count;
  }
  return tokens;
}

ordered_json explain_expectation(const dsl::Expectation& expectation, const runtime::BoundRules& bound,
                                 const std::vector<dsl::EditId>& edits) {
  ordered_json told = {{"text", expectation.text}};
  const auto size = sample_size(expectation, bound, edits);
  if (!size) return told;
  told["prompts"] = size->prompts;
  told["clusters"] = size->clusters;
  const bool area = std::holds_alternative<dsl::metric::Auroc>(expectation.metric.node);
  if (size->share || area)
    told["prompts_at_best"] = size->at_best > 0 ? ordered_json(size->at_best) : ordered_json(nullptr);
  if (size->share) {
    told["prompts_halfway"] = size->halfway > 0 ? ordered_json(size->halfway) : ordered_json(nullptr);
    told["half_width"] = size->half_width;
  }
  told["advice"] = size->advice;
  return told;
}

/// Of all checks and of the edits' expectations: their thresholds; of checks what they compute and share, too.
void explain_checks(ordered_json& explanation, const runtime::BoundRules& bound, const AuditOptions& options) {
  ordered_json checks = ordered_json::array();
  std::vector<std::pair<std::string, Computed>> alone;
  const auto expectations = [&](const std::vector<dsl::Expectation>& all, const std::vector<dsl::EditId>& edits) {
    ordered_json told = ordered_json::array();
    for (const auto& expectation : all) told.push_back(explain_expectation(expectation, bound, edits));
    return told;
  };
  for (const auto& check : bound.rules->checks) {
    if (check.imported) continue;
    alone.emplace_back(check.name, computed(check, bound, options));
    checks.push_back({{"check", check.name},
                      {"tokens_alone", total(alone.back().second)},
                      {"expectations", expectations(check.expectations, check.under_edits)}});
  }
  for (dsl::EditId id = 0; id < bound.rules->edits.size(); ++id) {
    const auto& edit = bound.rules->edits[id];
    if (edit.imported || edit.expectations.empty()) continue;
    checks.push_back({{"edit", edit.name}, {"expectations", expectations(edit.expectations, {id})}});
  }
  explanation["checks"] = std::move(checks);

  std::vector<std::pair<std::int64_t, ordered_json>> pairs;
  for (std::size_t i = 0; i < alone.size(); ++i) {
    for (std::size_t j = i + 1; j < alone.size(); ++j) {
      const std::int64_t tokens = in_common(alone[i].second, alone[j].second);
      if (tokens == 0) continue;
      pairs.emplace_back(tokens, ordered_json{{"checks", {alone[i].first, alone[j].first}}, {"tokens_saved", tokens}});
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  if (pairs.size() > kPairsTold) pairs.resize(kPairsTold);
  ordered_json sharing = ordered_json::array();
  for (auto& [tokens, pair] : pairs) sharing.push_back(std::move(pair));
  explanation["sharing"] = std::move(sharing);
}

std::string text_of(const ordered_json& value) { return value.get<std::string>(); }
std::string count_of(const ordered_json& value) { return grouped(value.get<std::int64_t>()); }

std::string name_of(const ordered_json& check) {
  return check.contains("check") ? text_of(check["check"]) : "edit " + text_of(check["edit"]);
}

// ---- the page ------------------------------------------------------------------------------------------

std::string sentences(const ordered_json& explanation) {
  std::string content;
  for (const auto& rule : explanation["rules"]) {
    std::string known;
    if (rule.contains("weight_edits")) known += fact("becomes a weight edit at", code(text_of(rule["weight_edits"])));
    if (rule.contains("hooks")) known += fact("becomes a hook at", code(text_of(rule["hooks"])));
    if (rule.contains("why")) known += fact("because", markup(text_of(rule["why"])));
    known += fact("costs", markup(runtime::sentence_cost_text(rule)));
    if (rule.contains("would_save")) known += fact("could cost less", markup(text_of(rule["would_save"])));
    if (rule.contains("relative_change_at_0")) {
      const auto& at_0 = rule["relative_change_at_0"];
      known += fact("at the first position",
                    markup("changes the vector by at most " + number_text(at_0["largest"].get<double>(), true) +
                           " of its length, at ") +
                        code(text_of(at_0["site"])));
    }
    const std::string name = text_of(rule["rule"]);
    content += element("h3", "", markup(name.empty() ? "the change of an effect" : name)) +
               element("p", "", code(text_of(rule["sentence"]))) + facts(known) + "\n";
  }
  return content;
}

std::string edits_table(const ordered_json& explanation) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& edit : explanation["edits"]) {
    std::string changes;
    for (const auto& change : edit["changes"]) changes += paragraph(text_of(change));
    rows.push_back({markup(text_of(edit["edit"])), code(text_of(edit["method"])), changes});
  }
  return table("Changes of weights, in order", {{"edit", "text"}, {"method"}, {"changes", "text"}}, rows);
}

std::string circuits_table(const ordered_json& explanation) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& circuit : explanation["circuits"]) {
    const std::string what = circuit.contains("nodes") ? "nodes" : "edges";
    rows.push_back({markup(text_of(circuit["circuit"])), code(text_of(circuit["method"])), count_of(circuit["pairs"]),
                    count_of(circuit["tokens"]),
                    count_of(circuit[what]) + " of " + count_of(circuit["model_" + what]) +
                        (circuit.contains("autoencoders") ? " latents and error terms" : " " + what)});
  }
  return table("Circuits to be found",
               {{"circuit", "text"}, {"method"}, {"pairs", "number"}, {"tokens a side", "number"}, {"keeps", "number"}},
               rows);
}

std::string states_table(const ordered_json& explanation) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& state : explanation["states"]) {
    std::string remarks;
    if (state["generated_texts"] > 0) remarks += paragraph(runtime::generation_text(state));
    if (state["controls"] > 0) {
      remarks += paragraph("the same for each of " + count_of(state["controls"]) + " random directions");
    }
    bool first = true;
    for (const auto& run : state["runs"]) {
      std::string stops = "the logits";
      if (!run["stops_after"].is_null()) {
        stops = code(text_of(run["stops_after"])) +
                markup(", saving " + runtime::flops_text(run["flops_saved_by_stopping"]));
      }
      rows.push_back({first ? markup(text_of(state["state"])) + remarks : "", count_of(run["sequences"]),
                      count_of(run["passes"]), count_of(run["tokens"]), count_of(run["tokens_shared"]),
                      runtime::flops_text(run["flops"]), stops});
      first = false;
    }
    if (first) rows.push_back({markup(text_of(state["state"])) + remarks, "0", "0", "0", "0", "–", "–"});
  }
  return table("Model states, and the forward passes in each",
               {{"state", "text"},
                {"sequences", "number"},
                {"passes", "number"},
                {"tokens", "number"},
                {"shared", "number"},
                {"cost", "number"},
                {"up to"}},
               rows);
}

std::string checks_part(const ordered_json& explanation) {
  std::vector<std::vector<std::string>> rows, pairs;
  for (const auto& check : explanation["checks"]) {
    bool first = true;
    for (const auto& expectation : check["expectations"]) {
      rows.push_back(
          {first ? markup(name_of(check)) +
                       (check.contains("tokens_alone")
                            ? element("p", of_class("soft"), markup(count_of(check["tokens_alone"]) + " tokens alone"))
                            : "")
                 : "",
           code(text_of(expectation["text"])), expectation.contains("prompts") ? count_of(expectation["prompts"]) : "–",
           expectation.contains("advice") ? markup(text_of(expectation["advice"])) : "–"});
      first = false;
    }
  }
  for (const auto& pair : explanation["sharing"]) {
    pairs.push_back(
        {markup(text_of(pair["checks"][0])), markup(text_of(pair["checks"][1])), count_of(pair["tokens_saved"])});
  }
  return table("How many prompts each threshold needs",
               {{"check", "text"}, {"expectation", "text"}, {"prompts", "number"}, {"what they can tell", "text"}},
               rows) +
         table("Checks that ask the model for the same: computed once",
               {{"check", "text"}, {"and", "text"}, {"tokens saved", "number"}}, pairs);
}

std::string features_table(const ordered_json& explanation) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& feature : explanation["features"]) {
    std::string scores;
    if (feature.contains("candidates")) {
      scores = text_of(feature["selected_by"]);
      for (const auto& candidate : feature["candidates"]) {
        scores += "; " + text_of(candidate["site"]) + " " +
                  (candidate.contains("auroc") ? number_text(candidate["auroc"].get<double>()) : "left out");
      }
    }
    rows.push_back({markup(text_of(feature["feature"])), code(text_of(feature["site"])), markup(scores)});
  }
  std::vector<std::vector<std::string>> read;
  for (const auto& each : explanation["building"]) {
    read.push_back({markup(text_of(each["for"])), count_of(each["sequences"]), count_of(each["tokens"]),
                    runtime::flops_text(each["flops"]),
                    each["stops_after"].is_null() ? "the logits" : code(text_of(each["stops_after"]))});
  }
  return table("Features to be built", {{"feature", "text"}, {"site"}, {"chosen by", "text"}}, rows) +
         table("What is read to build them, and for quantiles",
               {{"prompts", "text"}, {"sequences", "number"}, {"tokens", "number"}, {"cost", "number"}, {"up to"}},
               read);
}

std::string passes_table(const ordered_json& explanation) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& pass : explanation["passes"]) {
    rows.push_back({code(text_of(pass["pass"])), pass["on"].get<bool>() ? "on" : "off", markup(text_of(pass["does"]))});
  }
  return table("How the plan was made cheaper", {{"pass"}, {"on"}, {"does", "text"}}, rows);
}

std::string head(const ordered_json& explanation) {
  const auto& totals = explanation["totals"];
  std::string counts;
  const auto count = [&](const char* what, const std::string& value) {
    counts += element("li", "", element("strong", "", markup(value)) + " " + markup(what));
  };
  count("tokens", count_of(totals["tokens"]));
  count("forward passes", count_of(totals["passes"]));
  count("tokens saved", count_of(totals["tokens_saved"]));
  count("in these passes", runtime::flops_text(totals["flops"]));
  if (totals["flops_building"] > 0) count("to build features", runtime::flops_text(totals["flops_building"]));
  if (totals["flops_generating"] > 0)
    count("at most to generate texts", runtime::flops_text(totals["flops_generating"]));
  count("a token", runtime::flops_text(totals["flops_per_token"]));
  return element("header", of_class("verdict plan"),
                 element("p", of_class("soft"), "Proviso explains") +
                     element("h1", "", markup("The plan for " + text_of(explanation["model"]))) +
                     element("ul", of_class("counts"), counts)) +
         "\n";
}

}  // namespace

ordered_json explain(const runtime::Plan& plan, const runtime::BoundRules& bound, const AuditOptions& options,
                     const runtime::FirstPositionChanges& changes) {
  ordered_json explanation = {{"model", bound.card->name}};
  explanation.update(runtime::explain(plan, bound, changes));
  explain_checks(explanation, bound, options);
  return explanation;
}

std::string explanation_text(const ordered_json& explanation) {
  std::string text;
  if (!explanation["checks"].empty()) text += "Checks\n";
  for (const auto& check : explanation["checks"]) {
    text += "  " + name_of(check);
    if (check.contains("tokens_alone")) text += ": " + count_of(check["tokens_alone"]) + " tokens alone";
    text += "\n";
    for (const auto& expectation : check["expectations"]) {
      text += "      " + text_of(expectation["text"]) + "\n";
      if (expectation.contains("advice")) text += "          " + text_of(expectation["advice"]) + "\n";
    }
  }
  for (const auto& pair : explanation["sharing"]) {
    text += "  " + text_of(pair["checks"][0]) + " and " + text_of(pair["checks"][1]) +
            " ask for the same: " + count_of(pair["tokens_saved"]) + " tokens saved\n";
  }
  return runtime::explanation_text(explanation, text);
}

std::string explanation_html(const ordered_json& explanation) {
  const std::vector<std::vector<std::string>> sections = {
      {"sentences", "Sentences", sentences(explanation)},    {"edits", "Edits", edits_table(explanation)},
      {"circuits", "Circuits", circuits_table(explanation)}, {"checks", "Checks", checks_part(explanation)},
      {"states", "Model states", states_table(explanation)}, {"features", "Features", features_table(explanation)},
      {"passes", "Plan passes", passes_table(explanation)}};
  std::string links, main;
  for (const auto& each : sections) {
    if (!each[2].empty()) links += element("li", "", element("a", attribute("href", "#" + each[0]), each[1]));
    main += section(each[0], each[1], each[2]);
  }
  return page("The plan for " + text_of(explanation["model"]),
              element("a", of_class("skip") + attribute("href", "#main"), "Skip to the plan") + "\n" +
                  head(explanation) + element("nav", attribute("aria-label", "Sections"), element("ul", "", links)) +
                  "\n" + element("main", attribute("id", "main"), "\n" + main));
}

}  // namespace proviso::audit
