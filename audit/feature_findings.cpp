#include "audit/feature_findings.hpp"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "audit/report_words.hpp"
#include "audit/text_page.hpp"

namespace proviso::audit {

namespace {

using nlohmann::ordered_json;

std::string text_of(const ordered_json& value) { return value.get<std::string>(); }

/// Three digits: tables have many such numbers.
std::string brief(const ordered_json& value) {
  if (!value.is_number()) return "–";
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value.get<double>());
  return text;
}

std::string estimate_text(const ordered_json& estimate) {
  const auto& interval = estimate["interval"];
  if (!interval.is_array()) return brief(estimate["value"]);
  return brief(estimate["value"]) + " [" + brief(interval[0]) + ", " + brief(interval[1]) + "]";
}

std::string sides(const ordered_json& found, const char* part) {
  return grouped(found["positive"][part].get<std::int64_t>()) + " and " +
         grouped(found["negative"][part].get<std::int64_t>());
}

std::string context_line(const ordered_json& context) {
  std::string line;
  const auto peak = context["peak"].get<std::size_t>();
  for (std::size_t i = 0; i < context["tokens"].size(); ++i) {
    const std::string token = on_one_line(text_of(context["tokens"][i]));
    line += i == peak ? "«" + token + "»" : token;
  }
  return line;
}

std::string token_list(const ordered_json& tokens) {
  std::vector<std::string> texts;
  for (const auto& token : tokens) texts.push_back("\"" + on_one_line(text_of(token["text"])) + "\"");
  return joined(texts, " ");
}

std::string neighbour_list(const ordered_json& neighbours) {
  std::vector<std::string> texts;
  for (const auto& each : neighbours)
    texts.push_back(std::to_string(each["latent"].get<std::int64_t>()) + " (" +
                    number_text(each["cosine"].get<double>()) + ")");
  return joined(texts);
}

}  // namespace

SearchWords search_words(const ordered_json& found) {
  SearchWords words;
  words.heading = "Features of " + text_of(found["model"]) + " that tell " + text_of(found["positive"]["file"]) +
                  " from " + text_of(found["negative"]["file"]);
  words.prompts = "of the prompts " + sides(found, "build") + " build features, " + sides(found, "choose") +
                  " choose among them, and " + sides(found, "judge") + " judge: all numbers below are of these last";
  std::vector<std::string> searched;
  for (const auto& [kind, count] : found["searched"].items()) {
    if (count.get<std::int64_t>() > 0) searched.push_back(counted(count.get<std::int64_t>(), kind));
  }
  words.searched = joined(searched) +
                   "; of each kind the best are shown, by AUROC on the choosing prompts (neurons and "
                   "latents first on the building ones), ties by standardised distance";
  const auto shown = static_cast<std::int64_t>(found["features"].size());
  words.auroc = "0.5 is chance; DeLong intervals at " + number_text(found["confidence"]["each"].get<double>(), true) +
                " each, so that those of all " + grouped(shown) + " features hold together at " +
                number_text(found["confidence"]["together"].get<double>(), true);
  words.effect = text_of(found["measure"]) +
                 " with the feature suppressed at its site less without; control: the same change of each vector's "
                 "length in random directions, mean ± spread; p of a t-test against them, Holm-corrected";
  words.reading = found["token"] == "all" ? "the mean over each prompt's positions, attention sinks left out"
                                          : "the last token of each prompt";
  return words;
}

std::string area_text(const ordered_json& auroc) { return estimate_text(auroc); }

std::string change_text(const ordered_json& effect) {
  const bool nothing = effect.contains("why") && !text_of(effect["why"]).starts_with("no interval");
  return nothing ? text_of(effect["why"]) : estimate_text(effect);
}

std::string control_text(const ordered_json& effect) {
  if (!effect.contains("control")) return "";
  const auto& control = effect["control"];
  return brief(control["value"]) + " ± " + brief(control["spread"]) + ", p " + brief(control["p_holm"]);
}

std::string stability_text(const ordered_json& feature) {
  const auto& measures = feature["measures"];
  return measures.contains("halves_cosine")
             ? "cosine " + brief(measures["halves_cosine"]) + " between directions from halves of the building prompts"
             : "";
}

std::string features_text(const ordered_json& found, std::size_t columns, bool colour) {
  TextPage page(columns, colour);
  const SearchWords words = search_words(found);
  page.line(0, {{words.heading, Style::strong}});
  page.labelled(0, "prompts", {words.prompts});
  page.labelled(0, "searched", {words.searched});
  page.labelled(0, "read at", {words.reading});
  page.labelled(0, "AUROC", {words.auroc});
  page.labelled(0, "effect", {words.effect});
  for (const auto& each : found["left_out"])
    page.labelled(0, "left out", {text_of(each["what"]) + ": " + text_of(each["why"]), Style::dim});

  std::vector<std::vector<Cell>> rows;
  for (const auto& feature : found["features"]) {
    rows.push_back({{text_of(feature["name"])},
                    {area_text(feature["auroc"])},
                    {change_text(feature["effect"])},
                    {control_text(feature["effect"]), Style::dim}});
  }
  page.heading("Features");
  page.table(2, {{"feature"}, {"AUROC"}, {"effect", false, true}, {"control", false, true}}, std::move(rows));
  for (const auto& feature : found["features"]) {
    page.line(2, {{text_of(feature["name"]), Style::strong}});
    for (const auto& context : feature["contexts"]) {
      page.line(4, {{text_of(context["side"]), Style::dim},
                    {number_text(context["activation"].get<double>())},
                    {context_line(context)}});
    }
    if (const auto stable = stability_text(feature); !stable.empty()) page.labelled(4, "stability", {stable});
    if (!feature["raises"].empty()) page.labelled(4, "raises", {token_list(feature["raises"])});
    if (!feature["lowers"].empty()) page.labelled(4, "lowers", {token_list(feature["lowers"])});
    if (!feature["neighbours"].empty()) page.labelled(4, "near", {neighbour_list(feature["neighbours"])});
  }
  page.heading("Declarations, to be built from all prompts");
  // As they are, so that they can be copied.
  return page.take() + found["declarations"].get<std::string>();
}

}  // namespace proviso::audit
