#pragma once

#include <string>
#include <utility>
#include <vector>

#include "audit/report.hpp"
#include "audit/statistics.hpp"
#include "audit/text_page.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/circuits/find_circuit.hpp"

namespace proviso::audit {

/// By pair: m less that of the graph without edges, which is the corrupt prompt's where corrupt activations replace
/// others.
std::vector<Sample> above_edgeless(const std::vector<runtime::BoundPair>& pairs, const runtime::CircuitRuns& runs,
                                   const std::vector<double>& m);

/// What was found, with every parameter that was used.
CircuitResult circuit_result(const runtime::BoundRules& bound, dsl::CircuitId id,
                             const runtime::CircuitEvidence& evidence, std::string where, std::uint64_t seed);

/// Whether its nodes are latents and error terms of autoencoders, between which there are no edges.
bool has_latents(const CircuitResult& circuit);
/// "resid_post[15] latent 812", "resid_post[15] error": where a node is, and which one there.
struct LatentName {
  std::string site, part;
};
LatentName latent_name(const std::string& node);

/// What it carries and what is left without it, each with what it means: label and text.
std::vector<std::pair<std::string, std::string>> circuit_facts(const CircuitResult& circuit);
/// Puts a circuit's numbers on a page, its curve and its `shown` strongest edges, or nodes where those are kept.
void add_circuit(TextPage& page, const CircuitResult& circuit, std::size_t shown);
/// For people, at most `columns` wide.
std::string circuits_text(const std::vector<CircuitResult>& circuits, std::size_t shown, std::size_t columns,
                          bool colour);
/// Graphviz, a graph each: layers from left to right, edges as wide as they are strong (and nodes' borders, where nodes
/// are kept), those that raise m blue and those that lower it red. Of latents an arrow each tells what it does to m.
std::string circuits_dot(const std::vector<CircuitResult>& circuits);
/// One self-contained page without scripts: each circuit as a drawing, whose nodes show their edges alone where they
/// are pointed at or reached with the keyboard, and as tables.
std::string circuits_html(const std::vector<CircuitResult>& circuits);
/// The drawing alone, to stand on another page as its `number`th.
std::string circuit_drawing(const CircuitResult& circuit, std::size_t number);
/// `circuits` as in a report, alone.
std::string circuits_yaml(const std::vector<CircuitResult>& circuits);
std::string circuits_json(const std::vector<CircuitResult>& circuits);

}  // namespace proviso::audit
