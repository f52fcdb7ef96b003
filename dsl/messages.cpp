#include "dsl/messages.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <utility>
#include <vector>

#include "dsl/literals.hpp"

namespace proviso::dsl {
namespace {

enum class Opens { nothing, declaration };

struct Word {
  std::string_view text;
  Opens opens;
};

constexpr Word kWords[] = {
#define PROVISO_WORD(word, opens) {#word, Opens::opens},
#include "dsl/words.def"
};

bool is_word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(std::string_view token) {
  return !token.empty() && is_word_char(token.front()) && !is_digit(token.front());
}

const Word* reserved_word(std::string_view token) {
  const auto found = std::find_if(std::begin(kWords), std::end(kWords), [&](const Word& w) { return w.text == token; });
  return found == std::end(kWords) ? nullptr : found;
}

bool opens_declaration(std::string_view token) {
  const Word* word = reserved_word(token);
  return word && word->opens == Opens::declaration;
}

std::vector<std::string> declaration_words() {
  std::vector<std::string> words;
  for (const Word& word : kWords) {
    if (word.opens == Opens::declaration) words.emplace_back(word.text);
  }
  return words;
}

std::vector<std::string> split(std::string_view words) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < words.size();) {
    const std::size_t end = std::min(words.find(' ', i), words.size());
    out.emplace_back(words.substr(i, end - i));
    i = end + 1;
  }
  return out;
}

/// The token at the front of `text`: a word, a number, a string on one line, or one code point.
std::string_view front_token(std::string_view text) {
  if (text.empty()) return {};
  if (is_word_char(text.front())) {
    std::size_t end = 1;
    while (end < text.size() && is_word_char(text[end])) ++end;
    return text.substr(0, end);
  }
  if (text.front() == '"') {
    for (std::size_t i = 1; i < text.size() && text[i] != '\n'; ++i) {
      if (text[i] == '"') return text.substr(0, i + 1);
      if (text[i] == '\\') ++i;
    }
    return text.substr(0, 1);
  }
  return text.substr(0, front_code_point(text).length);
}

/// A token within a message: long ones, which are never names that someone chose, are cut.
std::string in_ticks(std::string_view token) {
  constexpr std::size_t kLongest = 60;
  std::string text = "`";
  text.append(token.substr(0, kLongest)).append(token.size() > kLongest ? "…`" : "`");
  return text;
}

std::string name_of(std::string_view token) {
  if (token.empty()) return "the end of the file";
  if (token.front() == '"') return "a string";
  return in_ticks(token);
}

/// One place where reading stopped, with what stands around it.
struct Stop {
  Expected expected;
  std::string_view text;
  SourceId source;
  std::size_t before;
  std::size_t at;
  std::string_view found;     // "" at the end of the file
  std::string_view previous;  // the character that ends the token before
  bool new_line;              // what was found stands on a later line than the token before

  Span span(std::size_t begin, std::size_t end) const {
    return {source, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)};
  }
  Span found_span() const { return span(at, at + found.size()); }
  bool expects(Expected::Kind kind) const { return expected.kind == kind; }
};

Diagnostic at_found(const Stop& stop, Code code, std::string message, std::vector<std::string> help = {}) {
  return make_diagnostic(code, stop.found_span(), std::move(message), std::move(help));
}

Diagnostic fixed(Diagnostic diagnostic, Fix fix) {
  diagnostic.fixes.push_back(std::move(fix));
  return diagnostic;
}

std::string expected_found(const Stop& stop) {
  return "expected " + std::string(stop.expected.what) + ", found " + name_of(stop.found);
}

// ---- literals that end too late or never -----------------------------------------------------

