#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/tokenizer/pattern.hpp"

namespace proviso::model {

/// What becomes of a delimiter, named as in `tokenizers`.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct SplitByPattern {
  Pattern pattern;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;
};

struct SplitDigits {
  bool individual = false;
};

/// Spaces become `replacement`, a prefix is added, and each word begins with it.
struct SplitAtSpaces {
  enum class Prefix { never, first, always };
  std::string replacement;
  Prefix prefix = Prefix::always;
  bool split = true;
  Pattern pattern;  // of `replacement`
};

/// A space before each piece that does not begin with one.
struct PrefixSpace {};

/// Bytes become characters of GPT-2's alphabet.
struct MapBytes {};

using PreTokenizer = std::variant<SplitByPattern, SplitDigits, SplitAtSpaces, PrefixSpace, MapBytes>;

/// A part of the text; `at_start` says that it begins where the whole text does.
struct Piece {
  std::string_view text;
  bool at_start = false;
};

/// Splits `piece` by each step in turn. Texts that a step makes live in `storage`.
std::vector<Piece> pre_tokenize(const std::vector<PreTokenizer>& steps, Piece piece, std::deque<std::string>& storage);

}  // namespace proviso::model
