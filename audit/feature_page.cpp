// What a search for features found, as one HTML page.

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "audit/feature_findings.hpp"
#include "audit/html_page.hpp"
#include "audit/markup.hpp"
#include "audit/report.hpp"
#include "audit/report_plot.hpp"
#include "audit/report_words.hpp"
#include "audit/text_page.hpp"

namespace proviso::audit {

namespace {

using nlohmann::ordered_json;

constexpr int kShades = 6;

std::string text_of(const ordered_json& value) { return value.get<std::string>(); }

ExpectationResult as_result(const ordered_json& estimate, const std::string& text) {
  ExpectationResult result;
  result.text = text;
  result.estimate.value = estimate["value"].is_number() ? estimate["value"].get<double>() : std::nan("");
  result.estimate.n = estimate["n"].get<std::int64_t>();
  if (const auto& interval = estimate["interval"]; interval.is_array())
    result.estimate.interval = Interval{interval[0].get<double>(), interval[1].get<double>()};
  if (estimate.contains("control")) {
    const auto& control = estimate["control"];
    result.control = Control{};
    result.control->kind = text_of(control["kind"]);
    result.control->n = control["n"].get<std::int64_t>();
    result.control->value = control["value"].get<double>();
    result.control->spread = control["spread"].get<double>();
    result.control->rank = control["rank"].get<std::int64_t>();
    result.control->p = control["p"].get<double>();
    result.control->p_holm = control["p_holm"].get<double>();
  }
  return result;
}

ExpectationResult area(const ordered_json& feature) { return as_result(feature["auroc"], "auroc >= 0.5"); }

std::string anchor(const ordered_json& feature) { return "feature-" + text_of(feature["name"]); }

// ---- one feature ---------------------------------------------------------------------------------------

/// A token on a ground that is the darker the more active the feature is there.
std::string token(const std::string& text, const ordered_json& activation, double most, bool peak) {
  const double value = activation.is_number() ? activation.get<double>() : 0;
  const int shade = most > 0 ? static_cast<int>(std::clamp(value / most, 0.0, 1.0) * kShades) : 0;
  std::string kind = shade > 0 ? "shade-" + std::to_string(shade) : "";
  if (peak) kind += " peak";
  const std::string shown = markup(on_one_line(text));
  if (kind.empty()) return shown;
  return element("span", of_class(kind) + attribute("title", number_text(value)), shown);
}

std::string contexts(const ordered_json& feature) {
  double most = 0;
  for (const auto& context : feature["contexts"]) most = std::max(most, context["activation"].get<double>());
  std::vector<std::vector<std::string>> rows;
  for (const auto& context : feature["contexts"]) {
    std::string text;
    for (std::size_t i = 0; i < context["tokens"].size(); ++i) {
      text += token(text_of(context["tokens"][i]), context["activations"][i], most,
                    i == context["peak"].get<std::size_t>());
    }
    rows.push_back({number_text(context["activation"].get<double>()), markup(text_of(context["side"])),
                    element("span", of_class("context"), text)});
  }
  return table("Where it is most active, the strongest token framed",
               {{"activation", "number"}, {"side"}, {"text", "text"}}, rows);
}

std::string token_weights(const ordered_json& tokens) {
  std::string text;
  for (const auto& each : tokens) {
    text += (text.empty() ? "" : " ") +
            element("span", of_class("token") + attribute("title", number_text(each["weight"].get<double>())),
                    markup(on_one_line(text_of(each["text"]))));
  }
  return text;
}

std::string bars(const ordered_json& counts, double most, double top, double height, bool up, const char* kind) {
  constexpr double kWidth = 320;
  const double step = kWidth / static_cast<double>(counts.size());
  std::string svg;
  char place[160];
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double tall = most > 0 ? counts[i].get<double>() / most * height : 0;
    if (tall == 0) continue;
    std::snprintf(place, sizeof place, " x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"",
                  static_cast<double>(i) * step + 1, up ? top + height - tall : top, step - 2, tall);
    svg += element("rect", of_class(kind) + place, "");
  }
  return svg;
}

/// Positive prompts above the line, negative ones below.
std::string histogram(const ordered_json& of) {
  if (of.is_null()) return "";
  std::int64_t most = 0;
  for (const char* side : {"positive", "negative"})
    for (const auto& count : of[side]) most = std::max(most, count.get<std::int64_t>());
  const auto label = [](const char* x, const char* y, const char* end, const std::string& text) {
    return element("text", attribute("x", x) + attribute("y", y) + attribute("text-anchor", end), markup(text));
  };
  const std::string low = number_text(of["edges"].front().get<double>()),
                    high = number_text(of["edges"].back().get<double>());
  const auto scale = static_cast<double>(most);
  const std::string svg = bars(of["positive"], scale, 4, 44, true, "value") +
                          bars(of["negative"], scale, 50, 44, false, "open") +
                          element("line", of_class("axis") + " x1=\"0\" y1=\"49\" x2=\"320\" y2=\"49\"", "") +
                          label("0", "110", "start", low) + label("320", "110", "end", high) +
                          label("160", "110", "middle", "filled: positive, open: negative");
  return element("svg",
                 attribute("viewBox", "0 0 320 114") + of_class("plot") + attribute("role", "img") +
                     attribute("aria-label", "prompts by activation, from " + low + " to " + high),
                 svg);
}

std::string neighbours(const ordered_json& feature) {
  std::vector<std::string> texts;
  for (const auto& each : feature["neighbours"])
    texts.push_back("latent " + std::to_string(each["latent"].get<std::int64_t>()) + " (cosine " +
                    number_text(each["cosine"].get<double>()) + ")");
  return markup(joined(texts));
}

std::string feature_part(const ordered_json& feature, const std::string& measure, bool open) {
  const auto& effect = feature["effect"];
  const auto& by = feature["chosen_by"];
  std::string known = fact("AUROC", markup(area_text(feature["auroc"])));
  known += fact("effect", markup(change_text(effect)));
  known += fact("control", markup(control_text(effect)));
  known += fact("chosen by", markup("AUROC " + number_text(by["auroc"].get<double>()) + ", distance " +
                                    number_text(by["distance"].get<double>()) + " on the choosing prompts"));
  known += fact("stability", markup(stability_text(feature)));
  known += fact("raises", token_weights(feature["raises"])) + fact("lowers", token_weights(feature["lowers"]));
  known += fact("nearest", neighbours(feature));
  const std::string plots =
      element("h4", "", "Prompts by activation") + histogram(feature["histogram"]) +
      (effect.contains("control") ? element("h4", "", markup("Effect on " + measure)) +
                                        plot(as_result(effect, "effect(suppress, on: " + measure + ")"))
                                  : "");
  const std::string summary = element("h3", "", markup(text_of(feature["name"]))) +
                              element("span", of_class("soft"), text_of(feature["kind"])) +
                              element("span", of_class("measured"), markup("AUROC " + area_text(feature["auroc"]))) +
                              small_plot(area(feature));
  return element("details", of_class("finding plan") + attribute("id", anchor(feature)) + (open ? " open" : ""),
                 element("summary", "", summary) + "\n" + element("p", "", code(text_of(feature["declaration"]))) +
                     element("div", of_class("expectation"),
                             element("div", of_class("side"), facts(known) + element("div", "", plots))) +
                     contexts(feature)) +
         "\n";
}

// ---- the page ------------------------------------------------------------------------------------------

std::string overview(const ordered_json& found) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& feature : found["features"]) {
    rows.push_back({element("a", attribute("href", "#" + anchor(feature)), markup(text_of(feature["name"]))),
                    code(text_of(feature["site"])), markup(area_text(feature["auroc"])) + small_plot(area(feature)),
                    markup(change_text(feature["effect"])), markup(control_text(feature["effect"]))});
  }
  return table("The best of each kind, on prompts that neither built nor chose them",
               {{"feature", "text"}, {"site"}, {"AUROC", "number"}, {"effect", "text"}, {"control", "text"}}, rows);
}