Diagnostic unterminated(const Stop& stop, Code code, char quote, std::string message, std::string help) {
  std::size_t begin = stop.at;
  while (begin > 0 && stop.text[begin - 1] != '\n') --begin;
  // The opening delimiter is the last on this line that no literal before it takes up.
  for (std::size_t i = begin; i < stop.at; ++i) {
    if (stop.text[i] != quote) continue;
    begin = i++;
    while (i < stop.at && stop.text[i] != quote) i += stop.text[i] == '\\' ? 2 : 1;
  }
  return make_diagnostic(code, stop.span(begin, stop.at), std::move(message), {std::move(help)});
}

Diagnostic malformed_number(const Stop& stop) {
  const auto in_number = [](char c) { return is_word_char(c) || c == '.' || c == '%' || c == '+' || c == '-'; };
  std::size_t begin = stop.at, end = stop.at;
  while (begin > 0 && in_number(stop.text[begin - 1])) --begin;
  while (end < stop.text.size() && in_number(stop.text[end])) ++end;
  const std::string literal(stop.text.substr(begin, end - begin));
  return make_diagnostic(Code::invalid_number, stop.span(begin, end), in_ticks(literal) + " is not a number",
                         {"numbers are written 3, -0.5, 1e-3 or 95%"});
}

Diagnostic malformed_date(const Stop& stop) {
  std::size_t end = stop.at;
  while (end < stop.text.size() && (is_word_char(stop.text[end]) || stop.text[end] == '-')) ++end;
  return make_diagnostic(Code::invalid_date, stop.span(stop.at, end),
                         in_ticks(stop.text.substr(stop.at, end - stop.at)) + " is not a date",
                         {"a date is written YYYY-MM-DD"});
}

// ---- what people write from other languages --------------------------------------------------

/// `'text'` and `“text”` between double quotes, where nothing inside would then need an escape.
Diagnostic requoted(const Stop& stop, Diagnostic diagnostic) {
  constexpr std::pair<std::string_view, std::string_view> kQuotes[] = {{"'", "'"}, {"“", "”"}, {"”", "”"},
                                                                       {"‘", "’"}, {"’", "’"}, {"«", "»"}};
  const auto quotes =
      std::find_if(std::begin(kQuotes), std::end(kQuotes), [&](const auto& pair) { return pair.first == stop.found; });
  if (quotes == std::end(kQuotes)) return diagnostic;
  const std::size_t begin = stop.at + quotes->first.size();
  const std::string_view line = stop.text.substr(begin, stop.text.find('\n', begin) - begin);
  const std::size_t length = line.find(quotes->second);
  if (length == std::string_view::npos) return diagnostic;
  const std::string_view inside = line.substr(0, length);
  if (inside.find_first_of("\"\\") != std::string_view::npos) return diagnostic;
  return fixed(std::move(diagnostic),
               {stop.span(stop.at, begin + length + quotes->second.size()), "\"" + std::string(inside) + "\""});
}

/// `&&` as `and`, `||` as `or`, `!` as `not`, apart from the words around.
Fix joining_word(const Stop& stop) {
  std::size_t end = stop.at + 1;
  if (stop.found != "!" && end < stop.text.size() && stop.text[end] == stop.found.front()) ++end;
  const auto is_blank = [&](std::size_t i) {
    return i < stop.text.size() && std::isspace(static_cast<unsigned char>(stop.text[i])) != 0;
  };
  std::string word = stop.found == "&" ? "and" : stop.found == "|" ? "or" : "not";
  if (stop.at == stop.before) word.insert(0, " ");
  if (!is_blank(end)) word += ' ';
  return {stop.span(stop.at, end), std::move(word)};
}

/// What looks like a space or like nothing: a name for it, in a message where it could not be seen.
std::string_view invisible(std::uint32_t code_point) {
  switch (code_point) {
    case 0x00A0:
    case 0x2007:
    case 0x202F:
      return "a no-break space";
    case 0x200B:
    case 0x2060:
    case 0xFEFF:
      return "a space without width";
    case 0x3000:
      return "an ideographic space";
    default:
      return {};
  }
}

