#include <algorithm>
#include <map>
#include <utility>

#include "dsl/literals.hpp"
#include "dsl/metric_traits.hpp"
#include "dsl/prompt_file.hpp"
#include "runtime/attacks.hpp"
#include "runtime/binder.hpp"
#include "runtime/encode_prompt.hpp"
#include "runtime/suffix_place.hpp"

namespace proviso::runtime {

using dsl::Code;
using model::InputError;

namespace {

/// The first words of a text that a message cannot hold.
std::string beginning(const std::string& text) {
  constexpr std::size_t kMostBytes = 40;
  if (text.size() <= kMostBytes) return text;
  std::size_t end = kMostBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

}  // namespace

void Binder::prompts(const dsl::PromptsDecl& declaration) {
  std::vector<dsl::Prompt> texts;
  dsl::Span place = declaration.span;  // of texts that have none of their own
  if (const auto* inline_prompts = std::get_if<std::vector<dsl::Prompt>>(&declaration.source)) {
    texts = *inline_prompts;
  } else {
    const auto& file = std::get<dsl::PromptFile>(declaration.source);
    texts = read_file(file, dsl::read_prompt_file);
    place = file.span;
  }
  BoundPrompts bound;
  Texts written;
  std::map<std::string, std::int64_t> clusters;
  for (const auto& prompt : texts) {
    const auto cluster = static_cast<std::int64_t>(bound.size());
    const auto span = prompt.span.end > prompt.span.begin ? prompt.span : place;
    if (auto one = tokenise(declaration, prompt, span)) {
      // Copies of one prompt say what one says.
      const std::string key = prompt.cluster.empty() ? "text " + prompt.text : "cluster " + prompt.cluster;
      one->cluster = clusters.emplace(key, cluster).first->second;
      bound.push_back(std::move(*one));
      written.push_back(prompt.text);
    }
  }
  bound_.prompts.back() = std::move(bound);
  written_.back() = std::move(written);
}

void Binder::encode(const std::optional<dsl::Chat>& chat, const std::string& text, BoundPrompt& bound) const {
  EncodedPrompt encoded = encode_prompt(*bound_.tokenizer, chat, text);
  bound.text = std::move(encoded.text);
  bound.tokens = std::move(encoded.tokens);
}

std::optional<BoundPrompt> Binder::tokenise(const dsl::PromptsDecl& declaration, const dsl::Prompt& prompt,
                                            dsl::Span span) {
  BoundPrompt bound;
  try {
    encode(declaration.chat, prompt.text, bound);
    for (const auto& answer : prompt.answers) bound.answers.push_back(bound_.tokenizer->encode(answer));
    bound.answer_texts = prompt.answers;
  } catch (const InputError& failure) {
    const bool no_template = declaration.chat && !bound_.tokenizer->chat_template();
    once(no_template ? Code::no_chat_template : Code::unreadable_text, span, failure.what(),
         {no_template        ? "leave `as chat` out, and write the turns as this model is given them"
          : declaration.chat ? "write the conversation as the template takes it, or leave `as chat` out"
                             : "shorten or split the text"});
    return std::nullopt;
  }
  if (bound.tokens.empty()) {
    once(Code::empty_prompt, span, "this prompt has no tokens", {"write at least one word"});
    return std::nullopt;
  }
  std::size_t longest = 0;
  for (std::size_t i = 0; i < bound.answers.size(); ++i) {
    longest = std::max(longest, bound.answers[i].size());
    if (bound.answers[i].empty()) once(Code::empty_prompt, span, "an expected continuation has no tokens", {});
  }
  // A prompt of a file has no place of its own to point at.
  const bool from_file = std::holds_alternative<dsl::PromptFile>(declaration.source);
  context(bound.tokens.size() + longest, span, from_file ? "\"" + beginning(prompt.text) + "\"" : "this text");
  return bound;
}

void Binder::context(std::size_t tokens, dsl::Span span, const std::string& text) {
  if (static_cast<std::int64_t>(tokens) <= card_.config.context) return;
  once(Code::beyond_context, span,
       text + " takes " + std::to_string(tokens) + " tokens, and the model's context holds " +
           std::to_string(card_.config.context),
       {"shorten the text, or split it into several prompts"});
}

void Binder::single_token(const std::string& text, dsl::Span span) {
  const auto ids = bound_.tokenizer->encode(text);
  if (ids.size() == 1) return;
  std::string parts;
  for (std::int64_t id : ids) parts += (parts.empty() ? "\"" : "\" \"") + bound_.tokenizer->decode(std::vector{id});
  error(Code::not_one_token, span,
        "\"" + text + "\" must be one token here, and this model splits it into " + std::to_string(ids.size()) +
            (ids.empty() ? "" : ": " + parts + "\""),
        {"write one token's text; most words need their leading space (\" word\")"});
  if (text.starts_with(' ') || bound_.tokenizer->encode(" " + text).size() != 1) return;
  dsl::Diagnostic& found = diagnostics_.back();
  found.help = {"did you mean \" " + text + "\"? With its leading space it is one token"};
  found.fixes = {{span, dsl::encode_string(" " + text), /*safe=*/false}};
}

void Binder::attack(dsl::CheckId check, const dsl::Expectation& expectation) {
  const auto seeds = static_cast<std::uint64_t>(std::max<std::int64_t>(1, expectation.across.seeds));
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    for (const dsl::PromptsId set : measured_sets(expectation)) {
      attack({check, seed, false, set}, bound_.prompts[set], written_[set], rules_.prompts[set].chat);
    }
    if (const auto circuit = dsl::measured_circuit(expectation.metric)) attack({check, seed, *circuit});
    if (!std::holds_alternative<dsl::metric::Efficacy>(expectation.metric.node)) continue;
    for (const dsl::EditId edit : rules_.checks[check].under_edits) {
      BoundPrompts prompts;
      std::vector<std::string> texts;
      for (const auto& fact : bound_.facts[edit]) {
        prompts.push_back(fact.prompt);
        prompts.back().answers = {fact.to, fact.from};
        texts.push_back(fact.prompt.text);
      }
      attack({check, seed, true, edit}, prompts, texts, std::nullopt);
    }
  }
}

void Binder::attack(const AttackedCircuitKey& key) {
  const auto [found, is_new] = bound_.attacked_circuits.emplace(key, bound_.circuits[key.circuit]);
  if (!is_new) return;
  auto& pairs = found->second.pairs;  // those measured alone
  const bool held = !found->second.held.empty();
  if (held) pairs = std::exchange(found->second.held, {});
  std::size_t next = 0;  // of the pairs as written, which stand in the order of their sets
  for (const auto& sets : rules_.circuits[key.circuit].pairs) {
    if (sets.held != held) continue;
    for (const dsl::PromptsId set : {sets.clean, sets.corrupt})
      attack({key.check, key.seed, false, set}, bound_.prompts[set], written_[set], rules_.prompts[set].chat);
    const auto& clean = bound_.attacked.at({key.check, key.seed, false, sets.clean}).prompts;
    const auto& corrupt = bound_.attacked.at({key.check, key.seed, false, sets.corrupt}).prompts;
    for (std::size_t i = 0; i < clean.size() && next < pairs.size(); ++i, ++next) {
      const std::int64_t cluster = pairs[next].clean.cluster;
      pairs[next].clean = clean[i];
      pairs[next].clean.cluster = cluster;
      pairs[next].corrupt = corrupt[i];
    }
  }
  std::erase_if(pairs, [](const BoundPair& pair) {
    return pair.clean.tokens.size() != pair.corrupt.tokens.size() || pair.clean.tokens == pair.corrupt.tokens;
  });
}

void Binder::attack(const AttackedKey& key, const BoundPrompts& prompts, const std::vector<std::string>& texts,
                    const std::optional<dsl::Chat>& chat) {
  const auto& attacks = rules_.checks[key.check].under_attacks;
  const bool sound =
      std::all_of(attacks.begin(), attacks.end(), [&](const dsl::Attack& one) { return parallel(one, texts.size()); });
  if (!sound) return;
  const auto [found, is_new] = bound_.attacked.emplace(key, AttackedPrompts{});
  if (!is_new) return;
  AttackedPrompts& result = found->second;
  result.changed.resize(attacks.size(), 0);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    BoundPrompt bound = prompts[i];
    std::string text = texts[i];
    std::size_t longest = 0;
    for (std::size_t place = 0; place < attacks.size(); ++place) {
      const auto& one = attacks[place];
      const auto seed = attack_seed(bound_.seed + key.seed, texts[i], place);
      std::string changed = attacked_text(one, text, seed, texts_beside(one, i));
      if (one.kind == dsl::AttackKind::translations) {
        const BoundPrompt& translated = bound_.prompts[one.translations[drawn(seed, one.translations.size())]][i];
        if (!translated.answers.empty()) {
          bound.answers = translated.answers;
          bound.answer_texts = translated.answer_texts;
        }
      } else if (one.kind == dsl::AttackKind::suffix_search) {
        result.suffixed.push_back({text, first_suffix(one, text, chat, seed)});
        changed += bound_.tokenizer->decode(result.suffixed.back().suffix);
      }
      if (one.toward) longest = std::max(longest, bound_.tokenizer->encode(*one.toward).size());
      result.changed[place] += changed != text;
      text = std::move(changed);
    }
    encode(chat, text, bound);
    for (std::size_t place = 0; place < attacks.size(); ++place) {
      // The first position is left as it is.
      if (attacks[place].kind == dsl::AttackKind::perturb) result.changed[place] += bound.tokens.size() > 1;
    }
    for (const auto& answer : bound.answers) longest = std::max(longest, answer.size());
    context(bound.tokens.size() + longest, attacks.back().span, "under attack, \"" + texts[i] + "\"");
    result.prompts.push_back(std::move(bound));
  }
  for (const auto& one : attacks) aimed(one, result.prompts, texts);
}

