// Attacks: which there are, and what each takes.

#include <algorithm>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/format.hpp"

namespace proviso::dsl {
namespace {

struct Named {
  AttackKind kind;
  std::string_view name;
};
constexpr Named kAttacks[] = {
#define PROVISO_ATTACK(kind) {AttackKind::kind, #kind},
#include "dsl/attacks.def"
};

struct FormOf {
  AttackKind kind;
  AttackForm form;
  std::string_view word;
};
constexpr FormOf kForms[] = {
#define PROVISO_ATTACK_FORM(kind, form, word) {AttackKind::kind, AttackForm::form, word},
#include "dsl/attacks.def"
};

constexpr AttackKind kWithRate[] = {
#define PROVISO_ATTACK_RATE(kind) AttackKind::kind,
#include "dsl/attacks.def"
};

/// That this version does not build yet.
constexpr std::string_view kNotYetBuilt[] = {"translations", "perturb", "suffix_search"};

constexpr double kLeastRate = 1e-4;
constexpr std::string_view kSlot = "{}";

std::string joined(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : ", ") + word;
  return all;
}

/// "did you mean `upper`?", or what there is.
std::string suggestion(const std::vector<Fix>& fixes, const std::vector<std::string>& known,
                       const std::string& there_are) {
  return fixes.empty() ? there_are + joined(known) : "did you mean `" + fixes.front().replacement + "`?";
}

}  // namespace

std::optional<Attack> Checker::attack(const ast::Call& call) {
  const std::string& name = call.name.text;
  if (std::ranges::find(kNotYetBuilt, std::string_view(name)) != std::end(kNotYetBuilt)) {
    not_yet_built(call.name.span, "the attack `" + name + "`", {"write the attacked texts as prompts of their own"});
    return std::nullopt;
  }
  const auto* known = std::ranges::find(kAttacks, std::string_view(name), &Named::name);
  if (known == std::end(kAttacks)) {
    std::vector<std::string> names;
    for (const Named& each : kAttacks) names.emplace_back(each.name);
    auto fixes = spelling_fix(call.name.span, name, names);
    report(Code::unknown_attack, call.name.span, "no attack on prompts is called `" + name + "`",
           {suggestion(fixes, names, "the attacks are ")})
        .fixes = std::move(fixes);
    return std::nullopt;
  }

  Attack result;
  result.kind = known->kind;
  result.text = canonical_text(call);
  result.span = call.span;
  bool sound = true;
  if (std::ranges::find(kWithRate, result.kind) != std::end(kWithRate)) {
    const auto given = arguments(call, {{"rate", true}});
    const auto rate = given ? number(*given->at(0), "`rate`", {.low = kLeastRate, .high = 1}) : std::nullopt;
    if (rate) result.rate = *rate;
    sound = rate.has_value();
  } else if (result.kind == AttackKind::paraphrases) {
    const auto given = arguments(call, {{"a template that holds `{}`, or a list of them"}});
    sound = given && attack_templates(*given->at(0), result);
  } else if (result.kind == AttackKind::distractors) {
    const auto given = arguments(call, {{"a set of prompts"}, {"place", true, false}});
    const auto texts = given ? prompts(*given->at(0)) : std::nullopt;
    result.form = AttackForm::before;
    sound = texts && (given->at(1) == nullptr || attack_form(*given->at(1), result));
    if (texts) result.texts = *texts;
  } else {
    const auto given = arguments(call, {{"a word that says how"}});
    sound = given && attack_form(*given->at(0), result);
  }
  if (!sound) return std::nullopt;
  return result;
}

bool Checker::attack_form(const ast::Argument& argument, Attack& attack) {
  std::vector<std::string> words;
  const auto* name = std::get_if<ast::Name>(&argument.value);
  for (const FormOf& each : kForms) {
    if (each.kind != attack.kind) continue;
    words.emplace_back(each.word);
    if (name == nullptr || name->text != each.word) continue;
    attack.form = each.form;
    return true;
  }
  if (name == nullptr) {
    wrong_argument(argument, "one of " + joined(words));
  } else {
    auto fixes = spelling_fix(argument.span, name->text, words);
    report(Code::wrong_argument, argument.span, "one of " + joined(words) + " is needed here, not `" + name->text + "`",
           {suggestion(fixes, words, "choose among ")})
        .fixes = std::move(fixes);
  }
  return false;
}

bool Checker::attack_templates(const ast::Argument& argument, Attack& attack) {
  std::vector<ast::String> given;
  if (const auto* one = std::get_if<ast::String>(&argument.value)) {
    given.push_back(*one);
  } else if (const auto* list = std::get_if<ast::PromptList>(&argument.value)) {
    for (const ast::PromptItem& item : list->items) given.push_back(item.text);
  } else {
    wrong_argument(argument, "a template that holds `{}`, or a list of them,");
    return false;
  }
  bool sound = !given.empty();
  if (given.empty()) report(Code::missing_argument, argument.span, "`paraphrases` needs at least one template");
  for (const ast::String& one : given) {
    const std::size_t slot = one.value.find(kSlot);
    if (slot != std::string::npos && one.value.find(kSlot, slot + kSlot.size()) == std::string::npos) {
      attack.templates.push_back(one.value);
      continue;
    }
    report(Code::template_slot, one.span, "a template of `paraphrases` holds `{}` once, where the prompt stands",
           {"write it as \"Please answer: {}\""});
    sound = false;
  }
  return sound;
}

}  // namespace proviso::dsl