std::optional<Diagnostic> foreign_letter(const Stop& stop) {
  if (stop.found.empty() || static_cast<unsigned char>(stop.found.front()) < 0x80) return std::nullopt;
  const std::uint32_t code_point = front_code_point(stop.found).value;
  if (const std::string_view space = invisible(code_point); !space.empty()) {
    return fixed(
        at_found(stop, Code::syntax, "expected " + std::string(stop.expected.what) + ", found " + std::string(space),
                 {"write a plain space"}),
        {stop.found_span(), " "});
  }
  const bool ends_word = stop.before == stop.at && !stop.previous.empty() && is_word_char(stop.previous.front());
  if (!ends_word && !stop.expects(Expected::Kind::name)) return std::nullopt;
  return at_found(stop, Code::syntax, expected_found(stop),
                  {"names are made of the letters a to z and A to Z, digits and `_`"});
}

std::optional<Diagnostic> foreign_spelling(const Stop& stop) {
  if (auto diagnostic = foreign_letter(stop)) return diagnostic;
  const char next = stop.at + 1 < stop.text.size() ? stop.text[stop.at + 1] : '\0';
  const std::string_view found = stop.found;
  if (found == "%" && !stop.previous.empty() && is_digit(stop.previous.front())) {
    return fixed(
        make_diagnostic(Code::invalid_number, stop.span(stop.before, stop.at + 1),
                        "`%` follows its number without a space", {"write the number and `%` together: `80%`"}),
        {stop.span(stop.before, stop.at + 1), "%"});
  }
  if ((found == "." || found == "+") && is_digit(next)) {
    std::size_t end = stop.at + 1;
    while (end < stop.text.size() && (is_word_char(stop.text[end]) || stop.text[end] == '.')) ++end;
    const std::string literal(stop.text.substr(stop.at, end - stop.at));
    return fixed(make_diagnostic(Code::invalid_number, stop.span(stop.at, end), in_ticks(literal) + " is not a number",
                                 {found == "." ? "a digit stands on both sides of the point: `0.5`"
                                               : "numbers have no plus sign: leave it out"}),
                 {stop.span(stop.at, stop.at + 1), found == "." ? "0." : ""});
  }
  if (found == "'" || found == "“" || found == "”" || found == "‘" || found == "’" || found == "«") {
    return requoted(stop,
                    at_found(stop, Code::syntax, expected_found(stop), {"strings stand between double quotes: \"…\""}));
  }
  if (found == "&" || found == "|" || (found == "!" && next != '=')) {
    return fixed(
        at_found(stop, Code::syntax, expected_found(stop), {"conditions are joined with `and`, `or` and `not`"}),
        joining_word(stop));
  }
  if (found == "=" && stop.expects(Expected::Kind::comparison)) {
    return fixed(at_found(stop, Code::syntax, expected_found(stop), {"equality is written `==`"}),
                 {stop.found_span(), "=="});
  }
  if (found == "=" && (stop.expects(Expected::Kind::arguments_end) || stop.expects(Expected::Kind::colon))) {
    return fixed(
        at_found(stop, Code::syntax, expected_found(stop), {"a named argument is written with a colon: `name: value`"}),
        {stop.span(stop.before, stop.at + 1), ":"});
  }
  if (found == ":" && stop.expects(Expected::Kind::equals)) {
    return fixed(at_found(stop, Code::syntax, expected_found(stop), {"a declaration is written with `=`: `NAME = …`"}),
                 {stop.span(stop.before, stop.at + 1), " ="});
  }
  if (found == "[" && stop.expects(Expected::Kind::arguments_end) && stop.before == stop.at) {
    return at_found(stop, Code::syntax, expected_found(stop),
                    {"inside parentheses several sites stand in brackets: `at [mlp_out[*], attn_out[*]]`"});
  }
  if (found == "/" && stop.before == stop.at) {
    return at_found(stop, Code::syntax, expected_found(stop), {"a `/` inside a regular expression is written `\\/`"});
  }
  if ((found == "+" || found == "*" || found == "/" || found == "-") && !stop.new_line && !stop.previous.empty() &&
      (is_word_char(stop.previous.front()) || stop.previous == "%" || stop.previous == ")")) {
    return at_found(stop, Code::syntax, expected_found(stop), {"there is no arithmetic: write the value itself"});
  }
  return std::nullopt;
}

