// How often the intervals of audits hold the truth, and how often their tests are wrong, on samples whose truth is
// known: the tables of docs/statistics.md.
//
//   proviso_coverage [--quick] [--trials N] [--seed N] [--threads N]    Markdown on standard output
//   proviso_coverage … -o docs/statistics.md               in place of what stands below that page's mark
//
// Quick takes half a minute and knows a coverage to 1.5 points; full takes minutes, and knows it to half a point.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "audit/sample_size.hpp"
#include "audit/statistics.hpp"
#include "bench/sampling_designs.hpp"

namespace {

using namespace proviso;
using audit::Estimate;
using audit::Sample;
using sampling::Draws;
using sampling::Layout;
using sampling::Population;

constexpr double kConfidence = 0.95;
constexpr std::int64_t kSizes[] = {8, 16, 32, 64, 128, 256};

const std::vector<Layout> kLayouts = {{},
                                      {Layout::Kind::equal, 0},
                                      {Layout::Kind::equal, 0.1},
                                      {Layout::Kind::equal, 0.3},
                                      {Layout::Kind::unequal, 0},
                                      {Layout::Kind::unequal, 0.1},
                                      {Layout::Kind::unequal, 0.3}};
const std::vector<Layout> kFewLayouts = {{}, {Layout::Kind::equal, 0.3}, {Layout::Kind::unequal, 0.3}};
constexpr Population kPopulations[] = {Population::normal, Population::skewed, Population::lognormal,
                                       Population::heavy};

constexpr const char* kMark = "<!-- Below: made by proviso_coverage. -->\n";

struct Options {
  std::string output;  ///< "" is standard output
  int trials = 2000;
  std::uint64_t seed = 20261128;
  unsigned threads = std::max(1U, std::thread::hardware_concurrency());
};

/// A cell of a table: the share of trials that `hit`, of those that tell.
struct Cell {
  std::function<int(Draws&, std::uint64_t)> trial;  ///< 1, 0, or −1: no interval
  int hits = 0, told = 0;
};

struct Row {
  std::vector<std::string> labels;
  std::vector<Cell> cells;
};

struct Table {
  std::string title, text;
  std::vector<std::string> columns;
  std::vector<Row> rows = {};
  bool coverage = true;  ///< marks what lies outside 93 to 97 % from 64 prompts on
};

int holds(const Estimate& estimate, double truth) {
  if (!estimate.interval) return -1;
  return estimate.interval->low <= truth && truth <= estimate.interval->high;
}

std::string percent_text(double share, int digits) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, 100 * share);
  return text;
}

std::vector<std::string> with_sizes(std::vector<std::string> columns) {
  for (const std::int64_t n : kSizes) columns.push_back("n = " + std::to_string(n));
  return columns;
}

/// One row over the sample sizes: `draw` makes the estimate of n prompts.
Row over_sizes(std::vector<std::string> labels, double truth,
               const std::function<Estimate(Draws&, std::int64_t, std::uint64_t)>& draw) {
  Row row{std::move(labels), {}};
  for (const std::int64_t n : kSizes) {
    row.cells.push_back({[=](Draws& draws, std::uint64_t i) { return holds(draw(draws, n, i), truth); }});
  }
  return row;
}

Table shares() {
  Table table{"Shares: Wilson's interval, with the design effect in clusters",
              "`accuracy`, `rate` (one sample a prompt), `efficacy`, `paraphrase`, `specificity`. Successes are "
              "beta-binomial within clusters.",
              with_sizes({"prompts", "rate"})};
  for (const Layout& layout : kLayouts) {
    for (const double p : {0.02, 0.05, 0.1, 0.3, 0.5}) {
      table.rows.push_back(
          over_sizes({layout.text(), percent_text(p, 0) + " %"}, p, [=](Draws& draws, std::int64_t n, std::uint64_t) {
            return audit::wilson(sampling::shares(draws, p, n, layout), kConfidence);
          }));
    }
  }
  return table;
}