Binder::Texts Binder::texts_beside(const dsl::Attack& attack, std::size_t prompt) const {
  if (attack.kind == dsl::AttackKind::distractors) return written_[attack.texts];
  Texts texts;
  for (const dsl::PromptsId set : attack.translations) texts.push_back(written_[set][prompt]);
  return texts;
}

bool Binder::parallel(const dsl::Attack& attack, std::size_t prompts) {
  for (const dsl::PromptsId set : attack.translations) {
    const std::size_t translated = written_[set].size();
    if (translated == prompts) continue;
    const std::string& name = rules_.prompts[set].name;
    once(Code::translation_count, attack.span,
         "`" + attack.text + "` has " + std::to_string(translated) + " texts" +
             (name.empty() ? "" : " in " + quoted(name)) + " for " + std::to_string(prompts) +
             " prompts that the check measures",
         {"give as many, in the same order"});
    return false;
  }
  return true;
}

void Binder::aimed(const dsl::Attack& attack, const BoundPrompts& prompts, const Texts& texts) {
  if (!attack.searches() || attack.steps == 0 || attack.toward) return;
  const auto without = std::find_if(prompts.begin(), prompts.end(), [](const auto& p) { return p.answers.empty(); });
  if (without == prompts.end()) return;
  const std::string text = "\"" + texts[static_cast<std::size_t>(without - prompts.begin())] + "\"";
  once(Code::no_answer, attack.span,
       "`" + attack.text + "` makes expected continuations unlikely, and " + text + " names none",
       {"say what the search is to bring about (toward: \" …\"), or write the continuation: " + text + " -> \" …\""});
}

