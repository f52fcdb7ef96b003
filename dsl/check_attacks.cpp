// Attacks: which there are, and what each takes.

#include <algorithm>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/format.hpp"
#include "dsl/metric_traits.hpp"

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

constexpr double kLeastRate = 1e-4;
constexpr std::int64_t kMostSteps = 10'000;
constexpr std::int64_t kMostLayers = 10'000;
constexpr std::int64_t kMostSuffixTokens = 256;
constexpr std::int64_t kMostCandidates = 4096;
constexpr std::int64_t kSuffixTokens = 8;
constexpr std::int64_t kCandidates = 32;
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
  } else if (result.kind == AttackKind::translations) {
    sound = attack_translations(call, result);
  } else if (result.kind == AttackKind::suffix_search) {
    const auto given = arguments(
        call, {{"steps", true}, {"tokens", true, false}, {"candidates", true, false}, {"toward", true, false}});
    sound = given.has_value();
    if (given) {
      const auto steps = whole(*given->at(0), "`steps`", {.low = 1, .high = kMostSteps});
      result.tokens = kSuffixTokens;
      result.candidates = kCandidates;
      sound = steps.has_value();
      sound = attack_number(given->at(1), "`tokens`", {.low = 1, .high = kMostSuffixTokens}, result.tokens) && sound;
      sound =
          attack_number(given->at(2), "`candidates`", {.low = 1, .high = kMostCandidates}, result.candidates) && sound;
      sound = attack_target(given->at(3), result) && sound;
      result.steps = steps.value_or(0);
    }
  } else if (result.kind == AttackKind::perturb) {
    const auto given =
        arguments(call, {{"norm", true}, {"steps", true, false}, {"layer", true, false}, {"toward", true, false}});
    sound = given.has_value();
    if (given) {
      const auto norm = number(*given->at(0), "`norm`", {.low = kLeastRate, .high = 1});
      std::int64_t layer = 0;
      sound = norm.has_value();
      sound = attack_number(given->at(1), "`steps`", {.low = 0, .high = kMostSteps}, result.steps) && sound;
      sound = attack_number(given->at(2), "`layer`", {.low = 0, .high = kMostLayers}, layer) && sound;
      sound = attack_target(given->at(3), result) && sound;
      result.norm = norm.value_or(0);
      if (given->at(2) != nullptr) result.layer = layer;
      if (sound && result.toward && result.steps == 0) {
        report(Code::wrong_argument, given->at(3)->span, "nothing is searched for in 0 steps, so `toward` does nothing",
               {"write `steps: 20`, or leave `toward` out"});
        sound = false;
      }
    }
  } else {
    const auto given = arguments(call, {{"a word that says how"}});
    sound = given && attack_form(*given->at(0), result);
  }
  if (!sound) return std::nullopt;
  return result;
}

bool Checker::attack_number(const ast::Argument* argument, const std::string& what, const Limits& limits,
                            std::int64_t& number) {
  if (argument == nullptr) return true;
  const auto given = whole(*argument, what, limits);
  number = given.value_or(number);
  return given.has_value();
}

bool Checker::attack_target(const ast::Argument* argument, Attack& attack) {
  if (argument == nullptr) return true;
  attack.toward = text(*argument, "`toward`");
  return attack.toward.has_value();
}

bool Checker::attack_translations(const ast::Call& call, Attack& attack) {
  return each_prompt_set(call, [&](PromptsId set, Span span) {
    if (std::ranges::count(attack.translations, set) > 0) {
      report(Code::repeated_argument, span, "this set is given twice");
      return false;
    }
    attack.translations.push_back(set);
    return true;
  });
}

/// What an attack would undo, or what would undo it: a translation takes the place of the whole text, a suffix is
/// searched for as it will be read.
void Checker::check_attack_order(const CheckDecl& check) {
  const auto& attacks = check.under_attacks;
  bool perturbed = false;
  for (std::size_t i = 0; i < attacks.size(); ++i) {
    const Attack& each = attacks[i];
    const auto text_after = [&](const Attack& other) { return &other > &each && other.on_text(); };
    if (each.kind == AttackKind::translations && i > 0) {
      report(Code::attack_order, each.span,
             "a translation takes the place of the whole text, and `" + attacks[i - 1].text + "` stands before it",
             {"write `translations` first"});
    } else if (each.kind == AttackKind::suffix_search && std::ranges::any_of(attacks, text_after)) {
      report(Code::attack_order, each.span,
             "the suffix is searched for on the text that the model is given, and `" +
                 std::ranges::find_if(attacks, text_after)->text + "` would change that after the search",
             {"write `suffix_search` after all other attacks on the text, once"});
    } else if (each.kind == AttackKind::perturb && std::exchange(perturbed, true)) {
      report(Code::attack_order, each.span, "a check is under one `perturb`", {"write a check for each"});
    }
  }
}

/// Without `toward` a search makes expected continuations unlikely; where few of them are wanted it would work for
/// the expectation, not against it.
void Checker::check_attack_direction(const CheckDecl& check, const Expectation& expectation) {
  const auto* effect = std::get_if<metric::Effect>(&expectation.metric.node);
  const bool wants_few = expectation.op != Compare::greater && expectation.op != Compare::greater_equal;
  if (effect == nullptr && !wants_few) return;
  const auto& measured = effect != nullptr ? effect->on->node : expectation.metric.node;
  if (!std::holds_alternative<metric::Accuracy>(measured) && !std::holds_alternative<metric::Specificity>(measured) &&
      !std::holds_alternative<metric::Efficacy>(measured) && !std::holds_alternative<metric::Paraphrase>(measured)) {
    return;
  }
  for (const Attack& each : check.under_attacks) {
    if (!each.searches() || each.steps == 0 || each.toward) continue;
    report(
        Code::attack_helps, expectation.metric.span,
        "`" + each.text + "` makes expected continuations unlikely, and " +
            (effect != nullptr ? "what is at its floor already no change can lower" : "few of them are expected here"),
        {"say what the search is to bring about: toward: \" …\""});
    return;
  }
}

/// A translation is one set's; where it stood in for several, all would be measured on the same texts.
void Checker::check_translated(const CheckDecl& check, const Expectation& expectation) {
  const auto found = std::ranges::find(check.under_attacks, AttackKind::translations, &Attack::kind);
  if (found == check.under_attacks.end()) return;
  if (prompt_sets(expectation.metric).size() < 2 && expectation.across.paraphrases.empty()) return;
  report(Code::attack_order, found->span,
         "`" + found->text + "` would take the place of several sets of prompts at once",
         {"measure one set in a check of its own"});
}

void Checker::check_attacked_circuit(const CheckDecl& check, const Expectation& expectation) {
  const auto* effect = std::get_if<metric::Effect>(&expectation.metric.node);
  const auto& measured = effect != nullptr ? effect->on->node : expectation.metric.node;
  if (!std::holds_alternative<metric::Faithfulness>(measured) &&
      !std::holds_alternative<metric::Completeness>(measured)) {
    return;  // of the others it is said that they are of circuits as found
  }
  for (const Attack& each : check.under_attacks) {
    if (!each.searches() && each.kind != AttackKind::perturb && each.kind != AttackKind::translations) continue;
    report(
        Code::circuit_attack, each.span,
        "`" + each.text + "` is made for one prompt, and a circuit is patched between the two of a pair",
        {"name an attack that rewrites any text, typos or casing say, or measure the circuit in a check of its own"});
    return;
  }
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
