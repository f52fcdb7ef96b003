// Edits: what is changed, by which method, and what the edit must achieve.

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/record_file.hpp"

namespace proviso::dsl {
namespace {

struct NumberParameter {
  EditMethod method;
  std::string_view name;
  Limits limits;
  bool whole;
};
constexpr NumberParameter kNumbers[] = {
#define PROVISO_METHOD_NUMBER(method, parameter, low, high, whole) {EditMethod::method, #parameter, {low, high}, whole},
#include "dsl/edit_methods.def"
#define PROVISO_METHOD_NUMBER(method, parameter, low, high, whole) {EditMethod::method, #parameter, {low, high}, whole},
#include "dsl/edit_parameters.def"
};

struct NamedParameter {
  EditMethod method;
  std::string_view name;
};
constexpr NamedParameter kPaths[] = {
#define PROVISO_METHOD_PATH(method, parameter) {EditMethod::method, #parameter},
#include "dsl/edit_methods.def"
};
constexpr NamedParameter kLayers[] = {
#define PROVISO_METHOD_LAYERS(method, parameter) {EditMethod::method, #parameter},
#include "dsl/edit_methods.def"
};

struct WordParameter {
  EditMethod method;
  std::string_view name;
  std::array<std::string_view, 2> words;
};
constexpr WordParameter kWords[] = {
#define PROVISO_METHOD_WORD(method, parameter, first, second) {EditMethod::method, #parameter, {#first, #second}},
#include "dsl/edit_parameters.def"
};

template <class Parameter, std::size_t N>
const Parameter* parameter_named(const Parameter (&all)[N], EditMethod method, std::string_view name) {
  const auto found = std::find_if(std::begin(all), std::end(all),
                                  [&](const Parameter& each) { return each.method == method && each.name == name; });
  return found == std::end(all) ? nullptr : found;
}

std::vector<std::string> parameter_names(EditMethod method) {
  std::vector<std::string> names;
  if (method == EditMethod::rome) names = {"layer"};
  for (const WordParameter& each : kWords) {
    if (each.method == method) names.emplace_back(each.name);
  }
  for (const NumberParameter& each : kNumbers) {
    if (each.method == method) names.emplace_back(each.name);
  }
  for (const auto& named : {std::span<const NamedParameter>(kPaths), std::span<const NamedParameter>(kLayers)}) {
    for (const NamedParameter& each : named) {
      if (each.method == method) names.emplace_back(each.name);
    }
  }
  return names;
}

/// The sites that one linear map writes, so that a direction can be taken out of its weights.
bool has_linear_writer(SiteKind kind) {
  return kind == SiteKind::embed || kind == SiteKind::attn_out || kind == SiteKind::mlp_out;
}

/// `layer: auto`
bool is_auto(const ast::Argument& argument) {
  const auto* name = std::get_if<ast::Name>(&argument.value);
  return name != nullptr && name->text == "auto";
}

/// A call to start from: "rome(layer: 5)".
std::string sample_call(EditMethod method) {
  const auto subject = traits(method).subject;
  const bool several = parameter_named(kLayers, method, "layers") != nullptr;
  const char* argument = subject == EditSubject::facts       ? several ? "layers: 4..8" : "layer: 5"
                         : subject == EditSubject::direction ? "strength: 80%"
                         : subject == EditSubject::circuit   ? "to: mean"
                                                             : "held_out: 25%";
  return std::string(traits(method).name) + "(" + argument + ")";
}

}  // namespace

void Checker::define_edit(const Work<ast::Edit>& work) {
  module_ = work.module;
  const ast::Edit& node = work.node();
  EditDecl edit = rule_set_.edits[work.id];
  const auto called = node.method ? method(node.method->method) : std::nullopt;
  if (called) edit.method = *called;

  const auto suits = [&](EditSubject subject, Span span, const std::string& change) {
    if (!called || traits(called->method).subject == subject) return;
    report(Code::method_mismatch, span, "`" + node.method->method.name.text + "` does not " + change,
           {subject == EditSubject::facts
                ? "facts are written by rome, memit, emmet, alphaedit or ft: using rome(layer: 5)"
            : subject == EditSubject::direction ? "directions are removed by project: using project"
            : subject == EditSubject::circuit   ? "circuits are removed by ablate: using ablate"
                                                : "labels are erased by leace: using leace"});
  };
  for (const auto& change : node.changes) {
    if (const auto* one = std::get_if<ast::Fact>(&change)) {
      suits(EditSubject::facts, one->span, "write facts");
      if (auto read = fact(*one)) edit.changes.emplace_back(std::move(*read));
    } else if (const auto* removed = std::get_if<ast::Remove>(&change); removed != nullptr && removed->circuit) {
      suits(EditSubject::circuit, removed->span, "remove circuits");
      if (auto read = remove_circuit(*removed)) edit.changes.emplace_back(*read);
    } else if (const auto* direction = std::get_if<ast::Remove>(&change)) {
      suits(EditSubject::direction, direction->span, "remove directions");
      if (auto read = remove(*direction)) edit.changes.emplace_back(std::move(*read));
    } else if (const auto* facts = std::get_if<ast::FactsFrom>(&change)) {
      suits(EditSubject::facts, facts->span, "write facts");
      if (auto read = fact_file(*facts)) edit.changes.emplace_back(std::move(*read));
    } else {
      const auto& labels = std::get<ast::Erase>(change);
      suits(EditSubject::labels, labels.span, "erase labels");
      if (auto read = erase(labels)) edit.changes.emplace_back(std::move(*read));
    }
  }

  edit_ = &node;
  edit_method_ = edit.method;
  for (const ast::Expectation& expected : node.expectations) {
    if (auto read = expectation(expected)) edit.expectations.push_back(std::move(*read));
  }
  edit_ = nullptr;
  // A part that names what could not be read has been left out without a word.
  if (!called || edit.changes.size() < node.changes.size()) unsound_.edits.insert(work.id);
  rule_set_.edits[work.id] = std::move(edit);
}

std::optional<Fact> Checker::fact(const ast::Fact& node) {
  const auto subject = non_empty(node.subject, "the subject");
  const auto to = non_empty(node.to, "the new continuation");
  const auto from = node.from ? non_empty(*node.from, "the old continuation") : std::nullopt;
  bool sound = subject && to && (from || !node.from);
  if (from && to && *from == *to) {
    report(Code::same_sides, node.to.span, "the fact is changed to what it already is",
           {"name the new continuation after `to`, the present one after `from`"});
    sound = false;
  }
  Fact fact;
  fact.subject = node.subject.value;
  fact.from = from;
  fact.to = node.to.value;
  fact.span = node.span;
  for (const auto& part : node.in.parts) {
    const auto* literal = std::get_if<std::string>(&part);
    fact.prompt_template += literal != nullptr ? *literal : "{}";
    // Later stages find the subject's place by its braces.
    if (literal == nullptr || literal->find("{}") == std::string::npos) continue;
    report(Code::template_slot, node.in.span, "beside the subject's place this template holds the text `{}`",
           {"a fact's template holds `{}` once"});
    sound = false;
  }
  if (!sound) return std::nullopt;
  return fact;
}

std::optional<FactFile> Checker::fact_file(const ast::FactsFrom& node) {
  bool sound = true;
  for (const auto* option : {&node.file.field, &node.file.cluster}) {
    if (!*option) continue;
    report(Code::prompt_file_option, (*option)->span, "facts are read by their records' own fields",
           {"`answer` names the field of the new continuation, `take` and `seed` choose among the records"});
    sound = false;
  }
  const auto file = prompt_file(node.file);
  if (file && record_format(node.file.path.value) == RecordFormat::text) {
    report(Code::prompt_file_kind, node.file.path.span, "a text file has no fields to read facts from",
           {"facts are read from .jsonl, .json and .csv"});
    sound = false;
  }
  if (!file || !sound) return std::nullopt;
  return FactFile{*file, node.span};
}

std::optional<Remove> Checker::remove(const ast::Remove& node) {
  const auto id = find_id(SymbolKind::feature, node.feature);
  const bool sound = linear_writers(node.sites, "remove " + node.feature.text);
  const FeatureDecl* feature = id ? sound_feature(*id) : nullptr;
  if (feature == nullptr) return std::nullopt;
  if (std::holds_alternative<Latent>(feature->constructor)) {
    report(Code::latent_in_weights, node.feature.span,
           "no weights can hold what is done to latent `" + node.feature.text + "`: it depends on the encoder",
           {"suppress it in a rule: rule R { suppress " + node.feature.text + " }"});
    return std::nullopt;
  }
  if (!sound || !check_widths(node.feature, *feature, node.sites)) return std::nullopt;
  return Remove{*id, {node.sites.begin(), node.sites.end()}, node.span};
}

std::optional<RemoveCircuit> Checker::remove_circuit(const ast::Remove& node) {
  const auto id = find_id(SymbolKind::circuit, node.feature);
  if (!id) return std::nullopt;
  if (!rule_set_.circuits[*id].keep.nodes) {
    report(Code::circuit_of_edges, node.feature.span,
           "no weights can hold what is done to the edges of `" + node.feature.text +
               "`: all that reads the stream reads one sum",
           {"let the circuit keep nodes, whose maps can be changed: keep 5% nodes",
            "or take its edges out in a rule: rule R { suppress circuit " + node.feature.text + " }"})
        .related.push_back({rule_set_.circuits[*id].span, "it keeps edges"});
    return std::nullopt;
  }
  if (refused_latents(*id, node.feature.span,
                      "no weights can hold what is done to the latents of `" + node.feature.text +
                          "`: no one linear map writes what they carry"))
    return std::nullopt;
  return RemoveCircuit{*id, node.span};
}

bool Checker::linear_writers(const std::vector<ast::Site>& sites, const std::string& sentence) {
  bool sound = true;
  for (const ast::Site& site : sites) {
    if (has_linear_writer(site.kind)) continue;
    report(Code::no_linear_writer, site.span,
           to_string(site) + " is not written by one linear map, so no weights hold what is removed there",
           {"name the writers: " + sentence + " at mlp_out[*], attn_out[*], embed"});
    sound = false;
  }
  return sound;
}

std::optional<Erase> Checker::erase(const ast::Erase& node) {
  Erase erase;
  erase.sites = {node.sites.begin(), node.sites.end()};
  erase.span = node.span;
  bool sound = linear_writers(node.sites, "erase [P, Q]");
  const auto add = [&](const ast::PromptsRef& reference) {
    const auto id = prompts(reference);
    if (id) erase.sets.push_back(*id);
    sound &= id.has_value();
  };
  if (const auto* classes = std::get_if<std::vector<ast::PromptsRef>>(&node.labels)) {
    for (const ast::PromptsRef& each : *classes) add(each);
    if (classes->size() < 2) {
      report(Code::too_few_classes, node.span, "an erasure needs two classes or more to tell apart",
             {"name a set for each: erase [she, he]"});
      sound = false;
    }
  } else {
    erase.by_answer = true;
    add(std::get<ast::PromptsRef>(node.labels));
    sound = sound && require_answers(erase.sets.front(), node.span, "erase");
  }
  if (!sound) return std::nullopt;
  return erase;
}

std::optional<IndexSet> Checker::layers(const ast::Argument& argument) {
  if (const auto* set = std::get_if<ast::Indices>(&argument.value)) return set->set;
  if (std::holds_alternative<ast::Number>(argument.value)) {
    const auto layer = whole(argument, "a layer", {.low = 0});
    if (!layer) return std::nullopt;
    return IndexSet{.ranges = {{*layer, *layer}}};
  }
  wrong_argument(argument, "layers, as `4..8`,");
  return std::nullopt;
}

std::optional<MethodCall> Checker::method(const ast::Call& call) {
  const std::string& name = call.name.text;
  MethodCall result;
  result.span = call.span;
  const auto known = std::ranges::find(kEditMethods, std::string_view(name), &EditMethodTraits::name);
  if (known == std::end(kEditMethods)) {
    std::vector<std::string> names;
    std::string all;
    for (const EditMethodTraits& each : kEditMethods) {
      names.emplace_back(each.name);
      const bool last = &each + 1 == std::end(kEditMethods);
      all += (all.empty() ? "" : last ? " and " : ", ") + names.back();
    }
    auto fixes = spelling_fix(call.name.span, name, names);
    report(Code::unknown_method, call.name.span, "no edit is made by `" + name + "`",
           {fixes.empty() ? "the methods are " + all : "did you mean `" + fixes.front().replacement + "`?"})
        .fixes = std::move(fixes);
    return std::nullopt;
  }
  result.method = known->method;

  bool sound = true;
  for (const ast::Argument& argument : call.arguments) {
    const std::string label = argument.label ? argument.label->text : "";
    const bool says_where = label == "layer" || label == "layers";
    if (result.parameters.contains(label) || (says_where && (result.layers || result.traced))) {
      report(Code::repeated_argument, argument.span, "`" + label + "` is given twice");
      sound = false;
    } else if (!argument.label) {
      report(Code::surplus_argument, argument.span, "`" + name + "` takes its arguments by name",
             {"write " + sample_call(result.method)});
      sound = false;
    } else if (const auto* plain = parameter_named(kNumbers, result.method, label)) {
      const std::string what = "`" + label + "`";
      const std::optional<double> value = plain->whole ? std::optional<double>(whole(argument, what, plain->limits))
                                                       : number(argument, what, plain->limits);
      if (value) result.parameters[label] = *value;
      sound &= value.has_value();
    } else if (parameter_named(kPaths, result.method, label) != nullptr) {
      const auto* file = std::get_if<ast::String>(&argument.value);
      if (file == nullptr) wrong_argument(argument, "the path of a file, as a text,");
      const auto opened = file != nullptr ? path(*file) : std::nullopt;
      if (opened) result.parameters[label] = *opened;
      sound &= opened.has_value();
    } else if ((result.method == EditMethod::rome && label == "layer" && is_auto(argument)) ||
               (parameter_named(kLayers, result.method, label) != nullptr && is_auto(argument))) {
      result.traced = true;
    } else if (parameter_named(kLayers, result.method, label) != nullptr) {
      result.layers = layers(argument);
      sound &= result.layers.has_value();
    } else if (const auto* words = parameter_named(kWords, result.method, label)) {
      const auto chosen = word(argument, {words->words[0], words->words[1]});
      if (chosen) result.parameters[label] = *chosen;
      sound &= chosen.has_value();
    } else if (result.method == EditMethod::rome && label == "layer") {
      const auto layer = whole(argument, "a layer", {.low = 0});
      if (layer) result.parameters[label] = static_cast<double>(*layer);
      sound &= layer.has_value();
    } else {
      const auto names = parameter_names(result.method);
      auto fixes = spelling_fix(argument.label->span, label, names);
      std::string all;
      for (const std::string& each : names) all += (all.empty() ? "" : ", ") + each;
      report(Code::unknown_argument, argument.label->span, "`" + name + "` has no parameter `" + label + "`",
             {fixes.empty() ? "its parameters are " + all : "did you mean `" + fixes.front().replacement + "`?"})
          .fixes = std::move(fixes);
      sound = false;
    }
  }
  if (result.parameters.contains("text") && result.parameters.contains("second_moments")) {
    report(Code::repeated_argument, call.span, "`text` and `second_moments` both say what C is",
           {"give the stored moments, or the text to estimate them on"});
    sound = false;
  }
  const auto given = [&](std::string_view label) {  // whatever is wrong with its value
    return std::any_of(call.arguments.begin(), call.arguments.end(),
                       [&](const ast::Argument& argument) { return argument.label && argument.label->text == label; });
  };
  for (const char* needed : {"peak", "reach"}) {
    if (result.method != EditMethod::project || !(given("peak") || given("reach") || given("edge")) || given(needed))
      continue;
    report(Code::missing_argument, call.span, "`project` is to weigh layers, and lacks `" + std::string(needed) + "`",
           {"give the layer where most is removed and how far that reaches: project(peak: 14, reach: 8)"});
    sound = false;
  }
  if (!sound) return std::nullopt;
  return result;
}

}  // namespace proviso::dsl
