#pragma once

#include <string>
#include <variant>
#include <vector>

#include "runtime/tokenizer/pattern.hpp"

namespace proviso::model {

/// Puts `prefix` before any text that is not empty.
struct Prepend {
  std::string prefix;
};

/// Puts `replacement` in place of each match.
struct Replace {
  Pattern pattern;
  std::string replacement;
};

/// Unicode's normal form C.
struct Compose {};

using Normalizer = std::variant<Prepend, Replace, Compose>;

std::string normalize(const std::vector<Normalizer>& normalizers, std::string text);

}  // namespace proviso::model
