#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace proviso::model {

struct CodePointRange {
  char32_t first, last;
  bool operator==(const CodePointRange&) const = default;
};

/// A set of Unicode code points, as sorted ranges with gaps between them.
class CodePointSet {
 public:
  CodePointSet() = default;
  explicit CodePointSet(std::vector<CodePointRange> ranges);  ///< in any order, overlapping or not

  CodePointSet complement() const;
  bool contains(char32_t code_point) const;
  const std::vector<CodePointRange>& ranges() const { return ranges_; }
  bool operator==(const CodePointSet&) const = default;

 private:
  std::vector<CodePointRange> ranges_;
};

/// A general category ("Lu") or a group of them ("L"); nothing for another name.
std::optional<CodePointSet> unicode_category(std::string_view name);

const CodePointSet& white_space();
const CodePointSet& numeric_characters();  ///< what a Digits pre-tokenizer splits off
const CodePointSet& word_characters();     ///< what a `single_word` token must not touch

}  // namespace proviso::model
