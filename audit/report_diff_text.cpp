// A comparison of reports, for people and for programs.

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "audit/report_diff.hpp"
#include "audit/report_words.hpp"
#include "audit/text_page.hpp"

namespace proviso::audit {
namespace {

std::string_view trend_name(Trend trend) {
  constexpr std::array<std::string_view, 4> kNames = {"same", "moved", "better", "worse"};
  return kNames.at(static_cast<std::size_t>(trend));
}

std::string_view basis_name(Basis basis) {
  constexpr std::array<std::string_view, 3> kNames = {"none", "paired", "intervals"};
  return kNames.at(static_cast<std::size_t>(basis));
}

std::string status_text(const std::optional<Status>& status) {
  return status ? std::string(status_name(*status)) : "absent";
}

Style style_of(Trend trend) {
  switch (trend) {
    case Trend::worse:
      return Style::bad;
    case Trend::better:
      return Style::good;
    case Trend::moved:
    case Trend::same:
      return Style::plain;
  }
  return Style::plain;
}

/// A hash by its first digits, which tell two apart.
std::string without_most_digits(const std::string& text) {
  constexpr std::size_t kHashDigits = 64, kShown = 12;
  const bool hash = text.size() == kHashDigits && text.find_first_not_of("0123456789abcdef") == std::string::npos;
  return hash ? text.substr(0, kShown) + "…" : text;
}

std::string noise_text(const ExpectationChange& change, const Written& written) {
  if (!change.difference) return change.why_not.empty() ? "" : "noise cannot be told: " + change.why_not;
  const Interval& interval = *change.difference;
  return std::string(change.beyond_noise ? "beyond noise" : "within noise") + ": changed by [" +
         number_text(interval.low, written.percent) + ", " + number_text(interval.high, written.percent) + "] at " +
         number_text(change.new_estimate.confidence, true) + ", " +
         (change.basis == Basis::paired ? "prompt by prompt" : "from both intervals");
}

void add_expectation(TextPage& page, const ExpectationChange& change) {
  const Written written = read_expectation(change.text), old = read_expectation(change.text_before);
  page.line(4, {{change.text}});
  if (!change.text_before.empty()) page.labelled(6, "asked", {old.comparison + " -> " + written.comparison});
  if (change.before != change.after)
    page.labelled(6, "status", {status_text(change.before) + " -> " + status_text(change.after)});
  page.labelled(6, "measured",
                {measured_text(change.old_estimate, written) + " -> " + measured_text(change.new_estimate, written)});
  if (const std::string noise = noise_text(change, written); !noise.empty()) page.labelled(6, "noise", {noise});
}

void add_change(TextPage& page, const JudgementChange& change) {
  page.line(2, {{change.name, Style::strong},
                {std::string(kind_name(change.kind)) + ","},
                {status_text(change.before) + " -> " + status_text(change.after), style_of(change.trend)},
                {change.where, Style::dim},
                {change.experimental ? "experimental: does not count" : "", Style::set_aside}});
  for (const ExpectationChange& expectation : change.expectations) add_expectation(page, expectation);
}

Tree estimate_tree(const Estimate& estimate) {
  Tree tree = {{"value", number_tree(estimate.value)}, {"interval", nullptr}, {"n", estimate.n}};
  if (estimate.interval)
    tree["interval"] = Tree::array({number_tree(estimate.interval->low), number_tree(estimate.interval->high)});
  return tree;
}

Tree side_tree(const ReportDiff::Side& side) {
  return {{"file", side.path}, {"model", side.model}, {"date", side.date}, {"verdict", status_name(side.verdict)}};
}

Tree expectation_tree(const ExpectationChange& change) {
  Tree tree = {{"text", change.text}};
  if (!change.text_before.empty()) tree["text_before"] = change.text_before;
  tree["trend"] = trend_name(change.trend);
  tree["status_before"] = status_name(change.before);
  tree["status_after"] = status_name(change.after);
  tree["before"] = estimate_tree(change.old_estimate);
  tree["after"] = estimate_tree(change.new_estimate);
  tree["difference"] = nullptr;
  if (const auto& difference = change.difference)
    tree["difference"] = Tree::array({number_tree(difference->low), number_tree(difference->high)});
  tree["beyond_noise"] = change.beyond_noise;
  tree["confidence"] = change.new_estimate.confidence;
  tree["basis"] = basis_name(change.basis);
  if (!change.why_not.empty()) tree["why_no_difference"] = change.why_not;
  return tree;
}

}  // namespace

std::string to_text(const ReportDiff& diff, std::size_t columns, bool colour) {
  TextPage page(columns, colour);
  const auto side = [](const ReportDiff::Side& of) {
    return joined({of.path, std::string(status_name(of.verdict)), of.model, of.date});
  };
  page.labelled(0, "old", {side(diff.before)});
  page.labelled(0, "new", {side(diff.after)});
  for (const InputChange& input : diff.inputs) {
    const auto shown = [](const std::string& text) { return text.empty() ? "absent" : without_most_digits(text); };
    page.labelled(0, &input == &diff.inputs.front() ? "inputs" : "",
                  {input.what + ": " + shown(input.before) + " -> " + shown(input.after)});
  }
  page.labelled(0, "changes",
                {grouped(diff.count(Trend::worse)) + " worse, " + grouped(diff.count(Trend::better)) + " better, " +
                 grouped(diff.count(Trend::moved)) + " other"});

  constexpr std::array<std::pair<Trend, std::string_view>, 3> kSections = {
      {{Trend::worse, "Got worse"}, {Trend::better, "Got better"}, {Trend::moved, "Changed otherwise"}}};
  for (const auto& [trend, title] : kSections) {
    bool first = true;
    for (const JudgementChange& change : diff.changes) {
      if (change.trend != trend) continue;
      if (std::exchange(first, false)) page.heading(title);
      add_change(page, change);
    }
  }
  return page.take();
}

Tree tree_of(const ReportDiff& diff) {
  Tree inputs = Tree::array(), changes = Tree::array();
  for (const InputChange& input : diff.inputs) {
    const auto shown = [](const std::string& text) { return text.empty() ? Tree(nullptr) : Tree(text); };
    inputs.push_back({{"what", input.what}, {"before", shown(input.before)}, {"after", shown(input.after)}});
  }
  for (const JudgementChange& change : diff.changes) {
    const auto status = [](const std::optional<Status>& of) { return of ? Tree(status_name(*of)) : Tree(nullptr); };
    Tree expectations = Tree::array();
    for (const ExpectationChange& expectation : change.expectations)
      expectations.push_back(expectation_tree(expectation));
    changes.push_back({{"kind", kind_name(change.kind)},
                       {"name", change.name},
                       {"where", change.where},
                       {"trend", trend_name(change.trend)},
                       {"experimental", change.experimental},
                       {"before", status(change.before)},
                       {"after", status(change.after)},
                       {"expectations", std::move(expectations)}});
  }
  return {{"old", side_tree(diff.before)},     {"new", side_tree(diff.after)},
          {"worse", diff.count(Trend::worse)}, {"better", diff.count(Trend::better)},
          {"moved", diff.count(Trend::moved)}, {"inputs", std::move(inputs)},
          {"changes", std::move(changes)}};
}

}  // namespace proviso::audit
