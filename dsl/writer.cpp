#include "dsl/writer.hpp"

#include "dsl/format.hpp"
#include "dsl/literals.hpp"

namespace proviso::dsl {
namespace {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

std::string item_text(const ast::PromptItem& item) {
  std::string text = encode_string(item.text.value);
  if (item.answers.empty()) return text;
  std::string answers;
  for (const ast::String& answer : item.answers) answers += (answers.empty() ? "" : ", ") + encode_string(answer.value);
  return text + " -> " + (item.answers.size() == 1 ? answers : "[" + answers + "]");
}

std::string indices_text(const IndexSet& set) {
  SiteSpec layers;
  layers.kind = SiteKind::mlp_out;
  layers.layers = set;
  if (set.all) return "*";
  const std::string site = to_string(layers);  // "mlp_out[1, 4..6]"
  const std::string brackets = site.substr(site.find('['));
  const bool range = set.ranges.size() == 1 && set.ranges[0].first != set.ranges[0].last;
  return range ? brackets.substr(1, brackets.size() - 2) : brackets;
}

}  // namespace

std::string WrittenList::flat() const {
  std::string text;
  for (const auto& [span, item] : items) text += (text.empty() ? "" : ", ") + item;
  return "[" + text + "]";
}

Writer& Writer::raw(std::string_view text) {
  texts_.back() += text;
  return *this;
}

Writer& Writer::word(std::string_view text) {
  if (!glue_) texts_.back() += ' ';
  glue_ = false;
  texts_.back() += text;
  return *this;
}

Writer& Writer::list(WrittenList list) {
  word("");
  lists_.push_back(std::move(list));
  texts_.emplace_back();
  return *this;
}

std::string Writer::flat() const {
  std::string text = texts_.front();
  for (std::size_t i = 0; i < lists_.size(); ++i) text += lists_[i].flat() + texts_[i + 1];
  return text;
}

Writer& Writer::operator<<(const ast::String& string) { return word(encode_string(string.value)); }
Writer& Writer::operator<<(const ast::Regex& regex) { return word(encode_regex(regex)); }

Writer& Writer::operator<<(const ast::PromptsRef& prompts) {
  std::visit([&](const auto& reference) { *this << reference; }, prompts);
  return *this;
}

Writer& Writer::sides(const std::pair<ast::PromptsRef, ast::PromptsRef>& sets) {
  word("(");
  glue_ = true;
  return ((*this << sets.first).raw(",") << sets.second).raw(")");
}

Writer& Writer::classes(const std::vector<ast::PromptsRef>& sets) {
  word("[");
  glue_ = true;
  separated(sets, [&](const ast::PromptsRef& set) { *this << set; });
  return raw("]");
}

Writer& Writer::operator<<(const ast::PromptList& prompts) {
  WrittenList written{{}, prompts.span};
  for (const ast::PromptItem& item : prompts.items) written.items.emplace_back(item.span, item_text(item));
  return list(std::move(written));
}

Writer& Writer::strings(const std::vector<ast::String>& values, Span span) {
  WrittenList written{{}, span};
  for (const ast::String& value : values) written.items.emplace_back(value.span, encode_string(value.value));
  return list(std::move(written));
}

Writer& Writer::operator<<(const ast::Call& call) {
  *this << call.name;
  if (call.arguments.empty()) return *this;
  raw("(");
  glue_ = true;
  separated(call.arguments, [&](const ast::Argument& argument) {
    if (argument.label) (*this << *argument.label).raw(":");
    value(argument.value);
  });
  return raw(")");
}

Writer& Writer::value(const ast::Value& value) {
  std::visit(Overloaded{
                 [&](const ast::Indices& indices) { word(indices_text(indices.set)); },
                 [&](const ast::TokenDifference& tokens) { (*this << tokens.plus).word("-") << tokens.minus; },
                 [&](const ast::Intervention& change) { intervention(change, true); },
                 [&](const ast::RuleRef& reference) { word("rule") << reference.rule; },
                 [&](const ast::EditRef& reference) { word("edit") << reference.edit; },
                 [&](const auto& node) { *this << node; },
             },
             value);
  return *this;
}

// ---- conditions ------------------------------------------------------------------------------

Writer& Writer::operand(const ast::Operand& operand) {
  std::visit(Overloaded{
                 [&](const ast::PositionWord&) { word("position"); },
                 [&](const auto& node) { *this << node; },
             },
             operand);
  return *this;
}

Writer& Writer::operator<<(const ast::Comparison& comparison) {
  operand(comparison.left);
  for (const auto& [op, right] : comparison.links) word(compare_text(op)).operand(right);
  return *this;
}

Writer& Writer::grouped(const ast::Condition& condition, bool parentheses) {
  if (!parentheses) return *this << condition;
  word("(");
  glue_ = true;
  return (*this << condition).raw(")");
}

Writer& Writer::operator<<(const ast::Condition& condition) {
  const auto is_or = [](const ast::Condition& c) { return std::holds_alternative<ast::Or>(c.node); };
  const auto is_joined = [&](const ast::Condition& c) { return is_or(c) || std::holds_alternative<ast::And>(c.node); };
  std::visit(Overloaded{
                 [&](const ast::Comparison& node) { *this << node; },
                 [&](const ast::PromptMatches& node) { word("prompt matches") << node.regex; },
                 [&](const ast::TokenIn& node) {
                   if (node.list) {
                     word("token in").strings(node.texts, node.span);
                   } else {
                     word("token is") << node.texts.front();
                   }
                 },
                 [&](const ast::Generated&) { word("generated"); },
                 [&](const ast::Any& node) { word("any").grouped(*node.of, is_joined(*node.of)); },
                 [&](const ast::Last& node) { word("last").grouped(*node.of, is_joined(*node.of)); },
                 [&](const ast::Not& node) { word("not").grouped(*node.of, is_joined(*node.of)); },
                 [&](const ast::And& node) {
                   for (std::size_t i = 0; i < node.of.size(); ++i) {
                     if (i > 0) word("and");
                     grouped(node.of[i], is_or(node.of[i]));
                   }
                 },
                 [&](const ast::Or& node) {
                   for (std::size_t i = 0; i < node.of.size(); ++i) {
                     if (i > 0) word("or");
                     *this << node.of[i];
                   }
                 },
             },
             condition.node);
  return *this;
}

// ---- interventions and expectations ----------------------------------------------------------

Writer& Writer::sites(const std::vector<ast::Site>& sites, bool inside_parentheses) {
  const bool brackets = inside_parentheses && sites.size() > 1;
  if (brackets) {
    word("[");
    glue_ = true;
  }
  separated(sites, [&](const ast::Site& site) { word(to_string(site)); });
  return brackets ? raw("]") : *this;
}

Writer& Writer::intervention(const ast::Intervention& node, bool inside_parentheses) {
  word(operation_name(node.operation));
  if (node.circuit) word("circuit");
  *this << node.feature;
  if (node.amount) {
    const bool to = node.operation == Operation::clamp || node.operation == Operation::cap;
    word(to ? "to" : "by") << *node.amount;
  }
  if (!node.sites.empty()) word("at").sites(node.sites, inside_parentheses);
  if (node.condition) word("when") << **node.condition;
  return *this;
}

Writer& Writer::operator<<(const ast::Patch& node) {
  word("patch");
  if (node.feature) {
    word("feature") << *node.feature;
  } else {
    sites(node.sites, true);
  }
  word("from");
  std::visit([&](const auto& source) { *this << source; }, node.source);
  if (node.condition) word("when") << **node.condition;
  return *this;
}

Writer& Writer::operator<<(const ast::Expectation& expectation) {
  *this << expectation.metric;
  word(compare_text(expectation.op)) << expectation.bound;
  if (expectation.relative) word("relative");
  if (expectation.beyond_control) word("beyond control");
  if (expectation.confidence) (word("at") << *expectation.confidence).word("confidence");
  if (!expectation.across.empty()) {
    word("across").separated(expectation.across, [&](const ast::Call& sweep) { *this << sweep; });
  }
  return *this;
}

// ---- one line --------------------------------------------------------------------------------

std::string canonical_text(const ast::Expectation& expectation) { return (Writer() << expectation).flat(); }
std::string canonical_text(const ast::Call& call) { return (Writer() << call).flat(); }
std::string canonical_text(const ast::Intervention& node) { return Writer().intervention(node, false).flat(); }
std::string canonical_text(const ast::Patch& node) { return (Writer() << node).flat(); }
std::string canonical_text(const ast::Condition& condition) { return (Writer() << condition).flat(); }
std::string canonical_text(const ast::Value& value) { return Writer().value(value).flat(); }

}  // namespace proviso::dsl
