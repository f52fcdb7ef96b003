#pragma once

#include <cstddef>
#include <string>
#include <variant>
#include <vector>

namespace proviso::model {

/// Characters of GPT-2's alphabet become bytes again.
struct UnmapBytes {};
/// "<0xE2>" becomes its byte.
struct UnmapFallback {};
/// All tokens become one.
struct Fuse {};
/// Up to `start` and `stop` times `content` goes, from either end of each token.
struct Strip {
  std::string content;
  std::size_t start = 0, stop = 0;
};
struct ReplaceText {
  std::string text, replacement;
};
/// `replacement` becomes a space, or nothing in the first token where `drop_first` says so.
struct SpacesBack {
  std::string replacement;
  bool drop_first = false;
};

/// A space between tokens: what `tokenizers` does without a decoder.
struct JoinBySpaces {};

using Decoder = std::variant<UnmapBytes, UnmapFallback, Fuse, Strip, ReplaceText, SpacesBack, JoinBySpaces>;

/// Applies the steps to the texts of tokens and joins what they give. Bytes that are not UTF-8 stay, unless
/// `replace_invalid` puts U+FFFD there as each step of `tokenizers` does.
std::string decode_texts(const std::vector<Decoder>& steps, std::vector<std::string> texts, bool replace_invalid);

}  // namespace proviso::model
