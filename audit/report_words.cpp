#include "audit/report_words.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "audit/text_page.hpp"

namespace proviso::audit {
namespace {

std::string number_text(double value, int digits, bool percent) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  char text[48];
  std::snprintf(text, sizeof text, "%.*g", digits, percent ? value * 100 : value);
  return std::string(text) + (percent ? "%" : "");
}

}  // namespace

std::string grouped(std::int64_t count) {
  std::string text = std::to_string(count);
  for (std::size_t at = text.size(); at > 3 && text[at - 4] != '-';) text.insert(at -= 3, ",");
  return text;
}

std::string counted(std::int64_t count, const std::string& noun) {
  return grouped(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string joined(const std::vector<std::string>& parts, const std::string& separator) {
  std::string all;
  for (const std::string& part : parts) all += (all.empty() ? "" : separator) + part;
  return all;
}

std::string counts_text(const Counts& counts) {
  std::vector<std::string> parts;
  const auto add = [&parts](std::int64_t count, const char* what) {
    if (count > 0) parts.push_back(grouped(count) + " " + what);
  };
  add(counts.passed, "passed");
  add(counts.failed, "failed");
  add(counts.inconclusive, "inconclusive");
  add(counts.vacuous, "vacuous");
  add(counts.waived, "waived");
  add(counts.errors, counts.errors == 1 ? "error" : "errors");
  return joined(parts) + " of " + grouped(counts.total);
}

// ---- expectations ------------------------------------------------------------------------------------

Written read_expectation(const std::string& text) {
  // A metric may compare, too (`firing_rate(f > 1, on: p) <= 2%`): the last comparison with a number is the bound.
  using dsl::Compare;
  constexpr std::array<Compare, 6> kOperators = {Compare::less_equal, Compare::greater_equal, Compare::less,
                                                 Compare::greater,    Compare::equal,         Compare::not_equal};
  Written written{text, "", 0, false};
  std::size_t last = 0;
  for (const Compare op : kOperators) {
    const std::string sign = " " + std::string(dsl::compare_text(op)) + " ";
    const std::size_t at = text.rfind(sign);
    if (at == std::string::npos || at < last) continue;
    const char* begin = text.data() + at + sign.size();
    double bound = 0;
    const auto [stop, error] = std::from_chars(begin, text.data() + text.size(), bound);
    if (error != std::errc()) continue;
    last = at;
    const bool percent = stop != text.data() + text.size() && *stop == '%';
    written = {text.substr(0, at), std::string(text.data() + at + 1, stop) + (percent ? "%" : ""),
               percent ? bound / 100 : bound, percent, op};
  }
  return written;
}

bool prompts_in_percent(const Written& written, const std::string& text) {
  const auto has = [&text](std::string_view part) { return text.find(part) != std::string::npos; };
  return written.percent && !has("auroc(") && !has("perplexity_rise(") && !has("% relative");
}

std::string number_text(double value, bool percent) { return number_text(value, 4, percent); }

std::string number_text(double value, const Written& written) {
  const auto side = [&written](double x) { return (x > written.bound) - (x < written.bound); };
  for (int digits = 4; digits < 17; ++digits) {
    const std::string text = number_text(value, digits, written.percent);
    const double shown = std::strtod(text.c_str(), nullptr) / (written.percent ? 100 : 1);
    const bool same_side = side(shown) == side(value) || std::abs(shown - value) < 1e-15 * std::abs(value);
    if (std::isnan(value) || same_side) return text;
  }
  return number_text(value, 17, written.percent);
}

std::string interval_text(const Interval& interval, const Written& written) {
  return "[" + number_text(interval.low, written) + ", " + number_text(interval.high, written) + "]";
}

std::string measured_text(const Estimate& estimate, const Written& written) {
  const std::string value = number_text(estimate.value, written);
  return estimate.interval ? value + " " + interval_text(*estimate.interval, written) : value;
}

std::string asked_text(const ExpectationResult& result, const Written& written) {
  return written.comparison + (result.asked_confidence ? " at " + number_text(*result.asked_confidence, true) : "");
}

std::string measurement_text(const ExpectationResult& result, const Written& written) {
  const Estimate& estimate = result.estimate;
  std::string text = measured_text(estimate, written);
  if (estimate.interval) text += " at " + number_text(estimate.confidence, true) + " confidence";
  if (estimate.p) text += ", McNemar's p " + number_text(*estimate.p);
  text += ", " + counted(estimate.n, "prompt");
  if (result.baseline) text += "; " + number_text(*result.baseline, written.percent) + " without it";
  return text;
}

std::string control_text(const Control& control, const Written& written) {
  return grouped(control.n) + " " + control.kind + ": mean " + number_text(control.value, written.percent) +
         ", spread " + number_text(control.spread, written.percent) + "; rank " + grouped(control.rank) + " of " +
         grouped(control.n + 1) + ", p " + number_text(control.p) + ", corrected " + number_text(control.p_holm) +
         (control.wrong_sign ? "; wrong sign " + number_text(*control.wrong_sign, written.percent) : "") +
         (control.positions ? "; other positions mean " + number_text(control.positions->value, written.percent) +
                                  ", spread " + number_text(control.positions->spread, written.percent)
                            : "");
}

std::string attacked_text(const ExpectationResult& result) {
  std::vector<std::string> attacks;
  for (const auto& [attack, changed] : result.attacked)
    attacks.push_back(attack + " changed " + counted(changed, "prompt"));
  if (result.pairs_left_out.value_or(0) > 0)
    attacks.push_back(counted(*result.pairs_left_out, "pair") + " left out, of unequal length now or the same");
  return joined(attacks, "; ");
}

std::string searched_text(const SearchResult& search) {
  return search.attack + ": -ln p of " + (search.toward.empty() ? "expected continuations" : quoted(search.toward)) +
         " from " + number_text(search.nll_before) + " to " + number_text(search.nll_after) + " over " +
         counted(search.prompts, "prompt");
}

std::string moved_text(const ExpectationResult& result) {
  std::vector<std::string> moves;
  for (const FeatureMove& move : result.moved)
    moves.push_back(move.feature + " at " + move.site + " from " + number_text(move.before) + " to " +
                    number_text(move.after));
  return joined(moves, "; ");
}

std::string evaded_text(const ExpectationResult& result) {
  if (!result.evaded || result.evaded->prompts == 0) return "";
  return "on " + grouped(result.evaded->prompts) + " of " + counted(result.evaded->of, "prompt") +
         " the rules no longer fire, though the behaviour is there";
}

std::string across_text(const AcrossResult& across, const Written& written) {
  std::vector<std::string> combinations;
  for (std::size_t i = 0; i < across.values.size(); ++i) {
    const auto& [name, value] = across.values[i];
    const std::string status =
        i < across.statuses.size() ? " (" + std::string(status_name(across.statuses[i].second)) + ")" : "";
    combinations.push_back(name + " " + number_text(value, written) + status);
  }
  return "held in " + number_text(across.held, true) + " of " + counted(across.combinations, "combination") + ": " +
         joined(combinations, "; ");
}

std::string expectation_line(const ExpectationResult& expectation) {
  std::string line = expectation.text + ": " + measured_text(expectation.estimate, read_expectation(expectation.text)) +
                     ", " + counted(expectation.estimate.n, "prompt");
  if (!expectation.reason.empty()) line += "; " + expectation.reason;
  return harmless(line);
}

std::string listed(const std::vector<std::pair<std::string, double>>& values) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : values) parts.push_back(name + " " + number_text(value));
  return joined(parts, "; ");
}

