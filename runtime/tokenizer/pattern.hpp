#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/unicode.hpp"

namespace proviso::model {

struct TextSpan {
  std::size_t begin, end;  // byte offsets
};

/// A regular expression of a tokenizer, matched as the `tokenizers` library does (Oniguruma, Ruby syntax).
///
/// The answer must not depend on the Unicode version of the machine's PCRE2. So every code point is first
/// replaced by one byte, the class of code points that the expression cannot tell apart (ASCII keeps its own
/// bytes), and PCRE2 matches those bytes. `\p{L}+` becomes, say, `[A-Za-z\x80\x83]+`.
class Pattern {
 public:
  /// Throws `InputError` where the expression uses something whose meaning is not surely the same in PCRE2.
  explicit Pattern(std::string_view expression);
  static Pattern literal(std::string_view text);
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;
  ~Pattern();

  /// Appends the successive matches in `text`, well-formed UTF-8.
  void find_all(std::string_view text, std::vector<TextSpan>& matches) const;

  const std::string& expression() const { return expression_; }

 private:
  struct Compiled;
  std::string expression_;
  std::unique_ptr<const Compiled> compiled_;
};

/// An expression over code points, rewritten as one over bytes.
struct BytePattern {
  std::string expression;
  std::vector<std::uint8_t> class_of;  // by code point
};

/// Throws `InputError` as `Pattern` does.
BytePattern rewrite_over_bytes(std::string_view expression);

}  // namespace proviso::model
