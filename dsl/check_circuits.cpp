// Circuits: the pairs they are found on, what they carry, by which method, and how much is kept.

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/format.hpp"

namespace proviso::dsl {
namespace {

/// What every method takes, beside its own.
constexpr Parameter kSelect{"select", true, false}, kAutoencoders{"sae", true, false};

constexpr CircuitMethod kMethods[] = {CircuitMethod::eap, CircuitMethod::eap_ig, CircuitMethod::exact};

}  // namespace

void Checker::define_circuit(const Work<ast::Circuit>& work) {
  module_ = work.module;
  const ast::Circuit& node = work.node();
  CircuitDecl circuit = rule_set_.circuits[work.id];
  // `parse` has said where a measure or a method is missing.
  const auto measured = node.measure ? circuit_measure(*node.measure) : std::nullopt;
  if (measured) circuit.measure = *measured;
  for (const ast::Pair& pair : node.pairs) {
    auto read = circuit_pairs(pair);
    if (!read) continue;
    read->held = pair.held;
    circuit.pairs.push_back(*read);
    if (!measured || measured->kind != CircuitMeasure::Kind::answer_diff) continue;
    for (const PromptsId side : {read->clean, read->corrupt}) {
      if (!require_answers(side, measured->span, "logit_diff")) break;
    }
  }
  const auto called = node.method ? circuit_method(node.method->method) : std::nullopt;
  if (called) circuit.method = *called;
  if (node.keep) {
    if (const auto kept = circuit_keep(*node.keep)) circuit.keep = *kept;
    if (circuit.method.greedy && circuit.keep.nodes) {
      report(Code::wrong_argument, node.method->method.span,
             "`select: greedy` grows a circuit edge by edge, and this one keeps nodes",
             {circuit.method.of_latents() ? "leave `select` out" : "leave `select` out, or keep edges: keep 1% edges"});
    }
    if (circuit.method.of_latents() && !circuit.keep.nodes && circuit.keep.amount > 0) {
      report(Code::circuit_of_latents, circuit.keep.span,
             "with `sae:` a circuit keeps latents and error terms, and between those no edges are told apart",
             {"keep nodes: keep 20 nodes, keep 5% nodes", "or leave `sae` out"});
    }
  } else {
    report(Code::missing_statement, node.name.span, "`" + node.name.text + "` does not say how many edges it keeps",
           {"write `keep 200 edges`, or a share of the model's: `keep 1% edges`, `keep 10% nodes`"});
  }
  // A pair that names what could not be read has been left out without a word.
  if (!measured || !called || circuit.pairs.size() < node.pairs.size()) unsound_.circuits.insert(work.id);
  rule_set_.circuits[work.id] = std::move(circuit);
}

std::optional<CircuitPairs> Checker::circuit_pairs(const ast::Pair& pair) {
  const auto side = [&](const auto& written) -> std::optional<PromptsId> {
    if (const auto* text = std::get_if<ast::String>(&written)) {
      return anonymous({{{.text = *text, .answers = {}, .span = text->span}}, text->span});
    }
    if (const auto* list = std::get_if<ast::PromptList>(&written)) return anonymous(*list);
    return prompts(std::get<ast::Name>(written));
  };
  const auto clean = side(pair.clean), corrupt = side(pair.corrupt);
  if (!clean || !corrupt) return std::nullopt;
  if (*clean == *corrupt) {
    report(Code::same_sides, pair.span, "the clean and the corrupt prompts are the same, so nothing is corrupted",
           {"name prompts that differ in what the circuit is to carry"});
    return std::nullopt;
  }
  return CircuitPairs{*clean, *corrupt, pair.span, false};
}

std::optional<CircuitMeasure> Checker::circuit_measure(const ast::Measure& measure) {
  const ast::Call& call = measure.metric;
  CircuitMeasure result;
  result.text = canonical_text(call);
  result.span = call.span;
  if (call.name.text == "probability") {
    const auto given = arguments(call, {{"the text of a token"}});
    const auto token = given ? text(*given->at(0), "this token") : std::nullopt;
    if (!token) return std::nullopt;
    result.kind = CircuitMeasure::Kind::probability;
    result.a = *token;
    result.a_span = given->at(0)->span;
    return result;
  }
  if (call.name.text != "logit_diff") {
    report(Code::circuit_measure, call.name.span, "no circuit is found for `" + call.name.text + "`",
           {"measure logit_diff(\" a\", \" b\"), logit_diff (of each pair's expected continuations) or "
            "probability(\" a\")"});
    return std::nullopt;
  }
  if (call.arguments.empty()) {
    result.kind = CircuitMeasure::Kind::answer_diff;
    return result;
  }
  const auto given = arguments(call, {{"the text of a token"}, {"the text of another token"}});
  if (!given) return std::nullopt;
  const auto a = text(*given->at(0), "this token");
  const auto b = text(*given->at(1), "this token");
  if (!a || !b) return std::nullopt;
  if (*a == *b) {
    report(Code::same_sides, given->at(1)->span, "a token's logit less itself is zero", {"name two different tokens"});
    return std::nullopt;
  }
  result.a = *a;
  result.b = *b;
  result.a_span = given->at(0)->span;
  result.b_span = given->at(1)->span;
  return result;
}

std::optional<CircuitMethodCall> Checker::circuit_method(const ast::Call& call) {
  const std::string& name = call.name.text;
  CircuitMethodCall result;
  result.span = call.span;
  std::vector<std::string> names;
  for (const CircuitMethod each : kMethods) names.emplace_back(circuit_method_name(each));
  const auto known = std::find(names.begin(), names.end(), name);
  if (known == names.end()) {
    auto fixes = spelling_fix(call.name.span, name, names);
    report(Code::unknown_method, call.name.span, "no circuit is found by `" + name + "`",
           {fixes.empty() ? "the methods are eap, eap_ig(steps: N) and exact(budget: N)"
                          : "did you mean `" + fixes.front().replacement + "`?"})
        .fixes = std::move(fixes);
    return std::nullopt;
  }
  result.method = kMethods[known - names.begin()];
  constexpr Parameter kSteps{"steps", true, false}, kBudget{"budget", true, false};
  const auto given = result.method == CircuitMethod::eap      ? arguments(call, {kSelect, kAutoencoders})
                     : result.method == CircuitMethod::eap_ig ? arguments(call, {kSelect, kAutoencoders, kSteps})
                                                              : arguments(call, {kSelect, kAutoencoders, kBudget});
  if (!given) return std::nullopt;
  bool sound = selection(given->at(0), result);
  sound &= autoencoders(given->at(1), result);
  if (const ast::Argument* own = given->size() > 2 ? given->at(2) : nullptr) {
    const bool steps = result.method == CircuitMethod::eap_ig;
    const auto value = whole(*own, steps ? "`steps`" : "`budget`", {.low = 1, .high = steps ? 1000 : 1e8});
    sound &= value.has_value();
    if (value) (steps ? result.steps : result.budget) = *value;
  }
  if (!sound) return std::nullopt;
  return result;
}

bool Checker::selection(const ast::Argument* argument, CircuitMethodCall& call) {
  if (argument == nullptr) return true;
  const auto chosen = word(*argument, {"strongest", "greedy"});
  if (chosen) call.greedy = *chosen == "greedy";
  return chosen.has_value();
}

/// `sae: "sae/layer15"`, or a list of such.
bool Checker::autoencoders(const ast::Argument* argument, CircuitMethodCall& call) {
  if (argument == nullptr) return true;
  const auto add = [&](const ast::String& written) {
    const auto folder = path(written);
    if (folder) call.autoencoders.push_back({*folder, written.value, written.span});
    return folder.has_value();
  };
  if (const auto* one = std::get_if<ast::String>(&argument->value)) return add(*one);
  const auto* list = std::get_if<ast::PromptList>(&argument->value);
  bool sound =
      list != nullptr && !list->items.empty() &&
      std::all_of(list->items.begin(), list->items.end(), [](const auto& item) { return item.answers.empty(); });
  if (!sound) {
    wrong_argument(*argument, "the folder of a sparse autoencoder, or a list of such folders,");
    return false;
  }
  for (const ast::PromptItem& item : list->items) sound &= add(item.text);
  return sound;
}

bool Checker::refused_latents(CircuitId circuit, Span span, const std::string& what, std::string cure) {
  const CircuitDecl& declared = rule_set_.circuits[circuit];
  if (!declared.method.of_latents()) return false;
  // What another file names by its own folder is no path of this one.
  const std::string folder = declared.imported ? "FOLDER" : declared.method.autoencoders.front().written;
  if (cure.empty())
    cure =
        "suppress latents themselves: feature f = latent(I, sae: \"" + folder + "\") token all  rule R { suppress f }";
  report(Code::circuit_of_latents, span, what, {std::move(cure)})
      .related.push_back({declared.method.span, "its nodes are latents of \"" +
                                                    declared.method.autoencoders.front().written + "\"" +
                                                    (declared.method.autoencoders.size() > 1 ? " and others" : "")});
  return true;
}

std::optional<CircuitKeep> Checker::circuit_keep(const ast::Keep& keep) {
  const std::string& unit = keep.unit.text;  // the grammar lets `edges` and `nodes` through
  CircuitKeep result{
      .amount = keep.amount.value, .share = keep.amount.percent, .nodes = unit == "nodes", .span = keep.span};
  const bool sound = result.share
                         ? number(keep.amount, "the share of " + unit + " kept", {.low = 0, .high = 1}).has_value()
                         : whole(keep.amount, "the number of " + unit + " kept", {.low = 1, .high = 1e12}).has_value();
  if (!sound) return std::nullopt;
  if (result.amount == 0) {
    report(Code::out_of_range, keep.amount.span, "a circuit of no " + unit + " carries nothing",
           {"keep some: keep 1% " + unit});
    return std::nullopt;
  }
  return result;
}

/// `overlap(C, D)`
std::optional<Metric> Checker::of_circuits(const ast::Call& call) {
  const auto given = arguments(call, {{"a circuit's name"}, {"another circuit's name"}});
  if (!given) return std::nullopt;
  metric::Overlap overlap;
  for (std::size_t i = 0; i < 2; ++i) {
    const auto* name = std::get_if<ast::Name>(&given->at(i)->value);
    if (name == nullptr) {
      wrong_argument(*given->at(i), "a circuit's name");
      return std::nullopt;
    }
    const auto circuit = find_id(SymbolKind::circuit, *name);
    if (!circuit) return std::nullopt;
    (i == 0 ? overlap.first : overlap.second) = *circuit;
  }
  if (overlap.first == overlap.second) {
    report(Code::same_sides, given->at(1)->span, "a circuit shares all its parts with itself",
           {"name two different circuits"});
    return std::nullopt;
  }
  const auto folders = [&](CircuitId id) {
    std::set<std::string> all;
    for (const auto& each : rule_set_.circuits[id].method.autoencoders) all.insert(each.folder);
    return all;
  };
  if (folders(overlap.first) != folders(overlap.second)) {
    const CircuitId of_latents = folders(overlap.second).empty() ? overlap.first : overlap.second;
    refused_latents(of_latents, call.span, "the nodes of one of these circuits can be no part of the other",
                    "compare circuits of the same autoencoders, or circuits of heads and MLPs");
    return std::nullopt;
  }
  return Metric{overlap, canonical_text(call), call.span};
}

/// What is a property of a circuit as it was found does not change with what a check is under.
void Checker::check_circuit_as_found(const ast::Check& node, const CheckDecl& check, const Expectation& expectation) {
  const auto& measured = expectation.metric.node;
  if (node.under.empty() ||
      !(std::holds_alternative<metric::Minimality>(measured) || std::holds_alternative<metric::Stability>(measured) ||
        std::holds_alternative<metric::Overlap>(measured))) {
    return;
  }
  report(Code::circuit_as_found, expectation.metric.span,
         "`" + expectation.metric.text + "` is of circuits as they were found, on the model as loaded",
         {"measure it in a check that is under nothing; faithfulness and completeness can be measured under rules"});
}

/// `faithfulness(C)`, `completeness(C)`, `minimality(C)`, `stability(C)`
std::optional<Metric> Checker::of_circuit(const ast::Call& call) {
  const auto given = arguments(call, {{"a circuit's name"}});
  if (!given) return std::nullopt;
  const auto* name = std::get_if<ast::Name>(&given->at(0)->value);
  if (name == nullptr) {
    wrong_argument(*given->at(0), "a circuit's name");
    return std::nullopt;
  }
  const auto circuit = find_id(SymbolKind::circuit, *name);
  if (!circuit) return std::nullopt;
  if (call.name.text == "faithfulness") {
    return Metric{metric::Faithfulness{*circuit}, canonical_text(call), call.span};
  }
  if (call.name.text == "minimality") return Metric{metric::Minimality{*circuit}, canonical_text(call), call.span};
  if (call.name.text == "stability") return Metric{metric::Stability{*circuit}, canonical_text(call), call.span};
  return Metric{metric::Completeness{*circuit}, canonical_text(call), call.span};
}

}  // namespace proviso::dsl
