#include "audit/report_plot.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include "audit/markup.hpp"
#include "audit/report_words.hpp"
#include "audit/text_page.hpp"

namespace proviso::audit {
namespace {

enum class Mark { value, baseline, control, combination, prompts };

struct Row {
  std::string label;
  Mark mark = Mark::value;
  double value = 0;
  std::optional<Interval> interval;
  std::vector<double> values = {};  ///< single controls, or the deciles of prompts
};

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", x);
  return text;
}

std::string at(std::string_view name, double x) { return attribute(name, number(x)); }

/// From the numbers of an expectation to the width of a drawing.
class Scale {
 public:
  Scale(const std::vector<Row>& rows, const Written& written, double left, double right) : left_(left), right_(right) {
    std::vector<double> values;
    const auto take = [&values](double value) {
      if (std::isfinite(value)) values.push_back(value);
    };
    if (written.op) take(written.bound);
    for (const Row& row : rows) {
      take(row.value);
      if (row.mark == Mark::control) std::for_each(row.values.begin(), row.values.end(), take);
      if (row.mark != Mark::control || !row.interval) continue;
      take(row.interval->low);
      take(row.interval->high);
    }
    if (values.empty()) values.push_back(0);
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    low_ = *least;
    high_ = *most;
    double span = high_ - low_;
    if (span <= 0) span = std::max(std::abs(low_) / 5, 1e-3);
    // An interval that reaches far beyond all else is cut, and an arrow says so.
    constexpr double kFarthest = 6;
    const double lowest = low_ - kFarthest * span, highest = high_ + kFarthest * span;
    for (const Row& row : rows) {
      if (!row.interval) continue;
      low_ = std::min(low_, std::clamp(row.interval->low, lowest, highest));
      high_ = std::max(high_, std::clamp(row.interval->high, lowest, highest));
    }
    const double margin = 0.06 * std::max(high_ - low_, span);
    low_ -= margin;
    high_ += margin;
  }

  double x(double value) const {
    return left_ + (std::clamp(value, low_, high_) - low_) / (high_ - low_) * (right_ - left_);
  }
  bool cuts(double value) const { return value < low_ || value > high_; }
  double left() const { return left_; }
  double right() const { return right_; }

  /// Three to six round numbers.
  std::vector<double> ticks() const {
    const double rough = (high_ - low_) / 4, unit = std::pow(10, std::floor(std::log10(rough)));
    const double step = unit * (rough / unit < 1.5 ? 1 : rough / unit < 3.5 ? 2 : rough / unit < 7.5 ? 5 : 10);
    std::vector<double> ticks;
    for (double k = std::ceil(low_ / step); k * step <= high_; ++k) ticks.push_back(k == 0 ? 0 : k * step);
    return ticks;
  }

