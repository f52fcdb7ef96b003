#pragma once

// The canonical wording of nodes, apart from where lines break. Private to `format`.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dsl/ast.hpp"

namespace proviso::dsl {

/// A list whose items may stand on lines of their own.
struct WrittenList {
  std::vector<std::pair<Span, std::string>> items;
  Span span;
  std::string flat() const;  ///< "[a, b]"
};

/// Text, list, text, list, …, text: what stands between lists never breaks.
class Writer {
 public:
  Writer& word(std::string_view text);  ///< after a space, but at the very front
  Writer& raw(std::string_view text);

  Writer& operator<<(const ast::Name& name) { return word(name.text); }
  Writer& operator<<(const ast::Number& number) { return word(number.text); }
  Writer& operator<<(const ast::String& string);
  Writer& operator<<(const ast::Regex& regex);
  Writer& operator<<(const ast::PromptsRef& prompts);
  Writer& operator<<(const ast::PromptList& list);
  Writer& operator<<(const ast::Call& call);
  Writer& operator<<(const ast::Condition& condition);
  Writer& operator<<(const ast::Comparison& comparison);
  Writer& operator<<(const ast::Patch& patch);
  Writer& operator<<(const ast::Expectation& expectation);
  Writer& strings(const std::vector<ast::String>& values, Span span);
  Writer& value(const ast::Value& value);
  Writer& intervention(const ast::Intervention& intervention, bool inside_parentheses);
  Writer& sites(const std::vector<ast::Site>& sites, bool inside_parentheses);
  Writer& sides(const std::pair<ast::PromptsRef, ast::PromptsRef>& sets);  ///< `(angry, calm)`
  Writer& classes(const std::vector<ast::PromptsRef>& sets);               ///< `[she, he]`
  template <class Range, class Write>
  Writer& separated(const Range& range, Write write) {
    bool first = true;
    for (const auto& each : range) {
      if (!first) raw(",");
      first = false;
      write(each);
    }
    return *this;
  }

  std::string flat() const;
  const std::vector<std::string>& texts() const { return texts_; }  ///< one more than lists
  const std::vector<WrittenList>& lists() const { return lists_; }

 private:
  Writer& list(WrittenList list);
  Writer& grouped(const ast::Condition& condition, bool parentheses);
  Writer& operand(const ast::Operand& operand);

  std::vector<std::string> texts_ = {""};
  std::vector<WrittenList> lists_;
  bool glue_ = true;  // the next word follows without a space
};

}  // namespace proviso::dsl
