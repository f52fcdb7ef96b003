#include "audit/circuits.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <numeric>
#include <utility>

#include "audit/report_words.hpp"

namespace proviso::audit {

namespace {

constexpr double kReportedConfidence = 0.95;

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// The trapezoid over a linear axis of shares, from the graph without edges (faithfulness 0) on.
template <class Height>
double area(const std::vector<CircuitCurvePoint>& curve, Height height) {
  double sum = 0, share = 0, before = height(0.0);
  for (const auto& point : curve) {
    const double here = height(point.faithfulness);
    sum += (point.share - share) * (before + here) / 2;
    share = point.share;
    before = here;
  }
  return sum;
}

// ---- drawing ---------------------------------------------------------------------------------------

/// "a3.h5<q>" is of the node "a3.h5", read by its queries.
std::pair<std::string, std::string> node_and_input(const std::string& destination) {
  const auto at = destination.find('<');
  if (at == std::string::npos) return {destination, ""};
  return {destination.substr(0, at), destination.substr(at + 1, destination.size() - at - 2)};
}

/// A name as a string of Graphviz, which reads nothing in it but quotes and backslashes.
std::string dot_string(const std::string& text) {
  std::string result = "\"";
  for (const char c : harmless(text)) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

/// A score is what corrupting changes: where it is negative, m is raised.
std::string drawn_score(double score, double most) {
  char drawn[96];
  std::snprintf(drawn, sizeof drawn, "color=\"%s\", penwidth=%.2f, tooltip=\"%.4g\"", score < 0 ? "#2166ac" : "#b2182b",
                most > 0 ? 0.5 + 4.5 * std::abs(score) / most : 1.0, score);
  return drawn;
}

std::string circuit_method_text(const CircuitResult& circuit) {
  std::vector<std::string> parameters;
  for (const auto& [name, value] : circuit.parameters) parameters.push_back(name + ": " + value);
  return circuit.method + (parameters.empty() ? "" : "(" + joined(parameters) + ")") + "; " + circuit.selection + "; " +
         circuit.ablation;
}

}  // namespace

std::vector<Sample> above_edgeless(const std::vector<runtime::BoundPair>& pairs, const runtime::CircuitRuns& runs,
                                   const std::vector<double>& m) {
  std::vector<Sample> samples;
  for (std::size_t i = 0; i < m.size(); ++i) {
    samples.push_back({m[i] - runs.edgeless[i], pairs[i].clean.cluster, 1});
  }
  return samples;
}

CircuitResult circuit_result(const runtime::BoundRules& bound, dsl::CircuitId id,
                             const runtime::CircuitEvidence& evidence, std::string where, std::uint64_t seed) {
  const auto& declared = bound.rules->circuits[id];
  const auto& circuit = bound.circuits[id];
  const auto share_of = [&](const std::vector<runtime::BoundPair>& pairs, const runtime::CircuitRuns& runs,
                            const std::vector<double>& m) {
    return ratio_of_means(above_edgeless(pairs, runs, m), above_edgeless(pairs, runs, runs.clean), kReportedConfidence,
                          seed);
  };
  const auto recovered = [&](const std::vector<double>& m) { return share_of(circuit.measured(), evidence, m); };
  CircuitResult result;
  result.name = declared.name;
  result.annotations = declared.annotations;
  result.where = std::move(where);
  result.measure = declared.measure.text;
  result.method = dsl::circuit_method_name(declared.method.method);
  const bool latents = declared.method.of_latents();
  if (declared.method.method == dsl::CircuitMethod::eap_ig) {
    result.parameters = {{"steps", std::to_string(declared.method.steps)},
                         {"integrated", latents ? "each autoencoder's latents and error term" : "inputs"}};
  } else if (declared.method.method == dsl::CircuitMethod::exact) {
    result.parameters = {{"budget", std::to_string(declared.method.budget)}};
  }
  if (latents) {
    std::vector<std::string> folders;
    for (const auto& each : declared.method.autoencoders) folders.push_back(each.written);
    result.parameters.emplace_back("sae", joined(folders));
    result.ablation = "resample: latents and error terms outside are the corrupt prompt's";
  }
  const bool nodes = declared.keep.nodes;
  const bool held = !circuit.held.empty();
  result.selection =
      "the " + std::to_string(circuit.kept) + (nodes ? " nodes" : " edges") +
      (declared.method.greedy ? " grown from the logits, each of largest |score| by then," : " of largest |score|") +
      (held ? " on other pairs than those measured" : " on the pairs measured") +
      (nodes && !latents ? ", with all edges between them, the embedding and the logits" : "");
  result.pairs = std::ssize(circuit.measured());
  result.model_edges = evidence.model_edges;
  if (nodes) result.model_nodes = evidence.model_nodes;
  result.pruned = evidence.pruned;
  result.m_clean = mean(evidence.clean);
  result.m_corrupt = mean(evidence.edgeless);
  result.m_circuit = mean(evidence.circuit);
  result.m_without = mean(evidence.without);
  result.faithfulness = recovered(evidence.circuit);
  result.completeness = recovered(evidence.without);
  for (const auto& point : evidence.curve) {
    CircuitCurvePoint& shown = result.curve.emplace_back();
    shown.share = point.share;
    (nodes ? shown.nodes : shown.edges) = point.count;
    shown.faithfulness = recovered(point.m).value;
  }
  result.cpr = area(result.curve, [](double f) { return f; });
  result.cmd = area(result.curve, [](double f) { return std::abs(1 - f); });
  for (const auto& edge : evidence.edges)
    result.edges.push_back({edge.from, edge.to, edge.score, std::nullopt, std::nullopt});
  for (const auto& node : evidence.nodes) result.nodes.push_back({node.name, node.score, std::nullopt, std::nullopt});
  // What is told of parts is told of nodes where those are kept.
  const auto of_parts = [&](const std::vector<double>& values, auto CircuitEdgeResult::*of_edge,
                            auto CircuitNodeResult::*of_node) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (nodes) {
        result.nodes[i].*of_node = values[i];
      } else {
        result.edges[i].*of_edge = values[i];
      }
    }
  };
  if (held) {
    const auto& on = *evidence.found_on;
    result.found_on = {std::ssize(circuit.pairs), share_of(circuit.pairs, on, on.circuit),
                       share_of(circuit.pairs, on, on.without)};
  }
  if (const auto& found = evidence.minimality) {
    result.minimality = {found->needed, found->threshold, found->compared};
    of_parts(found->drops, &CircuitEdgeResult::drop, &CircuitNodeResult::drop);
  }
  if (const auto& found = evidence.stability) {
    result.stability = {found->draws, found->overlap, {found->low, found->high}, found->ablations, found->lines};
    of_parts(found->inclusion, &CircuitEdgeResult::inclusion, &CircuitNodeResult::inclusion);
  }
  result.seconds = evidence.seconds;
  return result;
}