 private:
  double left_, right_, low_ = 0, high_ = 1;
};

std::string line(double x1, double y1, double x2, double y2, std::string_view kind) {
  return element("line", attribute("class", kind) + at("x1", x1) + at("y1", y1) + at("x2", x2) + at("y2", y2), "");
}

std::string label(double x, double y, const char* anchor, std::string_view text) {
  return element("text", at("x", x) + at("y", y) + attribute("text-anchor", anchor), markup(text));
}

/// An end of an interval: a bar, or an arrow where the interval goes on beyond the drawing.
std::string end_of(const Scale& scale, double value, double y, bool right) {
  const double x = scale.x(value), way = right ? -4 : 4;
  if (!scale.cuts(value)) return line(x, y - 4, x, y + 4, "reach");
  return line(x, y, x + way, y - 4, "reach") + line(x, y, x + way, y + 4, "reach");
}

std::string drawn(const Row& row, const Scale& scale, double y) {
  std::string svg;
  if (row.mark == Mark::control) {
    for (const double value : row.values) {
      if (std::isfinite(value)) svg += line(scale.x(value), y - 7, scale.x(value), y + 7, "one");
    }
  }
  if (row.mark == Mark::prompts) {  // a band for four fifths of the prompts, and one for two fifths
    for (const int tenth : {1, 3}) {
      const double from = scale.x(row.values[static_cast<std::size_t>(tenth)]);
      const double to = scale.x(row.values[static_cast<std::size_t>(10 - tenth)]);
      svg += element(
          "rect",
          attribute("class", "one") + at("x", from) + at("y", y - 5) + at("width", to - from) + at("height", 10), "");
    }
  }
  if (const auto& interval = row.interval; interval && !std::isnan(interval->low) && !std::isnan(interval->high)) {
    svg += line(scale.x(interval->low), y, scale.x(interval->high), y, "reach") +
           end_of(scale, interval->low, y, false) + end_of(scale, interval->high, y, true);
  }
  if (!std::isfinite(row.value)) return svg;
  const double x = scale.x(row.value);
  switch (row.mark) {
    case Mark::value:
      return svg + element("circle", attribute("class", "value") + at("cx", x) + at("cy", y) + at("r", 4.5), "");
    case Mark::baseline:
      return svg + element("circle", attribute("class", "open") + at("cx", x) + at("cy", y) + at("r", 4), "");
    case Mark::control:
      return svg + element("rect",
                           attribute("class", "open") + at("x", x - 3.5) + at("y", y - 3.5) + at("width", 7) +
                               at("height", 7),
                           "");
    case Mark::combination:
      return svg + element("circle", attribute("class", "value") + at("cx", x) + at("cy", y) + at("r", 3), "");
    case Mark::prompts:
      return svg + line(x, y - 5, x, y + 5, "bound");
  }
  return svg;
}

/// The numbers that meet the bound, and the bound itself.
std::string bound(const Written& written, const Scale& scale, double top, double bottom) {
  if (!written.op) return "";
  const double x = scale.x(written.bound);
  const bool below = *written.op == dsl::Compare::less || *written.op == dsl::Compare::less_equal;
  const bool above = *written.op == dsl::Compare::greater || *written.op == dsl::Compare::greater_equal;
  std::string svg;
  if (below || above) {
    const double from = below ? scale.left() : x, to = below ? x : scale.right();
    svg += element("rect",
                   attribute("class", "meets") + at("x", from) + at("y", top) + at("width", to - from) +
                       at("height", bottom - top),
                   "");
  }
  return svg + line(x, top, x, bottom, "bound");
}

/// How prompts' numbers lie, in the unit of the metric: the least, nine deciles and the greatest. Nothing of fewer than
/// 8, nor of what is yes or no.
std::vector<double> deciles_of(const ExpectationResult& result, std::vector<double> values) {
  const PromptNumbers& sample = *result.sample;
  if (values.size() < 8 || sample.kind == "share") return {};
  const auto yes_or_no = [](double value) { return value == -1 || value == 0 || value == 1; };
  if (std::all_of(values.begin(), values.end(), yes_or_no)) return {};
  if (sample.kind == "nll") {
    const bool rise = result.text.starts_with("perplexity_rise");
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double mean = values[i] / (i < sample.weights.size() ? sample.weights[i] : 1);
      values[i] = rise ? std::expm1(mean) : std::exp(mean);
    }
  }
  if (!std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); })) return {};
  std::sort(values.begin(), values.end());
  std::vector<double> deciles;
  for (int tenth = 0; tenth <= 10; ++tenth) {
    const double place = tenth / 10.0 * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    deciles.push_back(std::lerp(values[below], values[above], place - static_cast<double>(below)));
  }
  return deciles;
}

std::vector<Row> rows_of(const ExpectationResult& result) {
  std::vector<Row> rows = {{"measured", Mark::value, result.estimate.value, result.estimate.interval}};
  if (result.baseline) rows.push_back({"without it", Mark::baseline, *result.baseline, std::nullopt});
  if (const auto& control = result.control)
    rows.push_back({"control ± sd", Mark::control, control->value,
                    Interval{control->value - control->spread, control->value + control->spread}, control->values});
  if (const auto& control = result.control) {
    if (control->wrong_sign) rows.push_back({"wrong sign", Mark::baseline, *control->wrong_sign, std::nullopt});
    if (const auto& places = control->positions)
      rows.push_back({"elsewhere", Mark::control, places->value,
                      Interval{places->value - places->spread, places->value + places->spread}});
  }
  const auto prompts = [&](const char* label, const std::vector<double>& values) {
    const std::vector<double> deciles = deciles_of(result, values);
    if (!deciles.empty())
      rows.push_back({label, Mark::prompts, deciles[5], Interval{deciles.front(), deciles.back()}, deciles});
  };
  if (result.sample) {
    prompts("prompts", result.sample->values);
    prompts("… without", result.sample->before);
  }
  if (result.across)
    for (const auto& [name, value] : result.across->values)
      rows.push_back({name, Mark::combination, value, std::nullopt});
  return rows;
}

