// Sets of prompts: written out, expanded from a template, or named in a file.

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/record_file.hpp"

namespace proviso::dsl {
namespace {

constexpr std::size_t kMaxExpanded = 100'000;

std::vector<std::string> values(const std::vector<ast::String>& strings) {
  std::vector<std::string> texts;
  for (const ast::String& string : strings) texts.push_back(string.value);
  return texts;
}

/// The value of each slot name in one combination.
using Binding = std::map<std::string, std::string>;

std::string filled(const ast::Template& text, const Binding& binding) {
  std::string result;
  for (const auto& part : text.parts) {
    const auto* slot = std::get_if<ast::Slot>(&part);
    result += slot != nullptr ? binding.at(slot->name.text) : std::get<std::string>(part);
  }
  return result;
}

}  // namespace

void Checker::define_prompts(const Work<ast::Prompts>& work) {
  module_ = work.module;
  const ast::Prompts& node = work.node();
  PromptsDecl& set = rule_set_.prompts[work.id];
  if (node.chat) {
    set.chat = Chat{};
    if (node.chat->system) set.chat->system = node.chat->system->value;
  }
  if (const auto* list = std::get_if<ast::PromptList>(&node.source)) {
    set.source = listed(*list);
    if (list->items.empty()) empty_sets_.insert(work.id);
  } else if (const auto* each = std::get_if<ast::Each>(&node.source)) {
    set.source = expanded(*each, set.name);
  } else if (auto file = prompt_file(std::get<ast::FromFile>(node.source))) {
    set.source = std::move(*file);
  }
}

std::vector<Prompt> Checker::listed(const ast::PromptList& list) {
  std::vector<Prompt> prompts;
  for (const ast::PromptItem& item : list.items) {
    non_empty(item.text, "this prompt", Code::empty_prompt);
    for (const ast::String& answer : item.answers) non_empty(answer, "this expected continuation");
    prompts.push_back({.text = item.text.value, .answers = values(item.answers), .cluster = "", .span = item.span});
  }
  return prompts;
}

/// Every combination of the bound values, the last binding's changing fastest. All share one cluster: they are
/// variations of one template, not independent samples.
std::vector<Prompt> Checker::expanded(const ast::Each& each, const std::string& cluster) {
  std::set<std::string> bound, filled_in;
  std::size_t count = 1;
  for (const ast::Each::Binding& binding : each.bindings) {
    bound.insert(binding.name.text);
    if (count <= kMaxExpanded) count *= binding.values.size();
  }
  std::vector<const ast::Template*> templates{&each.text};
  for (const ast::Template& answer : each.answers) templates.push_back(&answer);
  for (const ast::Template* text : templates) {
    for (const auto& part : text->parts) {
      if (const auto* slot = std::get_if<ast::Slot>(&part)) filled_in.insert(slot->name.text);
    }
  }
  if (!std::includes(bound.begin(), bound.end(), filled_in.begin(), filled_in.end())) return {};  // said by `parse`
  for (const ast::Each::Binding& binding : each.bindings) {
    if (filled_in.contains(binding.name.text)) continue;
    report(Code::unused_slot, binding.name.span,
           "the template has no slot {" + binding.name.text + "}, so every text is repeated",
           {"write {" + binding.name.text + "} where it belongs, or leave the binding out"});
  }
  if (count > kMaxExpanded) {
    report(
        Code::each_too_large, each.span, "this `each` makes more than " + std::to_string(kMaxExpanded) + " prompts",
        {"bind fewer values, or write the prompts to a file and `take` some: from \"all.txt\" { take 1000  seed 1 }"});
    return {};
  }

  std::vector<Prompt> prompts;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Binding binding;
    std::size_t rest = i;
    for (auto name = each.bindings.rbegin(); name != each.bindings.rend(); ++name) {
      binding[name->name.text] = name->values[rest % name->values.size()].value;
      rest /= name->values.size();
    }
    Prompt prompt{.text = filled(each.text, binding), .answers = {}, .cluster = cluster, .span = each.span};
    for (const ast::Template& answer : each.answers) prompt.answers.push_back(filled(answer, binding));
    bytes += prompt.text.size();
    if (bytes > kMaxRecordFileBytes) {
      report(Code::each_too_large, each.span,
             "this `each` makes more than " + std::to_string(kMaxRecordFileBytes >> 20) + " MiB of text",
             {"bind fewer values"});
      return {};
    }
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

std::optional<PromptFile> Checker::prompt_file(const ast::FromFile& from) {
  PromptFile file;
  file.span = from.path.span;
  const auto opened = path(from.path);
  bool sound = opened.has_value();
  const auto format = record_format(from.path.value);
  if (!format) {
    report(Code::prompt_file_kind, from.path.span,
           "the ending of `" + from.path.value + "` does not tell how to read it",
           {"prompts are read from .txt (one text a line), .jsonl, .json and .csv"});
    sound = false;
  }
  const auto take_name = [&](const std::optional<ast::String>& written, std::optional<std::string>& into) {
    if (!written) return;
    into = written->value;
    if (format != RecordFormat::text) return;
    report(Code::prompt_file_option, written->span, "a text file has lines, no fields",
           {"keep expected continuations in a .jsonl, .json or .csv file"});
    sound = false;
  };
  take_name(from.field, file.field);
  take_name(from.answer, file.answer);
  take_name(from.cluster, file.cluster);
  if (from.take) {
    file.take = whole(*from.take, "`take`", {.low = 1});
    sound &= file.take.has_value();
  }
  if (from.seed) {
    const auto seed = whole(*from.seed, "`seed`", {.low = 0});
    if (seed) file.seed = static_cast<std::uint64_t>(*seed);
    sound &= seed.has_value();
    if (!from.take) {
      report(Code::prompt_file_option, from.seed->span, "`seed` draws what `take` keeps, and nothing is taken here",
             {"write take N beside it, or leave it out"});
      sound = false;
    }
  }
  if (!sound) return std::nullopt;
  file.path = *opened;
  return file;
}

PromptsId Checker::anonymous(const ast::PromptList& list) {
  PromptsDecl set;
  set.span = list.span;
  set.imported = !module_->given;
  set.source = listed(list);
  if (list.items.empty()) empty_sets_.insert(rule_set_.prompts.size());
  rule_set_.prompts.push_back(std::move(set));
  return rule_set_.prompts.size() - 1;
}

std::optional<PromptsId> Checker::prompts(const ast::PromptsRef& reference) {
  if (const auto* list = std::get_if<ast::PromptList>(&reference)) return anonymous(*list);
  return prompts(std::get<ast::Name>(reference));
}

std::optional<PromptsId> Checker::prompts(const ast::Name& name) { return find_id(SymbolKind::prompts, name); }

bool Checker::require_answers(PromptsId id, Span span, std::string_view metric) {
  const PromptsDecl& set = rule_set_.prompts[id];
  const std::string needs = "`" + std::string(metric) + "` compares with expected continuations, ";
  if (const auto* file = std::get_if<PromptFile>(&set.source)) {
    if (file->answer) return true;
    report(Code::no_answer, span, needs + "and these prompts name no field that holds them",
           {"say which field: from \"…\" { answer \"NAME\" }"});
    return false;
  }
  const auto& prompts = std::get<std::vector<Prompt>>(set.source);
  const auto bare =
      std::find_if(prompts.begin(), prompts.end(), [](const Prompt& prompt) { return prompt.answers.empty(); });
  if (bare == prompts.end()) return true;
  report(Code::no_answer, span, needs + "and the prompt at " + place_text(sources_, bare->span) + " has none",
         {"write it after an arrow: \"The capital of France is\" -> \" Paris\""});
  return false;
}

bool share_texts(const RuleSet& rule_set, PromptsId a, PromptsId b) {
  if (a == b) return true;
  const auto& one = rule_set.prompts[a].source;
  const auto& other = rule_set.prompts[b].source;
  if (one.index() != other.index()) return false;
  if (const auto* file = std::get_if<PromptFile>(&one)) {
    const auto& second = std::get<PromptFile>(other);
    return file->path == second.path && file->field == second.field && file->take == second.take &&
           file->seed == second.seed;
  }
  std::set<std::string_view> texts;
  for (const Prompt& prompt : std::get<std::vector<Prompt>>(one)) texts.insert(prompt.text);
  const auto& second = std::get<std::vector<Prompt>>(other);
  return std::any_of(second.begin(), second.end(), [&](const Prompt& prompt) { return texts.contains(prompt.text); });
}

}  // namespace proviso::dsl