Table means() {
  Table table{
      "Means: bootstrap-t, in clusters cluster-t",
      "`probability`, `rank`, `logit_diff`, `mean`, and `effect` on them, whose differences prompt by prompt are "
      "such a sample.",
      with_sizes({"prompts", "values"})};
  for (const Layout& layout : kLayouts) {
    for (const Population population : kPopulations) {
      table.rows.push_back(over_sizes({layout.text(), sampling::name_of(population)}, sampling::mean_of(population),
                                      [=](Draws& draws, std::int64_t n, std::uint64_t i) {
                                        const auto sample = sampling::values(draws, population, n, layout);
                                        return audit::bootstrap_t_mean(sample, kConfidence, i);
                                      }));
    }
  }
  return table;
}

/// Texts of 5 to 60 tokens, losses a token around 3 nats; `spread` is that of a text's own mean loss.
std::vector<Sample> texts(Draws& draws, std::int64_t n, const Layout& layout, double spread) {
  std::vector<Sample> samples = sampling::values(draws, Population::normal, n, layout);
  for (Sample& sample : samples) {
    const auto tokens = static_cast<double>(draws.integer(5, 60));
    sample = {tokens * (3 + spread * sample.value) + std::sqrt(tokens) * draws.normal(), sample.cluster, tokens};
  }
  return samples;
}

Table ratios() {
  Table table{
      "Ratios: bootstrap-t of the ratio, in clusters cluster-t",
      "`kl` weighs texts by their length. `perplexity` is on the log scale; its rise and its difference are of the "
      "same texts. `relative` effects, `loss_recovered` and `faithfulness` are ratios of two means of the same "
      "prompts.",
      with_sizes({"prompts", "number"})};
  for (const Layout& layout : kFewLayouts) {
    const double sigma1 = std::exp(0.5);  // the mean of a lognormal with σ 1
    table.rows.push_back(
        over_sizes({layout.text(), "`kl`, lognormal, σ 1"}, sigma1, [=](Draws& draws, std::int64_t n, std::uint64_t i) {
          auto sample = sampling::values(draws, Population::lognormal, n, layout);
          for (Sample& s : sample) s.weight = static_cast<double>(draws.integer(5, 60));
          return audit::bootstrap_t_mean(sample, kConfidence, i);
        }));
    table.rows.push_back(
        over_sizes({layout.text(), "`perplexity`"}, std::exp(3), [=](Draws& draws, std::int64_t n, std::uint64_t i) {
          return audit::exp_ratio(texts(draws, n, layout, 0.5), kConfidence, i);
        }));
    // A change that adds .02 nats a token on average, to all texts alike, or to one in ten.
    const auto changed = [](Draws& draws, std::vector<Sample> before, bool few) {
      for (Sample& s : before) {
        const double share =
            few ? (draws.uniform() < 0.1 ? 10 * draws.exponential() : 0) : std::exp(0.5 * draws.normal() - 0.125);
        s.value += s.weight * (0.02 * share + 0.002 * draws.normal());
      }
      return before;
    };
    const double rise = std::expm1(0.02);
    for (const bool few : {false, true}) {
      const std::string where = few ? ", one text in ten" : ", all texts";
      table.rows.push_back(over_sizes(
          {layout.text(), "`perplexity_rise`" + where}, rise, [=](Draws& draws, std::int64_t n, std::uint64_t i) {
            const auto before = texts(draws, n, layout, 0.5);
            return audit::exp_ratio_rise(before, changed(draws, before, few), kConfidence, i);
          }));
      table.rows.push_back(over_sizes({layout.text(), "`effect(…, on: perplexity)`" + where}, std::exp(3) * rise,
                                      [=](Draws& draws, std::int64_t n, std::uint64_t i) {
                                        const auto before = texts(draws, n, layout, 0.5);
                                        return audit::exp_ratio_difference(before, changed(draws, before, few),
                                                                           kConfidence, i);
                                      }));
    }
    table.rows.push_back(over_sizes({layout.text(), "`relative`: half, lognormal"}, -0.5,
                                    [=](Draws& draws, std::int64_t n, std::uint64_t i) {
                                      const auto before = sampling::values(draws, Population::skewed, n, layout);
                                      auto after = before;
                                      for (Sample& s : after) s.value *= draws.uniform();
                                      return audit::relative_difference(before, after, kConfidence, i);
                                    }));
    table.rows.push_back(over_sizes({layout.text(), "`faithfulness`: .8, wholes 2 ± 1"}, 0.8,
                                    [=](Draws& draws, std::int64_t n, std::uint64_t i) {
                                      auto wholes = sampling::values(draws, Population::normal, n, layout);
                                      for (Sample& s : wholes) s.value += 2;
                                      auto parts = wholes;
                                      for (Sample& s : parts) s.value = 0.8 * s.value + 0.5 * draws.normal();
                                      return audit::ratio_of_means(parts, wholes, kConfidence, i);
                                    }));
  }
  return table;
}