bool has_latents(const CircuitResult& circuit) {
  return std::any_of(circuit.parameters.begin(), circuit.parameters.end(),
                     [](const auto& parameter) { return parameter.first == "sae"; });
}

LatentName latent_name(const std::string& node) {
  for (const char* part : {" latent ", " error"}) {
    if (const auto at = node.rfind(part); at != std::string::npos) return {node.substr(0, at), node.substr(at + 1)};
  }
  return {"", node};
}

std::vector<std::pair<std::string, std::string>> circuit_facts(const CircuitResult& circuit) {
  const auto share = [](const Estimate& estimate) {
    std::string text = number_text(estimate.value, true);
    if (estimate.interval)
      text +=
          " [" + number_text(estimate.interval->low, true) + ", " + number_text(estimate.interval->high, true) + "]";
    return text;
  };
  std::vector<std::pair<std::string, std::string>> facts = {
      {"measure", circuit.measure + " after " + counted(circuit.pairs, "pair")},
      {"method", circuit_method_text(circuit)}};
  std::string edges = grouped(std::ssize(circuit.edges)) + " of " + grouped(circuit.model_edges);
  if (has_latents(circuit)) {
    std::string nodes =
        grouped(std::ssize(circuit.nodes)) + " of " + grouped(*circuit.model_nodes) + " latents and error terms";
    if (circuit.pruned > 0) nodes += " (no more change m)";
    facts.emplace_back("nodes", std::move(nodes));
  } else if (circuit.model_nodes) {
    facts.emplace_back("nodes", grouped(std::ssize(circuit.nodes)) + " of " + grouped(*circuit.model_nodes) +
                                    " attention heads and MLPs");
    edges += ", all between these nodes, the embedding and the logits";
  } else {
    edges += " (" + grouped(circuit.pruned) + " more were strong but on no way from the embedding to the logits)";
  }
  if (!has_latents(circuit)) facts.emplace_back("edges", std::move(edges));
  const std::vector<std::pair<std::string, std::string>> carried = {
      {"m", "clean " + number_text(circuit.m_clean) + ", corrupt " + number_text(circuit.m_corrupt) + ", circuit " +
                number_text(circuit.m_circuit) + ", without it " + number_text(circuit.m_without)},
      {"faithful", share(circuit.faithfulness) + " of clean less corrupt is carried by the circuit alone"},
      {"complete", share(circuit.completeness) + " of it is left where the circuit is removed"}};
  facts.insert(facts.end(), carried.begin(), carried.end());
  if (const auto& found = circuit.found_on) {
    facts.emplace_back("found on", counted(found->pairs, "other pair") + ", of which it carries " +
                                       share(found->faithfulness) + ", and " + share(found->completeness) +
                                       " is left without it");
  }
  const std::string parts = circuit.model_nodes ? "nodes" : "edges";
  if (const auto& found = circuit.minimality) {
    facts.emplace_back("minimal", number_text(found->needed, true) + " of its " + parts +
                                      " change m by more, each left out alone, than 95 % of " +
                                      grouped(found->compared) + " from outside do where they are added (" +
                                      number_text(found->threshold) + ")");
  }
  if (const auto& found = circuit.stability) {
    std::string text = number_text(found->overlap, true) + " of its " + parts + " are found again [" +
                       number_text(found->middle.low, true) + ", " + number_text(found->middle.high, true) + "] over " +
                       grouped(found->draws) + " draws of the pairs";
    for (const auto& [ablation, shared] : found->ablations)
      text += "; " + number_text(shared, true) + " by " + ablation + " ablation";
    for (std::size_t i = 0; i < found->lines.size(); ++i)
      text += "; " + number_text(found->lines[i], true) + " on pairs " + std::to_string(i + 1) + " alone";
    facts.emplace_back("stable", std::move(text));
  }
  for (const auto& other : circuit.overlaps) {
    facts.emplace_back("overlap", number_text(other.share, true) + " of the " + other.parts + " that it or " +
                                      other.circuit + " has are in both (" + grouped(other.both) + " of " +
                                      grouped(other.either) + "; by chance " + number_text(other.by_chance, true) +
                                      ")");
  }
  if (!circuit.curve.empty()) {
    std::vector<std::string> curve;
    for (const auto& point : circuit.curve)
      curve.push_back(number_text(point.share, true) + ": " + number_text(point.faithfulness, true));
    facts.emplace_back("curve", "faithfulness by share of " + std::string(circuit.model_nodes ? "nodes: " : "edges: ") +
                                    joined(curve));
    facts.emplace_back("areas", "CPR " + number_text(circuit.cpr) + ", CMD " + number_text(circuit.cmd));
  }
  if (circuit.seconds > 0) facts.emplace_back("time", number_text(circuit.seconds) + " s");
  return facts;
}