std::vector<std::int64_t> Binder::first_suffix(const dsl::Attack& attack, const std::string& text,
                                               const std::optional<dsl::Chat>& chat, std::uint64_t seed) {
  std::string why = "no " + std::to_string(attack.tokens) + " tokens are read as themselves after \"" + text + "\"";
  try {
    if (auto suffix = SuffixPlace(*bound_.tokenizer, chat, text).draw(attack.tokens, seed)) return std::move(*suffix);
  } catch (const InputError& failure) {
    why = failure.what();
  }
  once(Code::no_suffix, attack.span, why, {"leave `suffix_search` out for this set"});
  return {};
}

/// What is wrong with an attack is wrong for every expectation of its check, and what is wrong with a prompt of a file
/// may be wrong with many.
void Binder::once(Code code, dsl::Span span, const std::string& message, std::vector<std::string> help) {
  const bool said = std::any_of(diagnostics_.begin(), diagnostics_.end(),
                                [&](const dsl::Diagnostic& known) { return known.code == code && known.span == span; });
  if (!said) error(code, span, message, std::move(help));
}

std::vector<dsl::PromptsId> Binder::measured_sets(const dsl::Expectation& expectation) {
  auto sets = dsl::prompt_sets(expectation.metric);
  sets.insert(sets.end(), expectation.across.paraphrases.begin(), expectation.across.paraphrases.end());
  return sets;
}

}  // namespace proviso::runtime