// ---- evidence and what belongs to a whole --------------------------------------------------------------

std::string quoted(const std::string& text) {
  constexpr std::size_t kLongest = 200;
  std::string escaped;
  for (const char c : shortened(text, kLongest)) escaped += c == '"' ? "\\\"" : std::string(1, c);
  return "\"" + escaped + "\"";
}

std::string evidence_text(const Evidence& evidence, bool percent) {
  std::string text = evidence.before ? number_text(*evidence.before, percent) + " -> " : "";
  text += number_text(evidence.after, percent);
  if (!evidence.prompt.empty()) text += ": " + quoted(evidence.prompt);
  if (!evidence.output.empty()) text += " gave " + quoted(evidence.output);
  return text;
}

std::string remarks(const dsl::Annotations& annotations) {
  switch (annotations.status) {
    case dsl::Annotations::Status::stable:
      return "";
    case dsl::Annotations::Status::experimental:
      return "experimental: does not count";
    case dsl::Annotations::Status::deprecated:
      return "deprecated";
  }
  return "";
}

std::string waiver_text(const WaiverResult& waiver) {
  return "until " + date_text(waiver.until) + " by " + waiver.by + ": " + waiver.because;
}

std::string change_text(const TensorChange& change) {
  std::vector<std::string> shape;
  for (const std::int64_t size : change.shape) shape.push_back(std::to_string(size));
  return change.tensor + " [" + joined(shape) + "], rank " + grouped(change.rank) + ", norm " +
         number_text(change.norm) + ", " + number_text(change.relative_norm, true) + " of the tensor's";
}

