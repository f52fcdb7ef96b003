// Circuits as a page. It carries no script: nodes and edges answer to the pointer and the keyboard by style alone, and
// what the drawing shows stands in tables below it.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "audit/circuits.hpp"
#include "audit/html_page.hpp"
#include "audit/markup.hpp"
#include "audit/report_words.hpp"

namespace proviso::audit {

namespace {

constexpr int kColumn = 96, kRow = 34, kBox = 58, kHigh = 22, kMargin = 16;
/// How many of the strongest edges can be chosen to be drawn alone.
constexpr std::size_t kShown[] = {20, 50, 100};
constexpr int kEmbed = -1, kLogits = 1 << 20;

/// "a3.h5<q>" is of the node "a3.h5", read by its queries.
std::pair<std::string, std::string> node_and_input(const std::string& destination) {
  const auto at = destination.find('<');
  if (at == std::string::npos) return {destination, ""};
  return {destination.substr(0, at), destination.substr(at + 1, destination.size() - at - 2)};
}

/// Where nodes stand: of "a3.h5" and "m3" the layer; of a latent its site, as passes reach them. The embedding comes
/// before all, the logits after.
using Column = std::pair<int, dsl::Site>;
Column column_of(const std::string& node) {
  if (node == "embed") return {kEmbed, {}};
  if (node == "logits") return {kLogits, {}};
  const auto spec = dsl::parse_site(latent_name(node).site);
  if (!spec) return {std::atoi(node.c_str() + 1), {}};
  const auto first = [](const dsl::IndexSet& set) { return set.ranges.empty() ? -1 : set.ranges.front().first; };
  return {0, {spec->kind, first(spec->layers), spec->heads ? first(*spec->heads) : -1}};
}

/// What a box says: "a3.h5", "812", "error".
std::string box_text(const std::string& node) {
  const std::string part = latent_name(node).part;
  return part.starts_with("latent ") ? part.substr(7) : part;
}

/// The edges drawn: of latents, between which there are none, an arrow each to the logits.
std::vector<CircuitEdgeResult> drawn_edges(const CircuitResult& circuit) {
  if (!has_latents(circuit)) return circuit.edges;
  std::vector<CircuitEdgeResult> edges;
  for (const auto& node : circuit.nodes) edges.push_back({node.name, "logits", node.score, {}, {}});
  return edges;
}

struct Place {
  int x = 0, y = 0;
  std::size_t number = 0;
};

/// Layers in columns from left to right, of those alone that have a node; heads above MLPs, latents above error terms.
std::map<std::string, Place> places_of(const CircuitResult& circuit, int& width, int& height) {
  std::set<std::string> names = {"logits"};
  if (!has_latents(circuit)) names.insert("embed");
  for (const auto& node : circuit.nodes) names.insert(node.name);
  for (const auto& edge : circuit.edges) {
    names.insert(edge.from);
    names.insert(node_and_input(edge.to).first);
  }
  const auto number_of = [](const std::string& name) {
    for (const char* before : {".h", " latent "}) {
      const auto at = name.find(before);
      if (at != std::string::npos) return std::atoi(name.c_str() + at + std::strlen(before));
    }
    return 1 << 30;
  };
  std::vector<std::string> ordered(names.begin(), names.end());
  std::sort(ordered.begin(), ordered.end(), [&](const std::string& a, const std::string& b) {
    return std::pair(column_of(a), number_of(a)) < std::pair(column_of(b), number_of(b));
  });
  std::map<Column, std::vector<std::string>> columns;
  for (const auto& name : ordered) columns[column_of(name)].push_back(name);
  std::size_t tallest = 0;
  for (const auto& [layer, members] : columns) tallest = std::max(tallest, members.size());
  height = 2 * kMargin + static_cast<int>(tallest) * kRow;
  std::map<std::string, Place> places;
  int column = 0;
  for (const auto& [layer, members] : columns) {
    const int top = (height - static_cast<int>(members.size()) * kRow) / 2;
    for (std::size_t row = 0; row < members.size(); ++row) {
      const std::size_t number = places.size();
      places[members[row]] = {kMargin + column * kColumn, top + static_cast<int>(row) * kRow, number};
    }
    ++column;
  }
  width = 2 * kMargin + (column - 1) * kColumn + kBox;
  return places;
}

std::string number_attribute(const char* name, double value) {
  char text[48];
  std::snprintf(text, sizeof text, " %s=\"%.1f\"", name, value);
  return text;
}

std::string drawing(const CircuitResult& circuit, std::size_t number) {
  int width = 0, height = 0;
  const auto places = places_of(circuit, width, height);
  double most = 0;
  const std::vector<CircuitEdgeResult> edges = drawn_edges(circuit);
  for (const auto& edge : edges) most = std::max(most, std::abs(edge.score.value_or(0)));
  const std::string name = "c" + std::to_string(number);
  std::string paths;
  std::set<std::size_t> drawn;
  // The weakest first, so that the strong ones lie on top.
  for (std::size_t i = edges.size(); i-- > 0;) {
    const CircuitEdgeResult& edge = edges[i];
    const auto [to, input] = node_and_input(edge.to);
    const Place &from = places.at(edge.from), &into = places.at(to);
    const int x0 = from.x + kBox, y0 = from.y + kHigh / 2, x1 = into.x, y1 = into.y + kHigh / 2,
              bend = std::max(24, (x1 - x0) / 2);
    char path[128];
    std::snprintf(path, sizeof path, "M%d %dC%d %d %d %d %d %d", x0, y0, x0 + bend, y0, x1 - bend, y1, x1, y1);
    std::string kinds = "e n" + std::to_string(from.number) + " n" + std::to_string(into.number);
    if (edge.score) kinds += *edge.score < 0 ? " raises" : " lowers";
    for (const std::size_t shown : kShown) {
      if (i >= shown) kinds += " past" + std::to_string(shown);
    }
    const double strength = edge.score && most > 0 ? std::abs(*edge.score) / most : 0.2;
    paths += element(
        "path",
        attribute("class", kinds) + attribute("d", path) + number_attribute("stroke-width", 0.7 + 4.3 * strength),
        element("title", "",
                markup(edge.from + " to " + edge.to + (edge.score ? ": " + number_text(*edge.score) : ""))));
    drawn.insert(from.number);
    drawn.insert(into.number);
  }
  std::map<std::string, double> scores;
  for (const auto& node : circuit.nodes) scores[node.name] = node.score;
  std::string boxes, style;
  for (const auto& [node, place] : places) {
    std::string told = node;
    if (const auto score = scores.find(node); score != scores.end()) told += ": " + number_text(score->second);
    const std::string own = "n" + std::to_string(place.number);
    boxes += element(
        "g",
        attribute("class", "node " + own) + attribute("tabindex", "0") + attribute("role", "img") +
            attribute("aria-label", told),
        element("title", "", markup(told)) +
            element("rect",
                    number_attribute("x", place.x) + number_attribute("y", place.y) + number_attribute("width", kBox) +
                        number_attribute("height", kHigh) + attribute("rx", "4"),
                    "") +
            element("text", number_attribute("x", place.x + kBox / 2.0) + number_attribute("y", place.y + 15.5),
                    markup(box_text(node))));
    const std::string when = "#" + name + ":has(." + own + ":hover,." + own + ":focus)";
    style += when + " .e{opacity:.06}" + when + " .e." + own + "{opacity:1}";
  }
  std::string choices;
  const auto choice = [&](const std::string& value, const std::string& label, bool checked) {
    const std::string id = name + "-" + value;
    choices += element("label", attribute("for", id),
                       "<input type=\"radio\"" + attribute("name", name + "-shown") + attribute("id", id) +
                           (checked ? " checked" : "") + "> " + markup(label));
  };
  const bool latents = has_latents(circuit);
  choice("all", "all " + counted(std::ssize(edges), latents ? "arrow" : "edge"), true);
  for (const std::size_t shown : kShown) {
    if (edges.size() <= shown) continue;
    const std::string value = std::to_string(shown);
    choice(value, "the strongest " + value, false);
    style += "#" + name + ":has(#" + name + "-" + value + ":checked) .past" + value + "{display:none}";
  }
  const std::string size = number_attribute("width", width) + number_attribute("height", height);
  return element(
      "div", attribute("id", name),
      element("style", "", style) +
          element("fieldset", of_class("choices"),
                  element("legend", "", latents ? "Arrows drawn" : "Edges drawn") + choices) +
          element(
              "div",
              of_class("drawing") + attribute("tabindex", "0") + attribute("role", "region") +
                  attribute("aria-label", "graph of " + circuit.name),
              element("svg", size + attribute("viewBox", "0 0 " + std::to_string(width) + " " + std::to_string(height)),
                      paths + boxes)) +
          paragraph(latents
                        ? "Sites from left to right, latents by number. A blue arrow raises m and a red one lowers "
                          "it, as wide as it is strong: all that a node does, whichever way. Point at a node, or "
                          "reach it with the Tab key, to see its site and its arrow alone."
                        : "Layers from left to right. Blue edges raise m and red ones lower it, as wide as they are "
                          "strong. Point at a node, or reach it with the Tab key, to see its edges alone."));
}

std::string share_cell(const std::optional<double>& share) { return share ? markup(number_text(*share, true)) : ""; }
std::string number_cell(const std::optional<double>& number) { return number ? markup(number_text(*number)) : ""; }

std::string circuit_section(const CircuitResult& circuit, std::size_t number) {
  std::string known = fact("where", code(circuit.where));
  for (const auto& [label, text] : circuit_facts(circuit)) known += fact(label, markup(text));
  std::vector<std::vector<std::string>> nodes, edges;
  for (const auto& node : circuit.nodes)
    nodes.push_back(
        {code(node.name), markup(number_text(node.score)), number_cell(node.drop), share_cell(node.inclusion)});
  for (const auto& edge : circuit.edges)
    edges.push_back(
        {code(edge.from), code(edge.to), number_cell(edge.score), number_cell(edge.drop), share_cell(edge.inclusion)});
  const std::vector<PageColumn> measures = {{"score", "number"}, {"drop", "number"}, {"found again", "number"}};
  std::vector<PageColumn> of_nodes = {{"node"}}, of_edges = {{"from"}, {"to"}};
  of_nodes.insert(of_nodes.end(), measures.begin(), measures.end());
  of_edges.insert(of_edges.end(), measures.begin(), measures.end());
  return section("circuit-" + std::to_string(number), markup(circuit.name),
                 paragraph(circuit.annotations.title) + paragraph(circuit.annotations.description) + facts(known) +
                     drawing(circuit, number) +
                     (nodes.empty() ? ""
                                    : fold("nodes", false, counted(std::ssize(nodes), "node"),
                                           table("Nodes, the strongest first", of_nodes, nodes))) +
                     (has_latents(circuit) ? ""
                                           : fold("edges", false, counted(std::ssize(edges), "edge"),
                                                  table("Edges, the strongest first", of_edges, edges))));
}

constexpr const char* kStyle =
    ".drawing{overflow:auto;max-width:100%;max-height:80vh;border:1px solid var(--line);border-radius:6px;margin:.5rem "
    "0}"
    ".drawing svg{display:block}"
    ".e{fill:none;stroke:var(--soft);opacity:.75}"
    ".e.raises{stroke:#2f7fd0}.e.lowers{stroke:#d0453f}"
    ".e:hover{opacity:1;stroke:var(--mark)}"
    ".node rect{fill:var(--panel);stroke:var(--soft)}"
    ".node text{fill:var(--ink);font-size:12px;text-anchor:middle}"
    ".node:hover rect,.node:focus rect{stroke:var(--link);stroke-width:2.5}"
    ".node:focus{outline:none}"
    ".choices{border:1px solid var(--line);border-radius:6px;display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin:.75rem "
    "0}";

}  // namespace

std::string circuit_drawing(const CircuitResult& circuit, std::size_t number) {
  return element("style", "", kStyle) + drawing(circuit, number);
}

std::string circuits_html(const std::vector<CircuitResult>& circuits) {
  std::string body = element("h1", "", "Circuits");
  for (std::size_t i = 0; i < circuits.size(); ++i) body += circuit_section(circuits[i], i);
  return page("Circuits", element("style", "", kStyle) + element("main", "", body));
}

}  // namespace proviso::audit