void add_circuit(TextPage& page, const CircuitResult& circuit, std::size_t shown) {
  page.line(2, {{circuit.name, Style::strong}, {circuit.where, Style::dim}});
  for (const auto& [label, text] : circuit_facts(circuit)) page.labelled(4, label, {text});
  std::vector<std::vector<Cell>> rows;
  const bool nodes = circuit.model_nodes.has_value();
  const std::size_t all = nodes ? circuit.nodes.size() : circuit.edges.size();
  for (std::size_t i = 0; i < std::min(all, shown); ++i) {
    if (nodes) {
      rows.push_back({{circuit.nodes[i].name}, {number_text(circuit.nodes[i].score)}});
    } else {
      const CircuitEdgeResult& edge = circuit.edges[i];
      rows.push_back({{edge.from}, {edge.to}, {number_text(*edge.score)}});
    }
  }
  page.table(
      4,
      nodes ? std::vector<Column>{{"node"}, {"score", true}} : std::vector<Column>{{"from"}, {"to"}, {"score", true}},
      std::move(rows));
  if (shown < all && shown > 0) {
    page.line(4, {{"and " + grouped(static_cast<std::int64_t>(all - shown)) + " weaker ones", Style::dim}});
  }
}

std::string circuits_text(const std::vector<CircuitResult>& circuits, std::size_t shown, std::size_t columns,
                          bool colour) {
  TextPage page(columns, colour);
  for (const auto& circuit : circuits) add_circuit(page, circuit, shown);
  return page.take();
}

