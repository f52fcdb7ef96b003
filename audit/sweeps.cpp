#include "audit/sweeps.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <utility>

#include "audit/html_page.hpp"
#include "audit/markup.hpp"
#include "audit/report_tree.hpp"
#include "audit/report_words.hpp"
#include "audit/text_page.hpp"

namespace proviso::audit {

namespace {

std::int64_t positions_of(const SweepResult& sweep) { return std::ssize(sweep.tokens); }

/// "34", "-5", "." where nothing was computed.
std::string cell_text(double share) {
  if (!std::isfinite(share)) return "?";
  const auto percent = std::llround(100 * share);
  return percent == 0 ? "." : std::to_string(percent);
}

/// The head's largest effect over the positions.
double strongest_of(const SweepResult& sweep, std::int64_t layer, std::int64_t head) {
  double most = 0;
  for (std::int64_t position = 0; position < positions_of(sweep); ++position) {
    const double here = sweep.at(layer, head, position);
    if (std::abs(here) > std::abs(most)) most = here;
  }
  return most;
}

struct Strong {
  std::int64_t layer, head, position;
  double share;
};

std::vector<Strong> strongest(const SweepResult& sweep, std::size_t shown) {
  std::vector<Strong> all;
  for (std::int64_t layer = 0; layer < sweep.layers; ++layer) {
    for (std::int64_t head = 0; head < sweep.heads; ++head) {
      for (std::int64_t position = sweep.first_difference; position < positions_of(sweep); ++position)
        all.push_back({layer, head, position, sweep.at(layer, head, position)});
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Strong& a, const Strong& b) { return std::abs(a.share) > std::abs(b.share); });
  if (all.size() > shown) all.resize(shown);
  return all;
}

std::string site_text(const SweepResult& sweep, std::int64_t layer, std::int64_t head) {
  return dsl::to_string(dsl::Site{sweep.site, layer, sweep.heads > 1 ? head : -1});
}

std::vector<std::pair<std::string, std::string>> facts_of(const SweepResult& sweep) {
  std::vector<std::pair<std::string, std::string>> facts = {
      {"clean", "\"" + sweep.clean + "\", m " + number_text(sweep.m_clean)},
      {"corrupt", "\"" + sweep.corrupt + "\", m " + number_text(sweep.m_corrupt)},
      {"patched",
       "each activation of the corrupt prompt becomes the clean one's; shown is the share of clean less "
       "corrupt that this gives back, in percent"}};
  if (sweep.first_difference > 0)
    facts.emplace_back("skipped", "the first " + counted(sweep.first_difference, "position") +
                                      ", which no patch can change: the prompts begin alike");
  if (const auto& screened = sweep.screening) {
    facts.emplace_back("screened",
                       "in " + screened->dtype + "; " + grouped(screened->large) + " patches give back " +
                           number_text(screened->threshold, true) + " or more, " + grouped(screened->confirmed) +
                           " of all were run again, whose margin lay within " + number_text(screened->error, true) +
                           " (twice the most that " + grouped(screened->sampled) + " of both differed by)");
  }
  if (sweep.seconds > 0)
    facts.emplace_back("time", number_text(sweep.seconds) + " s for " +
                                   grouped(static_cast<std::int64_t>(sweep.recovered.size())) +
                                   " patches, the work of " + number_text(sweep.passes) + " tokens through the model");
  return facts;
}

Tree tree_of(const std::vector<SweepResult>& sweeps) {
  Tree list = Tree::array();
  for (const SweepResult& sweep : sweeps) {
    Tree recovered = Tree::array();
    for (std::int64_t layer = 0; layer < sweep.layers; ++layer) {
      Tree of_layer = Tree::array();
      for (std::int64_t head = 0; head < sweep.heads; ++head) {
        Tree row = Tree::array();
        for (std::int64_t position = 0; position < positions_of(sweep); ++position)
          row.push_back(number_tree(sweep.at(layer, head, position)));
        if (sweep.heads == 1) {
          of_layer = std::move(row);
        } else {
          of_layer.push_back(std::move(row));
        }
      }
      recovered.push_back(std::move(of_layer));
    }
    Tree tree = {{"circuit", sweep.circuit},
                 {"measure", sweep.measure},
                 {"site", std::string(dsl::site_name(sweep.site))},
                 {"clean", sweep.clean},
                 {"corrupt", sweep.corrupt},
                 {"tokens", sweep.tokens},
                 {"m_clean", number_tree(sweep.m_clean)},
                 {"m_corrupt", number_tree(sweep.m_corrupt)},
                 {"first_difference", sweep.first_difference}};
    if (const auto& screened = sweep.screening) {
      tree["screening"] = {{"dtype", screened->dtype},         {"threshold", screened->threshold},
                           {"error", screened->error},         {"sampled", screened->sampled},
                           {"confirmed", screened->confirmed}, {"large", screened->large}};
    }
    tree["seconds"] = sweep.seconds;
    tree["recovered"] = std::move(recovered);
    list.push_back(std::move(tree));
  }
  return {{"sweeps", std::move(list)}};
}

/// Blue gives back, red takes away; the number stands in the cell for those who cannot tell them apart.
std::string heat(double share) {
  const int strength = static_cast<int>(std::lround(std::clamp(std::abs(share), 0.0, 1.0) * 100));
  return std::string(share < 0 ? "lost" : "given") + " s" + std::to_string((strength + 5) / 10);
}

std::string heat_map(const SweepResult& sweep) {
  const bool heads = sweep.heads > 1;
  const std::int64_t columns = heads ? sweep.heads : positions_of(sweep);
  std::string head = element("th", attribute("scope", "col"), "layer");
  for (std::int64_t column = 0; column < columns; ++column) {
    const std::string title =
        heads ? "head " + std::to_string(column) : on_one_line(sweep.tokens[static_cast<std::size_t>(column)]);
    head += element("th", attribute("scope", "col"), markup(title));
  }
  std::string rows = element("thead", "", element("tr", "", head));
  std::string body;
  for (std::int64_t layer = sweep.layers - 1; layer >= 0; --layer) {
    std::string row = element("th", attribute("scope", "row"), std::to_string(layer));
    for (std::int64_t column = 0; column < columns; ++column) {
      const double share = heads ? strongest_of(sweep, layer, column) : sweep.at(layer, 0, column);
      row += element("td", attribute("class", heat(share)), markup(cell_text(share)));
    }
    body += element("tr", "", row);
  }
  rows += element("tbody", "", body);
  const std::string caption = element("caption", "",
                                      heads ? "Percent given back, the largest over the positions, by layer and head"
                                            : "Percent given back, by layer (the last one on top) and position");
  return element("div",
                 of_class("scrolls") + attribute("tabindex", "0") + attribute("role", "region") +
                     attribute("aria-label", "sweep of " + std::string(dsl::site_name(sweep.site))),
                 element("table", of_class("heat"), caption + rows));
}

/// The colours of a heat map, in light and in dark.
std::string heat_style() {
  std::string style =
      ".heat td{text-align:right;min-width:2.2em;padding:.1em .35em;font-variant-numeric:tabular-nums}"
      ".heat th{font-weight:normal;text-align:left;padding:.1em .35em;white-space:nowrap}"
      ".scrolls{overflow-x:auto;max-width:100%}";
  for (int i = 0; i <= 10; ++i) {
    char line[160];
    std::snprintf(line, sizeof line,
                  ".heat .given.s%d{background:rgba(33,102,172,%.2f)}.heat .lost.s%d{background:rgba(178,24,43,%.2f)}",
                  i, i * .075, i, i * .075);
    style += line;
  }
  return style;
}

}  // namespace

std::vector<SweepResult> sweep_circuit(const model::Transformer& transformer, const runtime::BoundRules& bound,
                                       dsl::CircuitId circuit, const SweepOptions& options) {
  const auto& declared = bound.rules->circuits[circuit];
  const auto& of = bound.circuits[circuit];
  std::vector<SweepResult> results;
  for (const auto& pair : of.pairs) {
    for (const dsl::SiteKind kind : options.sites) {
      const auto started = std::chrono::steady_clock::now();
      const runtime::PatchSweep sweep(transformer, pair, of.probability);
      const auto patches = runtime::PatchSweep::all(kind, transformer.config(), sweep.length());
      SweepResult& result = results.emplace_back();
      const double whole = sweep.clean() - sweep.corrupt();
      std::vector<double> m;
      if (options.screening != nullptr) {
        const runtime::PatchSweep screening(*options.screening, pair, of.probability);
        auto screened = runtime::screen(sweep, screening, patches, options.threshold, options.seed);
        result.screening = {options.screening->options().dtype == at::kBFloat16 ? "bfloat16" : "float32",
                            options.threshold,
                            whole == 0 ? 0 : screened.error / std::abs(whole),
                            screened.sampled,
                            screened.confirmed,
                            std::count(screened.large.begin(), screened.large.end(), true)};
        result.passes = screening.token_passes();
        m = std::move(screened.m);
      } else {
        m = sweep.run(patches);
      }
      result.circuit = declared.name;
      result.measure = declared.measure.text;
      result.clean = pair.clean.text;
      result.corrupt = pair.corrupt.text;
      for (const std::int64_t token : pair.corrupt.tokens)
        result.tokens.push_back(bound.tokenizer->decode(std::vector<std::int64_t>{token}));
      result.site = kind;
      result.layers = transformer.config().layers;
      result.heads = kind == dsl::SiteKind::z ? transformer.config().heads : 1;
      result.first_difference = sweep.first_difference();
      result.m_clean = sweep.clean();
      result.m_corrupt = sweep.corrupt();
      for (const double value : m) result.recovered.push_back((value - sweep.corrupt()) / whole);
      result.passes += sweep.token_passes();
      result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    }
  }
  return results;
}

std::string sweeps_text(const std::vector<SweepResult>& sweeps, std::size_t shown, std::size_t columns, bool colour) {
  TextPage page(columns, colour);
  for (const SweepResult& sweep : sweeps) {
    page.line(2, {{sweep.circuit, Style::strong}, {std::string(dsl::site_name(sweep.site)) + ", " + sweep.measure}});
    for (const auto& [label, text] : facts_of(sweep)) page.labelled(4, label, {text});
    const bool heads = sweep.heads > 1;
    std::vector<Column> titles = {{"layer", true}};
    const std::int64_t across = heads ? sweep.heads : positions_of(sweep);
    for (std::int64_t column = heads ? 0 : sweep.first_difference; column < across; ++column) {
      titles.push_back({heads ? "h" + std::to_string(column)
                              : shortened(on_one_line(harmless(sweep.tokens[static_cast<std::size_t>(column)])), 8),
                        true, false, true});
    }
    std::vector<std::vector<Cell>> rows;
    for (std::int64_t layer = sweep.layers - 1; layer >= 0; --layer) {
      std::vector<Cell> row = {{std::to_string(layer), Style::dim}};
      for (std::int64_t column = heads ? 0 : sweep.first_difference; column < across; ++column) {
        const double share = heads ? strongest_of(sweep, layer, column) : sweep.at(layer, 0, column);
        row.push_back({cell_text(share), std::abs(share) >= 0.5 ? Style::strong : Style::plain});
      }
      rows.push_back(std::move(row));
    }
    page.table(4, std::move(titles), std::move(rows));
    std::vector<std::vector<Cell>> strong;
    for (const Strong& one : strongest(sweep, shown)) {
      strong.push_back({{site_text(sweep, one.layer, one.head)},
                        {std::to_string(one.position)},
                        {on_one_line(sweep.tokens[static_cast<std::size_t>(one.position)])},
                        {number_text(one.share, true)}});
    }
    page.table(4, {{"strongest"}, {"position", true}, {"token"}, {"gives back", true}}, std::move(strong));
  }
  return page.take();
}

std::string sweeps_yaml(const std::vector<SweepResult>& sweeps) { return yaml_text(tree_of(sweeps)); }

std::string sweeps_json(const std::vector<SweepResult>& sweeps) {
  return tree_of(sweeps).dump(2, ' ', false, Tree::error_handler_t::replace) + "\n";
}

std::string sweeps_html(const std::vector<SweepResult>& sweeps) {
  std::string body = element("style", "", heat_style()) + element("h1", "", "Sweeps of activation patching");
  std::size_t number = 0;
  for (const SweepResult& sweep : sweeps) {
    std::string known;
    for (const auto& [label, text] : facts_of(sweep)) known += fact(label, markup(text));
    std::vector<std::vector<std::string>> rows;
    for (const Strong& one : strongest(sweep, 20)) {
      rows.push_back({code(site_text(sweep, one.layer, one.head)), std::to_string(one.position),
                      code(on_one_line(sweep.tokens[static_cast<std::size_t>(one.position)])),
                      markup(number_text(one.share, true))});
    }
    body += section(
        "sweep-" + std::to_string(number++), markup(sweep.circuit + ": " + std::string(dsl::site_name(sweep.site))),
        facts(known) + heat_map(sweep) +
            fold("strongest", false, "The strongest patches",
                 table("", {{"site"}, {"position", "number"}, {"token", "text"}, {"gives back", "number"}}, rows)));
  }
  return page("Sweeps of activation patching", body);
}

}  // namespace proviso::audit