std::string method_text(const EditResult& edit) {
  std::vector<std::string> parameters;
  for (const auto& [name, value] : edit.parameters) parameters.push_back(name + ": " + value);
  return edit.method + "(" + joined(parameters) + ")";
}

std::string planted_text(const PlantedFaults& planted) {
  if (planted.watching.empty()) return "nothing passes on the model as loaded, so nothing can catch a fault";
  const FaultTally& all = planted.all;
  std::string text = grouped(all.caught + all.doubted) + " of " + counted(all.planted, "planted fault") +
                     (all.caught + all.doubted == 1 ? " does" : " do") + " not get past it";
  if (all.planted > 0) text += " (" + tally_share_text(all) + ")";
  if (all.doubted > 0) text += ", " + grouped(all.doubted) + " of these only in doubt";
  const auto alarms = std::ssize(alarms_text(planted));
  const auto runs = std::ssize(planted.controls);
  if (runs == 0) return text;
  return text + "; " + (alarms == 0 ? "no false alarm" : "false alarms") + " in " +
         (alarms == 0 ? "" : grouped(alarms) + " of ") + counted(runs, "run") + " without a fault";
}

std::string tally_share_text(const FaultTally& tally) {
  if (tally.planted == 0) return "";
  Written share;
  share.percent = true;
  return measured_text(tally.share, share);
}

std::string fault_result_text(const FaultResult& fault) {
  std::string text = fault.by.empty() ? "" : "by " + joined(fault.by);
  if (!fault.reason.empty()) text += (text.empty() ? "" : "; ") + fault.reason;
  return text;
}

std::vector<std::string> alarms_text(const PlantedFaults& planted) {
  std::vector<std::string> texts;
  for (const MutationControl& control : planted.controls) {
    if (!control.alarms.empty())
      texts.push_back("seed " + std::to_string(control.seed) + ": " + joined(control.alarms));
  }
  return texts;
}

std::string run_text(const RunFacts& run) {
  return joined({run.date, "seed " + std::to_string(run.seed), run.device, counted(run.threads, "thread")}) + "; " +
         counted(run.sequences, "sequence") + ", " + counted(run.tokens, "token") + " (" + grouped(run.tokens_saved) +
         " saved)" + (run.seconds > 0 ? ", " + number_text(run.seconds) + " s" : "");
}

std::string model_text(const ModelFacts& model) {
  return joined({model.name, model.family, counted(model.parameters, "parameter"), model.dtype});
}

}  // namespace proviso::audit