// ---- the ends of lists and bodies ------------------------------------------------------------

Diagnostic list_end(const Stop& stop) {
  const bool after_separator = stop.previous == "," || stop.previous == "[" || stop.new_line;
  if (!after_separator && !stop.found.empty() && (stop.found.front() == '"' || is_word_char(stop.found.front()))) {
    return fixed(at_found(stop, Code::missing_separator, "two items of a list stand on one line without a comma",
                          {"put a comma or a line break between them"}),
                 {stop.span(stop.before, stop.before), ","});
  }
  const std::string what = after_separator ? "an item of the list, or `]`" : "`,` or `]`";
  std::vector<std::string> help;
  if (stop.found.empty() || opens_declaration(stop.found)) help.push_back("close the list with `]`");
  if (stop.found.empty())
    return make_diagnostic(Code::syntax, stop.span(stop.before, stop.before),
                           "expected " + what + ", found the end of the file", help);
  return at_found(stop, Code::syntax, "expected " + what + ", found " + name_of(stop.found), std::move(help));
}

Diagnostic body_end(const Stop& stop) {
  if (stop.found.empty()) {
    return make_diagnostic(Code::syntax, stop.span(stop.before, stop.before), expected_found(stop),
                           {"close the declaration with `}`"});
  }
  if (opens_declaration(stop.found)) {
    return at_found(stop, Code::syntax, expected_found(stop), {"close the declaration before this one with `}`"});
  }
  constexpr std::string_view kOrder = "write `OPERATION FEATURE AMOUNT at SITES when CONDITION`";
  const bool in_rule = stop.expects(Expected::Kind::rule_end);
  if (in_rule && stop.found == "at") {
    return at_found(stop, Code::syntax, "`at` stands before `when`", {std::string(kOrder)});
  }
  if (stop.found == "at") {
    return at_found(stop, Code::syntax, "`at N% confidence` does not stand here",
                    {"write `expect METRIC OP NUMBER at N% confidence across …`"});
  }
  if (stop.found == "beyond" || stop.found == "relative") {
    return at_found(stop, Code::syntax, in_ticks(stop.found) + " stands before the confidence",
                    {"write `expect METRIC OP NUMBER relative beyond control at N% confidence across …`"});
  }
  if (in_rule && (stop.found == "by" || stop.found == "to")) {
    return at_found(stop, Code::syntax, "the amount stands before `at` and `when`", {std::string(kOrder)});
  }
  if (stop.found == "(" && stop.before == stop.at) {
    return at_found(stop, Code::syntax, expected_found(stop), {"layers stand in square brackets: `mlp_out[3]`"});
  }
  if (!is_word(stop.found)) return at_found(stop, Code::syntax, expected_found(stop));
  std::vector<std::string> words = split(stop.expected.statements);
  const std::vector<std::string> notes = split(kNotes);
  words.insert(words.end(), notes.begin(), notes.end());
  auto fixes = spelling_fix(stop.found_span(), stop.found, words);
  std::string help;
  if (!fixes.empty()) {
    help = "did you mean " + in_ticks(fixes.front().replacement) + "?";
  } else {
    help = "here can stand";
    for (std::size_t i = 0; i < words.size(); ++i) help += (i == 0 ? " `" : ", `") + words[i] + "`";
  }
  Diagnostic found =
      at_found(stop, Code::unknown_statement, in_ticks(stop.found) + " opens no statement here", {std::move(help)});
  found.fixes = std::move(fixes);
  return found;
}

}  // namespace

