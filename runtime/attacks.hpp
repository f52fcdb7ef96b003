#pragma once

// Attacks on the text of a prompt: each is a function of the text, its own parameters and a seed, the same on every
// machine, whatever other prompts there are. They know code points, never cut one, and know nothing of tokens.

#include <cstdint>
#include <span>
#include <string>

#include "dsl/rule_set.hpp"

namespace proviso::runtime {

/// The seed of a prompt's attacks: of the run's seed, the prompt's own text and the attack's place in the chain.
std::uint64_t attack_seed(std::uint64_t run_seed, const std::string& prompt, std::size_t place);

/// Which of `count` texts an attack that draws one of them takes.
std::size_t drawn(std::uint64_t seed, std::size_t count);

/// What becomes of `prompt`, well-formed UTF-8. `texts` are those that the attack draws from: of `translations` those
/// at the prompt's place. Attacks that search, on the model, leave it as it is.
///
/// - typos(rate: R): of n letters R·n, rounded up or down at random, are left out, doubled, swapped with the letter
///   after them or, where they are Latin, replaced by a neighbour on a QWERTY keyboard. No word is left out whole.
/// - casing: letters of Latin, Greek, Cyrillic and Armenian script by their simple mapping.
/// - whitespace(double): every run of spaces becomes twice as long; tabs: every run of spaces one tab.
/// - homoglyphs(rate: R): of the letters that have a double R·n, rounded as above.
/// - paraphrases, distractors, translations: one of the templates or texts, drawn; a distractor is parted from the
///   prompt by a space.
std::string attacked_text(const dsl::Attack& attack, const std::string& prompt, std::uint64_t seed,
                          std::span<const std::string> texts);

}  // namespace proviso::runtime