std::string method(const ordered_json& found) {
  const SearchWords words = search_words(found);
  std::vector<std::vector<std::string>> rows;
  for (const auto& each : found["left_out"])
    rows.push_back({code(text_of(each["what"])), markup(text_of(each["why"]))});
  return facts(fact("prompts", markup(words.prompts)) + fact("searched", markup(words.searched)) +
               fact("read at", markup(words.reading)) + fact("AUROC", markup(words.auroc)) +
               fact("effect", markup(words.effect)) +
               fact("seed", markup(std::to_string(found["seed"].get<std::uint64_t>())))) +
         table("Left out", {{"what", "text"}, {"because", "text"}}, rows);
}

std::string head(const ordered_json& found) {
  std::string counts;
  for (const auto& [kind, count] : found["searched"].items()) {
    if (count.get<std::int64_t>() == 0) continue;
    counts += element("li", "",
                      element("strong", "", grouped(count.get<std::int64_t>())) + " " +
                          markup(kind + (count.get<std::int64_t>() == 1 ? "" : "s")));
  }
  return element("header", of_class("verdict plan"),
                 element("p", of_class("soft"), "Proviso finds features") +
                     element("h1", "", markup(text_of(found["model"]))) +
                     element("p", "",
                             markup("higher on ") + code(text_of(found["positive"]["file"])) + markup(" than on ") +
                                 code(text_of(found["negative"]["file"]))) +
                     element("ul", of_class("counts"), counts)) +
         "\n";
}

}  // namespace

std::string features_html(const ordered_json& found) {
  std::string parts, kind;
  for (const auto& feature : found["features"]) {
    const bool first_of_kind = text_of(feature["kind"]) != kind;
    kind = text_of(feature["kind"]);
    parts += feature_part(feature, text_of(found["measure"]), first_of_kind);
  }
  const std::vector<std::vector<std::string>> sections = {
      {"overview", "Overview", overview(found)},
      {"features", "Features", parts},
      {"method", "How this was measured", method(found)},
      {"declarations", "Declarations",
       paragraph("To be built from all prompts; those above were built from the building ones alone.") +
           element("pre", attribute("tabindex", "0"), markup_lines(text_of(found["declarations"])))}};
  std::string links, main;
  for (const auto& each : sections) {
    if (!each[2].empty()) links += element("li", "", element("a", attribute("href", "#" + each[0]), each[1]));
    main += section(each[0], each[1], each[2]);
  }
  return page(search_words(found).heading,
              element("a", of_class("skip") + attribute("href", "#main"), "Skip to the features") + "\n" + head(found) +
                  element("nav", attribute("aria-label", "Sections"), element("ul", "", links)) + "\n" +
                  element("main", attribute("id", "main"), "\n" + main));
}

}  // namespace proviso::audit