Diagnostic diagnose(const SyntaxError& error, std::string_view text, SourceId source) {
  Stop stop{error.expected,
            text,
            source,
            static_cast<std::size_t>(error.before - text.data()),
            static_cast<std::size_t>(error.at - text.data()),
            {},
            {},
            false};
  stop.found = front_token(text.substr(stop.at));
  // Layout that a list's separator has taken up belongs to no token either.
  while (stop.before > 0 && std::string_view(" \t\r\n").find(text[stop.before - 1]) != std::string_view::npos)
    --stop.before;
  if (stop.before > 0) stop.previous = text.substr(stop.before - 1, 1);
  stop.new_line = text.substr(stop.before, stop.at - stop.before).find('\n') != std::string_view::npos;

  switch (stop.expected.kind) {
    case Expected::Kind::string_end:
      return unterminated(stop, Code::invalid_string, '"', "this string is not closed on its line",
                          "close it with `\"`; a line break inside is written `\\n`");
    case Expected::Kind::regex_end:
      return unterminated(stop, Code::invalid_regex_literal, '/', "this regular expression is not closed on its line",
                          "close it with `/`; a `/` inside is written `\\/`");
    case Expected::Kind::number_end:
      return malformed_number(stop);
    default:
      break;
  }
  if (auto diagnostic = foreign_spelling(stop)) return *std::move(diagnostic);
  if (stop.expects(Expected::Kind::arguments_end) && (stop.previous == "(" || stop.previous == ",")) {
    stop.expected = {"an argument, or `)`", Expected::Kind::name};
  }
  if (stop.expects(Expected::Kind::date) && !stop.found.empty() && is_digit(stop.found.front()))
    return malformed_date(stop);
  if (stop.expects(Expected::Kind::list_end)) return list_end(stop);
  if (stop.expects(Expected::Kind::body_end) || stop.expects(Expected::Kind::rule_end)) return body_end(stop);
  if (stop.expects(Expected::Kind::name) && !stop.new_line && reserved_word(stop.found)) {
    return at_found(stop, Code::reserved_word,
                    in_ticks(stop.found) + " is a word of the language, found where " +
                        std::string(stop.expected.what) + " should stand",
                    {"a name cannot be one of the language's own words: call it, for example, `my_" +
                     std::string(stop.found) + "`"});
  }
  if (stop.found.empty() || stop.new_line) {
    return make_diagnostic(Code::syntax, stop.span(stop.before, stop.before),
                           "expected " + std::string(stop.expected.what) + " before the end of the " +
                               (stop.found.empty() ? "file" : "line"));
  }
  return at_found(stop, Code::syntax, expected_found(stop));
}

Diagnostic unknown_declaration(std::string_view text, SourceId source, std::uint32_t at) {
  const std::string_view found = front_token(text.substr(at));
  const Span span{source, at, static_cast<std::uint32_t>(at + found.size())};
  if (found == "}" || found == "]" || found == ")") {
    return make_diagnostic(Code::unknown_declaration, span, in_ticks(found) + " closes nothing",
                           {"remove it, or look for one too many before it"});
  }
  if (found == "+" || found == "-" || found == "*" || found == "/") {
    return make_diagnostic(Code::unknown_declaration, span, in_ticks(found) + " opens no declaration",
                           {"there is no arithmetic: write the value itself"});
  }
  const std::vector<std::string> words = declaration_words();
  std::string help = "a declaration opens with";
  for (std::size_t i = 0; i < words.size(); ++i) help += (i == 0 ? " `" : ", `") + words[i] + "`";
  auto fixes = is_word(found) ? spelling_fix(span, found, words) : std::vector<Fix>();
  if (!fixes.empty()) help = "did you mean " + in_ticks(fixes.front().replacement) + "?";
  Diagnostic unknown =
      make_diagnostic(Code::unknown_declaration, span, name_of(found) + " opens no declaration", {std::move(help)});
  unknown.fixes = std::move(fixes);
  return unknown;
}

}  // namespace proviso::dsl