/// Before and after on the same prompts: `kept` of those that were right stay so, `won` of the others become so.
struct PairedShares {
  double before, kept, won;
  double truth() const { return before * kept + (1 - before) * won - before; }
};

std::pair<std::vector<Sample>, std::vector<Sample>> paired(Draws& draws, const PairedShares& shares, std::int64_t n,
                                                           const Layout& layout) {
  auto before = sampling::shares(draws, shares.before, n, layout);
  auto after = before;
  for (Sample& s : after) s.value = draws.uniform() < (s.value == 1 ? shares.kept : shares.won) ? 1 : 0;
  return {std::move(before), std::move(after)};
}

Table changes() {
  Table table{"Changes of shares on the same prompts: Newcombe's paired interval, with the design effect in clusters",
              "`effect(…, on: rate(…))` and its kin.", with_sizes({"prompts", "before → after"})};
  const PairedShares kinds[] = {{0.6, 0.6, 0.1}, {0.9, 0.5, 0.3}, {0.1, 0.1, 0.02}, {0.5, 0.9, 0.1}};
  for (const Layout& layout : kFewLayouts) {
    for (const PairedShares& kind : kinds) {
      const std::string label =
          percent_text(kind.before, 0) + " % → " + percent_text(kind.before + kind.truth(), 0) + " %";
      table.rows.push_back(
          over_sizes({layout.text(), label}, kind.truth(), [=](Draws& draws, std::int64_t n, std::uint64_t) {
            const auto [before, after] = paired(draws, kind, n, layout);
            return audit::mcnemar(before, after, kConfidence);
          }));
    }
  }
  return table;
}

Table areas() {
  Table table{"Areas under the curve: DeLong's variance on the logit scale, in clusters Obuchowski's",
              "`auroc`; n prompts a side.", with_sizes({"prompts", "values, area"})};
  for (const Layout& layout : kFewLayouts) {
    for (const double area : {0.5, 0.75, 0.9, 0.98}) {
      // Normal sides d apart have the area Φ(d / √2); exponential ones, one a times the other, a / (1 + a).
      double low = -1, high = 6;
      for (int i = 0; i < 60; ++i) {
        const double middle = (low + high) / 2;
        (0.5 * std::erfc(-middle / 2) < area ? low : high) = middle;
      }
      const double apart = low;
      table.rows.push_back(over_sizes({layout.text(), "normal, " + percent_text(area, 0) + " %"}, area,
                                      [=](Draws& draws, std::int64_t n, std::uint64_t) {
                                        auto positive = sampling::values(draws, Population::normal, n, layout);
                                        for (Sample& s : positive) s.value += apart;
                                        const auto negative = sampling::values(draws, Population::normal, n, layout);
                                        return audit::delong_auroc(positive, negative, kConfidence);
                                      }));
      if (layout.kind != Layout::Kind::single) continue;
      table.rows.push_back(over_sizes({layout.text(), "exponential, " + percent_text(area, 0) + " %"}, area,
                                      [=](Draws& draws, std::int64_t n, std::uint64_t) {
                                        std::vector<Sample> positive, negative;
                                        for (std::int64_t i = 0; i < n; ++i) {
                                          positive.push_back({draws.exponential() * area / (1 - area), i});
                                          negative.push_back({draws.exponential(), i});
                                        }
                                        return audit::delong_auroc(positive, negative, kConfidence);
                                      }));
    }
  }
  return table;
}

