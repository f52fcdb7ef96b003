#include "dsl/convert.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "dsl/grammar.hpp"
#include "dsl/literals.hpp"
#include "dsl/transformer_lens.hpp"

namespace proviso::dsl {
namespace {

constexpr std::size_t kMaxItems = 100'000;

std::string in_ticks(std::string_view text) { return "`" + std::string(text) + "`"; }

Operation operation_from(std::string_view word) {
  for (const Operation op : {Operation::suppress, Operation::amplify, Operation::clamp, Operation::steer}) {
    if (operation_name(op) == word) return op;
  }
  return Operation::cap;
}

/// -1 where the operator says that the left is the smaller, 1 where it is the larger, 0 for `==` and `!=`.
int direction(Compare op) {
  switch (op) {
    case Compare::less:
    case Compare::less_equal:
      return -1;
    case Compare::greater:
    case Compare::greater_equal:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

Compare compare_from(std::string_view text) {
  for (const Compare op :
       {Compare::less, Compare::less_equal, Compare::greater, Compare::greater_equal, Compare::equal}) {
    if (compare_text(op) == text) return op;
  }
  return Compare::not_equal;
}

// ---- places and messages ---------------------------------------------------------------------

Span Converter::span(const Node& node) const {
  return {source_, static_cast<std::uint32_t>(node.m_begin.data - text_.data()),
          static_cast<std::uint32_t>(node.m_end.data - text_.data())};
}

Diagnostic& Converter::report(Code code, Span span, std::string message, std::vector<std::string> help) {
  return diagnostics_.emplace_back(make_diagnostic(code, span, std::move(message), std::move(help)));
}

void Converter::bound_list(const Node& list) {
  if (list.children.size() <= kMaxItems) return;
  report(Code::too_large, {source_, span(list).begin, span(list).begin + 1},
         "this list has " + std::to_string(list.children.size()) + " items, more than " + std::to_string(kMaxItems),
         {"keep it in a file of its own: `prompts NAME = from \"file.jsonl\"`"});
}

// ---- words and literals ----------------------------------------------------------------------

ast::Name Converter::name(const Node& node) { return {node.string(), span(node)}; }
ast::Number Converter::number(const Node& node) { return decode_number(node.string_view(), span(node), diagnostics_); }
ast::String Converter::string(const Node& node) { return decode_string(node.string_view(), span(node), diagnostics_); }
ast::Regex Converter::regex(const Node& node) { return decode_regex(node.string_view(), span(node), diagnostics_); }

std::vector<ast::String> Converter::strings(const Node& list) {
  bound_list(list);
  std::vector<ast::String> out;
  for (const auto& item : list.children) out.push_back(string(*item));
  return out;
}

Date Converter::date(const Node& node) {
  const std::string_view text = node.string_view();  // "2027-03-31"
  const auto digits = [&](std::size_t at, std::size_t count) {
    int value = 0;
    for (const char c : text.substr(at, count)) value = value * 10 + (c - '0');
    return value;
  };
  const Date date{digits(0, 4), digits(5, 2), digits(8, 2)};
  const std::chrono::year_month_day day{std::chrono::year(date.year),
                                        std::chrono::month(static_cast<unsigned>(date.month)),
                                        std::chrono::day(static_cast<unsigned>(date.day))};
  if (!day.ok())
    report(Code::invalid_date, span(node), "there is no such day as " + node.string(),
           {"a date is written YYYY-MM-DD"});
  return date;
}

// ---- sites -----------------------------------------------------------------------------------

std::optional<IndexSet::Range> Converter::index_range(const Node& node) {
  std::vector<std::int64_t> ends;
  for (const auto& end : node.children) {
    const auto index = number(*end).integer();
    if (!index || *index < 0) {
      report(Code::site_index, span(*end), in_ticks(end->string_view()) + " is no index",
             {"layers, heads and the like are whole numbers from 0"});
      return std::nullopt;
    }
    ends.push_back(*index);
  }
  if (ends.front() > ends.back()) {
    const std::string upwards = std::to_string(ends.back()) + ".." + std::to_string(ends.front());
    report(Code::site_index, span(node), "the range " + in_ticks(node.string_view()) + " runs downwards",
           {"write " + in_ticks(upwards)})
        .fixes.push_back({span(node), upwards});
    return std::nullopt;
  }
  return IndexSet::Range{ends.front(), ends.back()};
}

IndexSet Converter::index_set(const Node& node) {
  bound_list(node);
  IndexSet set;
  for (const auto& item : node.children) {
    if (is<grammar::everything>(*item)) {
      set.all = true;
      continue;
    }
    if (const auto range = index_range(*item)) set.ranges.push_back(*range);
  }
  return set;
}

ast::Site Converter::site(const Node& node) {
  ast::Site site;
  site.span = span(node);
  const Node& word = *child<grammar::site_word>(node);
  const Node* layers = child<grammar::layers_part>(node);
  const Node* heads = child<grammar::heads_part>(node);
  const std::string text = word.string();
  const bool foreign = is_transformer_lens_name(text);

  if (foreign) {
    auto read = site_from_transformer_lens(text);
    if (const auto* refused = std::get_if<NotEqual>(&read)) {
      Diagnostic& found = report(Code::unknown_site, span(word), refused->reason, {refused->help});
      if (!refused->instead.empty()) found.fixes.push_back({span(word), refused->instead, false});
      return site;
    }
    static_cast<SiteSpec&>(site) = std::get<SiteSpec>(std::move(read));
    site.span = span(node);
  } else if (const auto kind = site_from_name(text)) {
    site.kind = *kind;
  } else {
    std::vector<std::string> names;
    std::string all;
#define PROVISO_SITE(name, layered, heads, width) names.emplace_back(#name);
#include "dsl/sites.def"
#undef PROVISO_SITE
    for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
    auto fixes = spelling_fix(span(word), text, names);
    report(Code::unknown_site, span(word), in_ticks(text) + " is no site",
           {fixes.empty() ? "the sites are " + all : "did you mean " + in_ticks(fixes.front().replacement) + "?"})
        .fixes = std::move(fixes);
    return site;
  }

  if (layers) {
    const IndexSet set = index_set(*layers);
    if (foreign) {
      report(Code::site_index, span(*layers), in_ticks(text) + " names its layer already", {"leave the brackets out"})
          .fixes.push_back({span(*layers), "", false});
    } else if (!site_has_layer(site.kind)) {
      report(Code::site_index, span(*layers), in_ticks(text) + " has no layers", {"write " + in_ticks(text) + " alone"})
          .fixes.push_back({span(*layers), "", false});
    } else if (layers->children.empty()) {
      report(Code::site_index, span(*layers), "these brackets name no layer",
             {"write `" + text + "[*]` for all of them"})
          .fixes.push_back({span(*layers), "[*]", false});
    }
    if (!foreign) site.layers = set;
  } else if (!foreign && site_has_layer(site.kind)) {
    report(Code::site_index, span(word), in_ticks(text) + " needs its layer",
           {"write for example `" + text + "[12]`, `" + text + "[8..20]` or `" + text + "[*]`"})
        .fixes.push_back({span(word), text + "[*]", false});
  }
  if (heads) {
    site.heads = index_set(*heads);
    if (!site_has_heads(site.kind)) {
      report(Code::site_index, span(*heads), in_ticks(site_name(site.kind)) + " has no heads",
             {"the sites with heads are q, k, v, pattern and z"});
    } else if (heads->children.empty()) {
      report(Code::site_index, span(*heads), "these brackets name no head", {"leave `head` out for all of them"});
    }
  }
  return site;
}

std::vector<ast::Site> Converter::sites(const Node& node) {
  std::vector<ast::Site> out;
  for (const Node* each : children<grammar::site>(node)) out.push_back(site(*each));
  return out;
}

// ---- prompts ---------------------------------------------------------------------------------

ast::PromptItem Converter::prompt_item(const Node& node) {
  ast::PromptItem item{string(only(node)), {}, span(node)};
  for (std::size_t i = 1; i < node.children.size(); ++i) {
    const Node& answer = *node.children[i];
    if (is<grammar::string_list>(answer)) {
      item.answers = strings(answer);
      if (item.answers.empty())
        report(Code::syntax, span(answer), "this list of continuations is empty",
               {"leave `->` out where nothing is expected"});
    } else {
      item.answers.push_back(string(answer));
    }
  }
  return item;
}

ast::PromptList Converter::prompt_list(const Node& node) {
  bound_list(node);
  ast::PromptList list{{}, span(node)};
  for (const auto& item : node.children) list.items.push_back(prompt_item(*item));
  return list;
}

ast::PromptsRef Converter::prompts_ref(const Node& node) {
  if (is<grammar::prompt_list>(node)) return prompt_list(node);
  return name(node);
}

// ---- calls -----------------------------------------------------------------------------------

ast::Call Converter::call(const Node& node) {
  ast::Call out{name(*child<grammar::name>(node)), {}, span(node)};
  for (const Node* each : children<grammar::argument>(node)) out.arguments.push_back(argument(*each));
  return out;
}

ast::Argument Converter::argument(const Node& node) {
  ast::Argument out;
  out.span = span(node);
  if (const Node* label = child<grammar::label>(node)) out.label = name(*label);
  out.value = value(*node.children.back());
  return out;
}

ast::Value Converter::value(const Node& node) {
  if (is<grammar::rule_ref>(node)) return ast::RuleRef{name(only(node))};
  if (is<grammar::edit_ref>(node)) return ast::EditRef{name(only(node))};
  if (is<grammar::patch>(node)) return patch(node);
  if (is<grammar::inner_intervention>(node)) return intervention(node);
  if (is<grammar::regex>(node)) return regex(node);
  if (is<grammar::value_list>(node)) return value_list(node);
  if (is<grammar::difference>(node)) {
    if (node.children.size() == 1) return string(only(node));
    return ast::TokenDifference{string(*node.children[0]), string(*node.children[1]), span(node)};
  }
  if (is<grammar::everything>(node)) return ast::Indices{{true, {}}, span(node)};
  if (is<grammar::index_range>(node)) {
    IndexSet set;
    if (const auto range = index_range(node)) set.ranges.push_back(*range);
    return ast::Indices{set, span(node)};
  }
  if (node.children.size() > 1) return comparison(node);
  const ast::Operand single = operand(only(node));
  if (const auto* word = std::get_if<ast::PositionWord>(&single)) {
    report(Code::reserved_word, word->span, "`position` is a word of the language and no value",
           {"it stands in conditions: `when position >= 4`"});
    return ast::Name{"position", word->span};
  }
  if (const auto* number = std::get_if<ast::Number>(&single)) return *number;
  if (const auto* name = std::get_if<ast::Name>(&single)) return *name;
  return std::get<ast::Call>(single);
}

ast::Value Converter::value_list(const Node& node) {
  const auto prompts = children<grammar::prompt_item>(node);
  const auto ranges = children<grammar::index_range>(node);
  if (!prompts.empty() && !ranges.empty()) {
    report(Code::syntax, span(node), "this list holds both strings and numbers", {"a list holds one or the other"});
  }
  if (prompts.empty() && !ranges.empty()) return ast::Indices{index_set(node), span(node)};
  bound_list(node);
  ast::PromptList list{{}, span(node)};
  for (const Node* each : prompts) list.items.push_back(prompt_item(*each));
  return list;
}

// ---- conditions ------------------------------------------------------------------------------

ast::Operand Converter::operand(const Node& node) {
  if (is<grammar::number>(node)) return number(node);
  if (is<grammar::kw_position>(node)) return ast::PositionWord{span(node)};
  if (is<grammar::call>(node)) {
    ast::Call out = call(node);
    return out;
  }
  return name(node);
}

ast::Comparison Converter::comparison(const Node& node) {
  ast::Comparison out{operand(only(node)), {}, span(node)};
  for (std::size_t i = 1; i + 1 < node.children.size(); i += 2) {
    const Node& op = *node.children[i];
    out.links.push_back({compare_from(op.string_view()), operand(*node.children[i + 1])});
    const int way = direction(out.links.front().op);
    if (i > 1 && (way == 0 || direction(out.links.back().op) != way)) {
      report(Code::comparison_chain, span(op), "the operators of this chain do not point one way",
             {"write two comparisons joined with `and`"});
    }
  }
  return out;
}

ast::Condition Converter::condition(const Node& node) {
  if (node.children.size() == 1) return conjunction(only(node));
  ast::Or out;
  for (const auto& each : node.children) {
    ast::Condition part = conjunction(*each);
    if (const auto* inner = std::get_if<ast::Or>(&part.node)) {
      out.of.insert(out.of.end(), inner->of.begin(), inner->of.end());
    } else {
      out.of.push_back(std::move(part));
    }
  }
  return {std::move(out), span(node)};
}

ast::Condition Converter::conjunction(const Node& node) {
  if (node.children.size() == 1) return unary(only(node));
  ast::And out;
  for (const auto& each : node.children) {
    ast::Condition part = unary(*each);
    if (const auto* inner = std::get_if<ast::And>(&part.node)) {
      out.of.insert(out.of.end(), inner->of.begin(), inner->of.end());
    } else {
      out.of.push_back(std::move(part));
    }
  }
  return {std::move(out), span(node)};
}

ast::Condition Converter::unary(const Node& node) {
  const Node& inner = only(node);
  const Span place = span(inner);
  const auto operand = [&] { return ast::Box<ast::Condition>(unary(only(inner))); };
  if (is<grammar::condition>(inner)) return condition(inner);
  if (is<grammar::negation>(inner)) return {ast::Not{operand()}, place};
  if (is<grammar::any_position>(inner)) return {ast::Any{operand()}, place};
  if (is<grammar::last_token>(inner)) return {ast::Last{operand()}, place};
  if (is<grammar::kw_generated>(inner)) return {ast::Generated{}, place};
  if (is<grammar::prompt_matches>(inner)) return {ast::PromptMatches{regex(only(inner))}, place};
  if (is<grammar::token_in>(inner)) {
    const Node& test = only(inner);
    if (is<grammar::token_list>(test)) return {ast::TokenIn{strings(only(test)), true, span(only(test))}, place};
    return {ast::TokenIn{{string(only(test))}, false}, place};
  }
  return {comparison(inner), place};
}

// ---- interventions ---------------------------------------------------------------------------

ast::Intervention Converter::intervention(const Node& node) {
  ast::Intervention out;
  out.span = span(node);
  out.operation = operation_from(child<grammar::operation>(node)->string_view());
  const Node& acted_on = *child<grammar::feature_name, grammar::circuit_name>(node);
  out.circuit = is<grammar::circuit_name>(acted_on);
  out.feature = name(acted_on);
  out.sites = sites(node);
  if (const Node* when = child<grammar::condition>(node)) out.condition = ast::Box<ast::Condition>(condition(*when));

  const std::string operation(operation_name(out.operation));
  const bool to = out.operation == Operation::clamp || out.operation == Operation::cap;
  const std::string usage = "write `" + operation + " " + out.feature.text +
                            (to                                     ? " to 1.5`"
                             : out.operation == Operation::suppress ? " by 80%`"
                                                                    : " by 2`");
  if (const Node* amount = child<grammar::number>(node)) {
    out.amount = number(*amount);
    const Node& preposition = *child<grammar::preposition>(node);
    const std::string_view word = preposition.string_view();
    const bool fits = word == (to ? "to" : "by") || (word == "at" && out.operation == Operation::cap);
    if (!fits)
      report(Code::syntax, span(preposition),
             in_ticks(operation) + " takes its amount with `" + (to ? "to" : "by") + "`, found " + in_ticks(word),
             {usage})
          .fixes.push_back({span(preposition), to ? "to" : "by"});
  } else if (out.operation != Operation::suppress) {
    report(Code::syntax, span(acted_on), in_ticks(operation) + " needs its amount", {usage});
  }
  return out;
}

ast::Patch Converter::patch(const Node& node) {
  ast::Patch out;
  out.span = span(node);
  if (const Node* feature = child<grammar::feature_name>(node)) out.feature = name(*feature);
  out.sites = sites(node);
  const Node& source = *child<grammar::name, grammar::prompt_list, grammar::call>(node);
  if (is<grammar::call>(source)) {
    out.source = call(source);
  } else if (is<grammar::prompt_list>(source)) {
    out.source = prompt_list(source);
  } else {
    out.source = name(source);
  }
  if (const Node* when = child<grammar::condition>(node)) out.condition = ast::Box<ast::Condition>(condition(*when));
  return out;
}

}  // namespace proviso::dsl