bool nothing_to_draw(const std::vector<Row>& rows) {
  return std::none_of(rows.begin(), rows.end(), [](const Row& row) { return std::isfinite(row.value); });
}

std::string said(const ExpectationResult& result, const Written& written) {
  std::string text = "measured " + measured_text(result.estimate, written);
  if (written.op) text += ", asked " + asked_text(result, written);
  if (result.baseline) text += ", without it " + number_text(*result.baseline, written.percent);
  if (result.control) text += ", against " + control_text(*result.control, written);
  if (result.sample) {
    if (const auto deciles = deciles_of(result, result.sample->values); !deciles.empty())
      text += ", four fifths of the prompts from " + number_text(deciles[1], written.percent) + " to " +
              number_text(deciles[9], written.percent);
  }
  if (result.across) text += ", " + across_text(*result.across, written);
  return text;
}

std::string svg(double width, double height, const std::string& attributes, const std::string& content) {
  return element("svg", attribute("viewBox", "0 0 " + number(width) + " " + number(height)) + attributes, content);
}

}  // namespace

std::string plot(const ExpectationResult& result) {
  constexpr double kWidth = 320, kLabels = 84, kTop = 18, kRow = 20, kAxis = 22;
  constexpr std::size_t kLongestLabel = 12;
  const std::vector<Row> rows = rows_of(result);
  if (nothing_to_draw(rows)) return "";
  const Written written = read_expectation(result.text);
  const Scale scale(rows, written, kLabels, kWidth - 8);
  const double bottom = kTop + kRow * static_cast<double>(rows.size());
  const auto anchored = [&](double x, double y, std::string_view text) {
    constexpr double kNear = 16;
    const char* anchor = x < kLabels + kNear ? "start" : x > kWidth - 8 - kNear ? "end" : "middle";
    return label(x, y, anchor, text);
  };

  std::string content = bound(written, scale, kTop, bottom);
  if (written.op) content += anchored(scale.x(written.bound), kTop - 6, written.comparison);
  content += line(scale.left(), bottom, scale.right(), bottom, "axis");
  constexpr double kDigit = 6.5;  // about as wide as it is drawn
  double free = -kLabels;         // where the next number finds room
  for (const double tick : scale.ticks()) {
    const double x = scale.x(tick);
    content += line(x, bottom, x, bottom + 4, "axis");
    const std::string text = number_text(tick, written.percent);
    const double half = kDigit * static_cast<double>(text.size()) / 2;
    if (x - half < free) continue;
    content += anchored(x, bottom + 16, text);
    free = x + half;
  }
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double y = kTop + kRow * (static_cast<double>(i) + 0.5);
    content += label(0, y + 4, "start", shortened(harmless(rows[i].label), kLongestLabel)) + drawn(rows[i], scale, y);
  }
  return svg(kWidth, bottom + kAxis,
             attribute("class", "plot") + attribute("role", "img") + attribute("aria-label", said(result, written)),
             content);
}

std::string small_plot(const ExpectationResult& result) {
  constexpr double kWidth = 120, kHeight = 18;
  const std::vector<Row> rows = {rows_of(result).front()};
  if (nothing_to_draw(rows)) return "";
  const Written written = read_expectation(result.text);
  const Scale scale(rows, written, 4, kWidth - 4);
  return svg(kWidth, kHeight, attribute("class", "small plot") + attribute("aria-hidden", "true"),
             bound(written, scale, 0, kHeight) + drawn(rows.front(), scale, kHeight / 2));
}

}  // namespace proviso::audit