Table mcnemar_errors() {
  Table table{"McNemar's test: how often p ≤ 5 % where nothing changed",
              "Exact, so at most 5 %; over clusters the sign test of their net changes.",
              with_sizes({"prompts", "change either way"}),
              {},
              false};
  for (const Layout& layout : kFewLayouts) {
    for (const double either : {0.05, 0.2}) {
      Row row{{layout.text(), percent_text(either, 0) + " %"}, {}};
      for (const std::int64_t n : kSizes) {
        row.cells.push_back({[=](Draws& draws, std::uint64_t) {
          const auto [before, after] = paired(draws, {0.5, 1 - either, either}, n, layout);
          return static_cast<int>(audit::mcnemar(before, after, kConfidence).p.value_or(1) <= 0.05);
        }});
      }
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

Table control_errors() {
  Table table{
      "Controls: how often an effect that is one of the controls' kind is called beyond them",
      "Any one of the effects of a file, Holm-corrected at 5 %. Controls are normal, skewed or heavy-tailed over "
      "their random directions.",
      {"controls' effects", "effects in the file", "N = 8", "N = 32", "N = 128"},
      {},
      false};
  for (const Population population : kPopulations) {
    for (const int effects : {1, 5, 20}) {
      Row row{{sampling::name_of(population), std::to_string(effects)}, {}};
      for (const std::int64_t controls : {8, 32, 128}) {
        row.cells.push_back({[=](Draws& draws, std::uint64_t) {
          std::vector<double> p;
          for (int e = 0; e < effects; ++e) {
            std::vector<double> drawn;
            for (const Sample& s : sampling::values(draws, population, controls + 1, {})) drawn.push_back(s.value);
            p.push_back(audit::t_test_against(drawn.back(), std::span(drawn).first(drawn.size() - 1)));
          }
          const auto corrected = audit::holm(p);
          return static_cast<int>(*std::min_element(corrected.begin(), corrected.end()) <= 0.05);
        }});
      }
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

Table power() {
  Table table{"`explain`'s advice: how often a check passes with the prompts that it names",
              "A rate midway between the bound and the end of the range; 80 % is what is aimed at.",
              {"bound", "rate", "prompts advised", "passes"},
              {},
              false};
  for (const double bound : {0.02, 0.1, 0.3, 0.5}) {
    const double rate = bound / 2;
    const std::int64_t n = audit::prompts_to_show(rate, dsl::Compare::less_equal, bound, kConfidence);
    Row row{{"`<= " + percent_text(bound, 0) + "% at 95% confidence`", percent_text(rate, 0) + " %", std::to_string(n)},
            {}};
    row.cells.push_back({[=](Draws& draws, std::uint64_t) {
      const Estimate estimate = audit::wilson(sampling::shares(draws, rate, n, {}), kConfidence);
      return static_cast<int>(estimate.interval && estimate.interval->high <= bound);
    }});
    table.rows.push_back(std::move(row));
  }
  return table;
}

void simulate(std::vector<Table>& tables, const Options& options) {
  std::vector<std::pair<Cell*, std::uint64_t>> work;
  for (Table& table : tables)
    for (Row& row : table.rows)
      for (Cell& cell : row.cells) work.emplace_back(&cell, options.seed + 1'000'003 * work.size());
  std::atomic<std::size_t> next = 0;
  const auto run = [&] {
    for (std::size_t i = next++; i < work.size(); i = next++) {
      auto& [cell, seed] = work[i];
      Draws draws(seed);
      for (int trial = 0; trial < options.trials; ++trial) {
        const int hit = cell->trial(draws, seed + static_cast<std::uint64_t>(trial));
        cell->hits += hit == 1;
        cell->told += hit >= 0;
      }
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < options.threads; ++i) threads.emplace_back(run);
  run();
  for (auto& thread : threads) thread.join();
}

/// "94.8", "**91.2**" where it should be and is not within 93 to 97, "–" where under half the trials have an interval.
std::string cell_text(const Cell& cell, bool held_to_it, const Options& options) {
  if (2 * cell.told < options.trials) return "–";
  const double share = static_cast<double>(cell.hits) / cell.told;
  const std::string text = percent_text(share, 1);
  return held_to_it && (share < 0.93 || share > 0.97) ? "**" + text + "**" : text;
}

std::string page(const std::vector<Table>& tables, const Options& options) {
  // Twice the standard error of a coverage of 95 %.
  const double known_to = 2 * std::sqrt(kConfidence * (1 - kConfidence) / options.trials);
  std::string text = "\n" + std::to_string(options.trials) + " samples a cell, seed " + std::to_string(options.seed) +
                     ": a coverage is known to within " + percent_text(known_to, 1) +
                     " points, so that single cells lie outside by chance.\n";
  int held = 0, all = 0;
  double least = 1, most = 0;
  for (const Table& table : tables) {
    text += "\n### " + table.title + "\n\n" + table.text + "\n\n";
    std::string line = "|", rule = "|";
    for (const std::string& column : table.columns) line += " " + column + " |", rule += "---|";
    text += line + "\n" + rule + "\n";
    for (const Row& row : table.rows) {
      line = "|";
      for (const std::string& label : row.labels) line += " " + label + " |";
      for (std::size_t i = 0; i < row.cells.size(); ++i) {
        const Cell& cell = row.cells[i];
        const bool held_to_it = table.coverage && kSizes[i] >= 64;
        line += " " + cell_text(cell, held_to_it, options) + " |";
        if (!held_to_it || 2 * cell.told < options.trials) continue;
        const double share = static_cast<double>(cell.hits) / cell.told;
        ++all;
        held += share >= 0.93 && share <= 0.97;
        least = std::min(least, share);
        most = std::max(most, share);
      }
      text += line + "\n";
    }
  }
  return "\nFrom 64 prompts on " + std::to_string(held) + " of " + std::to_string(all) +
         " cells lie within 93 to 97 %; the least is " + percent_text(least, 1) + " %, the most " +
         percent_text(most, 1) + " %.\n" + text;
}

/// Writes below the mark of a page, or to standard output.
bool write(const std::string& text, const std::string& path) {
  if (path.empty()) return std::fputs(text.c_str(), stdout) >= 0;
  std::ifstream before(path, std::ios::binary);
  std::string whole{std::istreambuf_iterator<char>(before), {}};
  before.close();
  const auto mark = whole.find(kMark);
  if (mark == std::string::npos) {
    std::fprintf(stderr, "%s: no line \"%.*s\" to write below\n", path.c_str(),
                 static_cast<int>(std::strlen(kMark)) - 1, kMark);
    return false;
  }
  whole.resize(mark + std::strlen(kMark));
  std::ofstream after(path, std::ios::binary);
  after << whole << text;
  return static_cast<bool>(after.flush());
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const auto value = [&]() -> unsigned long { return i + 1 < count ? std::strtoul(arguments[++i], nullptr, 10) : 0; };
    if (std::strcmp(arguments[i], "--quick") == 0) {
      options.trials = 200;
    } else if (std::strcmp(arguments[i], "--trials") == 0) {
      options.trials = std::max(1, static_cast<int>(value()));
    } else if (std::strcmp(arguments[i], "--seed") == 0) {
      options.seed = value();
    } else if (std::strcmp(arguments[i], "--threads") == 0) {
      options.threads = std::max(1U, static_cast<unsigned>(value()));
    } else if (std::strcmp(arguments[i], "-o") == 0 && i + 1 < count) {
      options.output = arguments[++i];
    } else {
      std::fprintf(stderr, "proviso_coverage [--quick] [--trials N] [--seed N] [--threads N] [-o PAGE]\n");
      return 2;
    }
  }
  std::vector<Table> tables = {shares(), means(),          ratios(),         changes(),
                               areas(),  mcnemar_errors(), control_errors(), power()};
  simulate(tables, options);
  return write(page(tables, options), options.output) ? 0 : 3;
}