namespace {

/// The nodes of each site in a box, with an arrow each to what they measure by.
std::string latents_dot(const CircuitResult& circuit, double most) {
  std::map<std::string, std::string> sites;
  std::string arrows;
  for (const auto& node : circuit.nodes) {
    const LatentName name = latent_name(node.name);
    const std::string score = drawn_score(node.score, most);
    sites[name.site] += "    " + dot_string(node.name) + " [label=" + dot_string(name.part) + ", " + score + "];\n";
    arrows += "  " + dot_string(node.name) + " -> \"logits\" [" + score + "];\n";
  }
  std::string dot;
  std::size_t number = 0;
  for (const auto& [site, nodes] : sites) {
    dot += "  subgraph \"cluster_" + std::to_string(number++) + "\" {\n    label=" + dot_string(site) + ";\n" + nodes +
           "  }\n";
  }
  return dot + arrows;
}

}  // namespace

std::string circuits_dot(const std::vector<CircuitResult>& circuits) {
  std::string dot;
  for (const auto& circuit : circuits) {
    double most = 0, most_of_nodes = 0;
    for (const auto& edge : circuit.edges) most = std::max(most, std::abs(edge.score.value_or(0)));
    for (const auto& node : circuit.nodes) most_of_nodes = std::max(most_of_nodes, std::abs(node.score));
    dot += "digraph " + dot_string(circuit.name) + " {\n";
    dot += "  label=" +
           dot_string(circuit.name + ": " + circuit.measure + ", faithfulness " +
                      number_text(circuit.faithfulness.value, true) + " with " +
                      (has_latents(circuit) ? counted(std::ssize(circuit.nodes), "node")
                                            : counted(std::ssize(circuit.edges), "edge"))) +
           ";\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\"];\n";
    if (has_latents(circuit)) {
      dot += latents_dot(circuit, most_of_nodes) + "}\n";
      continue;
    }
    for (const auto& node : circuit.nodes)
      dot += "  " + dot_string(node.name) + " [" + drawn_score(node.score, most_of_nodes) + "];\n";
    for (const auto& edge : circuit.edges) {
      const auto [node, input] = node_and_input(edge.to);
      std::vector<std::string> drawn;
      if (edge.score) drawn.push_back(drawn_score(*edge.score, most));
      if (!input.empty()) drawn.push_back("label=\"" + input + "\"");
      dot += "  " + dot_string(edge.from) + " -> " + dot_string(node);
      dot += drawn.empty() ? ";\n" : " [" + joined(drawn) + "];\n";
    }
    dot += "}\n";
  }
  return dot;
}

}  // namespace proviso::audit
