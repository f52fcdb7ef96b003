#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/tokenizer/vocabulary.hpp"

namespace proviso::model {

struct BpeOptions {
  bool ignore_merges = false;  ///< a word that is a token is that token
  bool byte_fallback = false;  ///< a character without a token becomes "<0xE2>" … of its bytes
  bool fuse_unknown = false;
  std::optional<std::string> unknown_token;
};

/// A merge names two tokens; their texts together are a third.
struct Merge {
  std::string_view left, right;
};

/// Byte-pair encoding of one word: neighbours merge, lowest rank first, leftmost first.
class Bpe {
 public:
  /// Merges in the order of their ranks. Throws `InputError` where one names an unknown token.
  Bpe(Vocabulary vocabulary, const std::vector<Merge>& merges, BpeOptions options);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  const BpeOptions& options() const { return options_; }
  std::vector<Merge> merges() const;  ///< in the order of their ranks; valid while this lives

  /// Appends the ids of `word`, well-formed UTF-8.
  void encode(std::string_view word, std::vector<std::int64_t>& ids) const;
  /// Appends the ids of `word` as it reads in GPT-2's byte alphabet.
  void encode_bytes(std::string_view word, std::vector<std::int64_t>& ids) const;

 private:
  struct Rule {
    std::uint64_t pair;
    std::uint32_t rank, result;
  };

  std::size_t slot_of(std::uint64_t pair) const;
  const Rule* find_rule(std::uint32_t left, std::uint32_t right) const;
  void merge_short(std::vector<std::uint32_t>& symbols, std::vector<std::int64_t>& ids) const;
  void merge_long(const std::vector<std::uint32_t>& symbols, std::vector<std::int64_t>& ids) const;
  void merge(std::vector<std::uint32_t>& symbols, std::vector<std::int64_t>& ids) const;

  Vocabulary vocabulary_;
  BpeOptions options_;
  std::optional<std::uint32_t> unknown_;
  std::array<std::optional<std::uint32_t>, 256> fallback_;     // "<0x00>" …
  std::array<std::optional<std::uint32_t>, 256> byte_symbol_;  // in GPT-2's alphabet
  std::vector<Rule> rules_;                                    // by hash of the pair, with open addressing
  int hash_shift_ = 0;
};

}  // namespace proviso::model
