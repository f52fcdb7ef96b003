#pragma once

// From PEGTL's parse tree to the syntax tree. Private to `parse`.

#include <optional>
#include <string>
#include <string_view>
#include <tao/pegtl/contrib/parse_tree.hpp>
#include <utility>
#include <vector>

#include "dsl/ast.hpp"
#include "dsl/diagnostic.hpp"

namespace proviso::dsl {

using Node = tao::pegtl::parse_tree::node;

template <class... Rules>
bool is(const Node& node) {
  return (node.is_type<Rules>() || ...);
}

/// The first child that one of the rules left, or null.
template <class... Rules>
const Node* child(const Node& node) {
  for (const auto& each : node.children) {
    if (is<Rules...>(*each)) return each.get();
  }
  return nullptr;
}

template <class... Rules>
std::vector<const Node*> children(const Node& node) {
  std::vector<const Node*> found;
  for (const auto& each : node.children) {
    if (is<Rules...>(*each)) found.push_back(each.get());
  }
  return found;
}

inline const Node& only(const Node& node) { return *node.children.front(); }

Compare compare_from(std::string_view text);

/// Reads the nodes of one file's tree; what the grammar lets through and the language does not is reported.
class Converter {
 public:
  Converter(std::string_view text, SourceId source, std::vector<Diagnostic>& diagnostics)
      : text_(text), source_(source), diagnostics_(diagnostics) {}

  ast::Declaration declaration(const Node& node);
  ast::Site site(const Node& node);

 private:
  ast::Use use(const Node& node);
  ast::Model model(const Node& node);
  ast::Prompts prompts(const Node& node);
  ast::Feature feature(const Node& node);
  ast::Rule rule(const Node& node);
  ast::Edit edit(const Node& node);
  ast::Circuit circuit(const Node& node);
  ast::Check check(const Node& node);
  ast::Waive waive(const Node& node);

  ast::Notes notes(const Node& declaration);
  ast::FromFile from_file(const Node& node);
  ast::Each each(const Node& node);
  ast::Fact fact(const Node& node);
  ast::Expectation expectation(const Node& node);
  ast::Under under(const Node& node);
  std::variant<ast::String, ast::Name, ast::PromptList> pair_side(const Node& node);

  ast::Intervention intervention(const Node& node);
  ast::Patch patch(const Node& node);
  ast::Condition condition(const Node& node);
  ast::Condition conjunction(const Node& node);
  ast::Condition unary(const Node& node);
  ast::Comparison comparison(const Node& node);
  ast::Operand operand(const Node& node);
  ast::Call call(const Node& node);
  ast::Argument argument(const Node& node);
  ast::Value value(const Node& node);
  ast::Value value_list(const Node& node);

  std::vector<ast::Site> sites(const Node& node);
  std::optional<IndexSet::Range> index_range(const Node& node);
  IndexSet index_set(const Node& node);
  ast::PromptList prompt_list(const Node& node);
  ast::PromptItem prompt_item(const Node& node);
  ast::PromptsRef prompts_ref(const Node& node);

  ast::Name name(const Node& node);
  ast::Number number(const Node& node);
  ast::String string(const Node& node);
  ast::Regex regex(const Node& node);
  std::vector<ast::String> strings(const Node& list);
  Date date(const Node& node);

  Span span(const Node& node) const;
  Diagnostic& report(Code code, Span span, std::string message, std::vector<std::string> help = {});
  /// Keeps the first of what may be said once.
  template <class T>
  void once(std::optional<T>& slot, T value, Span span, std::string_view statement) {
    if (slot) {
      report(Code::duplicate_statement, span, "`" + std::string(statement) + "` stands twice in one declaration",
             {"keep one of them"});
    } else {
      slot = std::move(value);
    }
  }
  void require(bool present, Span span, const std::string& declaration, std::string what, std::string cure);
  void bound_list(const Node& list);

  std::string_view text_;
  SourceId source_;
  std::vector<Diagnostic>& diagnostics_;
};

}  // namespace proviso::dsl
