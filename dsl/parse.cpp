#include "dsl/parse.hpp"

#include <algorithm>
#include <string_view>
#include <tao/pegtl.hpp>
#include <tao/pegtl/contrib/parse_tree.hpp>
#include <utility>

#include "dsl/convert.hpp"
#include "dsl/grammar.hpp"
#include "dsl/literals.hpp"
#include "dsl/messages.hpp"
#include "dsl/selector.hpp"
#include "dsl/utf8.hpp"

namespace proviso::dsl {
namespace {

namespace pegtl = tao::pegtl;
using Input = pegtl::memory_input<pegtl::tracking_mode::lazy>;

constexpr std::size_t kMaxFileSize = 1 << 20;

template <class Rule>
bool stands_at(std::string_view text, std::size_t at) {
  Input in(text.data() + at, text.data() + text.size(), "");
  return pegtl::parse<Rule>(in);
}

std::size_t skip_layout(std::string_view text, std::size_t at) {
  Input in(text.data() + at, text.data() + text.size(), "");
  pegtl::parse<grammar::layout>(in);
  return static_cast<std::size_t>(in.current() - text.data());
}

/// The next declaration word in column 1, at `from` or later.
std::size_t next_declaration(std::string_view text, std::size_t from) {
  while (from < text.size()) {
    if ((from == 0 || text[from - 1] == '\n') && stands_at<grammar::declaration_word>(text, from)) return from;
    from = std::min(text.find('\n', from), text.size() - 1) + 1;
  }
  return text.size();
}

struct Problem {
  Diagnostic diagnostic;
  std::size_t at;
};

/// The tree of one `Rule` at `at`, or why there is none.
template <class Rule>
std::variant<std::unique_ptr<Node>, Problem> tree(std::string_view text, SourceId source, std::size_t at) {
  Input in(text.data() + at, text.data() + text.size(), "");
  grammar::Cursor cursor{in.current(), in.current()};
  try {
    return pegtl::parse_tree::parse<Rule, Node, selector, grammar::action, grammar::control>(in, cursor);
  } catch (const SyntaxError& error) {
    return Problem{diagnose(error, text, source), static_cast<std::size_t>(error.at - text.data())};
  } catch (const pegtl::parse_error& error) {  // only `limit_depth` throws one
    const std::size_t deep = at + error.positions().front().byte;
    const Span span{source, static_cast<std::uint32_t>(deep), static_cast<std::uint32_t>(deep + 1)};
    return Problem{
        make_diagnostic(Code::too_deep, span, "this nests more than " + std::to_string(grammar::kMaxNesting) + " deep",
                        {"split the condition over several interventions"}),
        deep};
  }
}

bool readable(std::string_view text, SourceId source, std::vector<Diagnostic>& diagnostics) {
  if (text.size() > kMaxFileSize) {
    diagnostics.push_back(make_diagnostic(
        Code::too_large, {source, 0, 0}, "this file is larger than 1 MiB (" + std::to_string(text.size()) + " bytes)",
        {"keep long lists of prompts in a file of their own: `prompts NAME = from \"file.jsonl\"`"}));
    return false;
  }
  if (const auto at = invalid_utf8(text)) {
    const auto begin = static_cast<std::uint32_t>(*at);
    diagnostics.push_back(make_diagnostic(
        Code::invalid_utf8, {source, begin, begin},
        "this file is not UTF-8: the byte at offset " + std::to_string(*at) + " belongs to no character",
        {"save the file as UTF-8"}));
    return false;
  }
  return true;
}

/// A direction mark is reported once, and not again as a token that does not fit.
bool direction_mark_at(std::string_view text, std::size_t at) {
  return at < text.size() && is_direction_mark(front_code_point(text.substr(at)).value);
}

void find_direction_marks(std::string_view text, SourceId source, std::vector<Diagnostic>& diagnostics) {
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint c = front_code_point(text.substr(i));
    if (is_direction_mark(c.value)) {
      const std::string escape = encode_string(text.substr(i, c.length));  // "\u202e", in quotes
      const Span span{source, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i + c.length)};
      diagnostics.push_back(
          make_diagnostic(Code::direction_mark, span, "an invisible direction mark stands here",
                          {"remove it, or write it as " + escape.substr(1, escape.size() - 2) + " in a string"}));
    }
    i += c.length;
  }
}

/// A carriage return by itself ends no line, so that a comment before it would hide what follows.
void find_lone_return(std::string_view text, SourceId source, std::vector<Diagnostic>& diagnostics) {
  for (std::size_t at = text.find('\r'); at != std::string_view::npos; at = text.find('\r', at + 1)) {
    const std::size_t next = text.find_first_not_of('\r', at);
    if (next == std::string_view::npos || text[next] == '\n') {
      at = std::min(next, text.size()) - 1;
      continue;
    }
    const auto begin = static_cast<std::uint32_t>(at);
    diagnostics.push_back(make_diagnostic(Code::syntax, {source, begin, begin + 1},
                                          "a carriage return stands here without a line feed, and ends no line",
                                          {"save the file with the line ends of Unix or Windows"}));
    return;
  }
}

std::string_view identifier_at(std::string_view text, std::size_t at) {
  Input in(text.data() + at, text.data() + text.size(), "");
  pegtl::parse<grammar::identifier>(in);
  return text.substr(at, static_cast<std::size_t>(in.current() - text.data()) - at);
}

/// Notes what is lost with a text that could not be read: the names that its declarations give (`rule calm { supress`),
/// the first of which may begin with a wrong word, and files that it uses.
void lose(std::string_view text, std::size_t at, std::size_t end, Parsed& parsed) {
  for (bool first = true; at < end; first = false) {
    while (at < end && identifier_at(text, at).empty()) ++at;
    if (at >= end) return;
    const std::string_view word = identifier_at(text, at);
    const std::size_t next = skip_layout(text, at + word.size());
    const bool names_file = next < text.size() && (text[next] == '"' || text.substr(next).starts_with("std/"));
    const bool declares = stands_at<grammar::declaration_word>(text, at);
    if (names_file && (word == "use" || (first && !declares))) parsed.lost_use = true;
    if ((declares || first) && word != "use" && word != "waive" && word != "model") {
      const std::string_view name = identifier_at(text, next);
      if (!name.empty()) parsed.lost.emplace_back(name);
    }
    at += word.size();
  }
}

}  // namespace

Parsed parse(const SourceSet& sources, SourceId source) {
  Parsed parsed;
  parsed.file.source = source;
  std::vector<Diagnostic>& diagnostics = parsed.diagnostics;
  const std::string_view text = sources.at(source).text;
  if (!readable(text, source, diagnostics)) {
    parsed.lost_use = true;
    return parsed;
  }
  find_direction_marks(text, source, diagnostics);
  find_lone_return(text, source, diagnostics);

  std::size_t at = text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  while ((at = skip_layout(text, at)) < text.size()) {
    if (!stands_at<grammar::declaration_word>(text, at)) {
      if (!direction_mark_at(text, at))
        diagnostics.push_back(unknown_declaration(text, source, static_cast<std::uint32_t>(at)));
      const std::size_t next = next_declaration(text, at + 1);
      lose(text, at, next, parsed);
      at = next;
      continue;
    }
    auto read = tree<grammar::declaration>(text, source, at);
    if (auto* problem = std::get_if<Problem>(&read)) {
      if (!direction_mark_at(text, problem->at)) diagnostics.push_back(std::move(problem->diagnostic));
      const std::size_t next = next_declaration(text, std::max(problem->at, at + 1));
      lose(text, at, next, parsed);
      at = next;
      continue;
    }
    const Node& node = *std::get<0>(read)->children.front();
    const std::size_t before = diagnostics.size();
    ast::Declaration declaration = Converter(text, source, diagnostics).declaration(node);
    // A declaration that does not say what it seems to would only bring errors about errors.
    const auto end = static_cast<std::size_t>(node.m_end.data - text.data());
    if (diagnostics.size() == before) {
      parsed.file.declarations.push_back(std::move(declaration));
    } else {
      lose(text, at, end, parsed);
    }
    at = end;
  }
  return parsed;
}

std::optional<SiteSpec> parse_site(std::string_view text) {
  if (invalid_utf8(text)) return std::nullopt;
  const auto read = tree<grammar::lone_site>(text, 0, 0);
  const auto* root = std::get_if<std::unique_ptr<Node>>(&read);
  if (!root || !*root) return std::nullopt;
  std::vector<Diagnostic> diagnostics;
  const ast::Site site = Converter(text, 0, diagnostics).site(*(*root)->children.front());
  if (!diagnostics.empty()) return std::nullopt;
  return site;
}

}  // namespace proviso::dsl
