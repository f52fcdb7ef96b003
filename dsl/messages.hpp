#pragma once

// What `parse` says where a rule that must match does not. Every rule inside `must` has its words here:
// a rule without them does not compile (`control::raise`).

#include <cstdint>
#include <string_view>
#include <tao/pegtl/contrib/limit_depth.hpp>
#include <type_traits>

#include "dsl/diagnostic.hpp"
#include "dsl/grammar.hpp"

namespace proviso::dsl {

/// What stood to be read: the phrase, and where it makes a difference to the cure, of what kind it is.
struct Expected {
  enum class Kind {
    token,
    name,
    number,
    comparison,
    date,
    equals,
    colon,
    string_end,
    regex_end,
    number_end,
    list_end,
    arguments_end,
    body_end,
    rule_end,
  };
  std::string_view what;
  Kind kind = Kind::token;
  std::string_view statements = {};  ///< of a body's end: the words that open a statement there
};

/// Reading stopped at `at`; the last token before it ends at `before`. Both point into the text.
struct SyntaxError {
  Expected expected;
  const char* before = nullptr;
  const char* at = nullptr;
};

/// The statements of any declaration.
inline constexpr std::string_view kNotes = "description tags meta status";

/// Turns what the grammar missed into what the user should know.
Diagnostic diagnose(const SyntaxError& error, std::string_view text, SourceId source);

/// Where a declaration should open and another word stands.
Diagnostic unknown_declaration(std::string_view text, SourceId source, std::uint32_t at);

namespace grammar {

template <class Rule>
inline constexpr Expected expected{};

#define PROVISO_EXPECT(rule, ...)            \
  template <>                                \
  inline constexpr Expected expected<rule> { \
    __VA_ARGS__                              \
  }

PROVISO_EXPECT(string_close, "`\"`", Expected::Kind::string_end);
PROVISO_EXPECT(regex_close, "`/`", Expected::Kind::regex_end);
PROVISO_EXPECT(number_end, "the end of the number", Expected::Kind::number_end);
PROVISO_EXPECT(range_end, "the range's last index", Expected::Kind::number);

PROVISO_EXPECT(text, "a string in double quotes");
PROVISO_EXPECT(regex, "a regular expression between slashes");
PROVISO_EXPECT(number, "a number", Expected::Kind::number);
PROVISO_EXPECT(bound, "a number", Expected::Kind::number);
PROVISO_EXPECT(date, "a date, YYYY-MM-DD", Expected::Kind::date);
PROVISO_EXPECT(word, "a word");
PROVISO_EXPECT(own_name, "a name", Expected::Kind::name);
PROVISO_EXPECT(name, "a name", Expected::Kind::name);
PROVISO_EXPECT(feature_name, "the name of a feature", Expected::Kind::name);
PROVISO_EXPECT(circuit_name, "the name of a circuit", Expected::Kind::name);
PROVISO_EXPECT(acted_on, "the name of a feature", Expected::Kind::name);
PROVISO_EXPECT(removed, "the name of a feature", Expected::Kind::name);
PROVISO_EXPECT(patched, "a site, several in brackets, or `feature` and a name", Expected::Kind::name);
PROVISO_EXPECT(patch_source, "a prompt set, `zero`, `resample` or `mean(P)`", Expected::Kind::name);

PROVISO_EXPECT(list_close, "`]`", Expected::Kind::list_end);
PROVISO_EXPECT(call_close, "`,` or `)`", Expected::Kind::arguments_end);
PROVISO_EXPECT(condition_close, "`)`");
PROVISO_EXPECT(block_open, "`{`");
PROVISO_EXPECT(equals, "`=`", Expected::Kind::equals);
PROVISO_EXPECT(colon, "`:`", Expected::Kind::colon);

PROVISO_EXPECT(kw_at, "`at`");
PROVISO_EXPECT(kw_best, "`best`");
PROVISO_EXPECT(kw_because, "`because` and the reason");
PROVISO_EXPECT(kw_by, "`by` and the owner");
PROVISO_EXPECT(kw_chat, "`chat`");
PROVISO_EXPECT(kw_clean, "`clean` and a prompt");
PROVISO_EXPECT(kw_confidence, "`confidence`");
PROVISO_EXPECT(kw_control, "`control`");
PROVISO_EXPECT(kw_corrupt, "`corrupt` and the other prompt");
PROVISO_EXPECT(kw_from, "`from` and a prompt set");
PROVISO_EXPECT(kw_in, "`in`");
PROVISO_EXPECT(kw_matches, "`matches`");
PROVISO_EXPECT(kw_on, "`on`");
PROVISO_EXPECT(kw_system, "`system`");
PROVISO_EXPECT(kw_to, "`to`");
PROVISO_EXPECT(kw_until, "`until` and a date");

PROVISO_EXPECT(head_list, "a head, a range, or a list of heads in brackets", Expected::Kind::number);
PROVISO_EXPECT(site, "a site, for example `resid_post[12]`", Expected::Kind::name);
PROVISO_EXPECT(sites, "a site, for example `mlp_out[*]`", Expected::Kind::name);
PROVISO_EXPECT(inner_sites, "a site, or several in brackets", Expected::Kind::name);

PROVISO_EXPECT(answers, "a continuation, or a list of them");
PROVISO_EXPECT(string_list, "a list of strings, `[\"…\"]`");
PROVISO_EXPECT(prompts_ref, "the name of a prompt set, or a list of prompts", Expected::Kind::name);
PROVISO_EXPECT(labels, "a prompt set whose continuations are the classes, or a set for each class: `[she, he]`",
               Expected::Kind::name);
PROVISO_EXPECT(prompts_source, "prompts: a list in brackets, `from \"file\"`, or `each … in […]`");
PROVISO_EXPECT(facts_file, "`from` and a file");
PROVISO_EXPECT(binding, "`NAME in [\"…\"]`", Expected::Kind::name);

PROVISO_EXPECT(value, "a value", Expected::Kind::name);
PROVISO_EXPECT(constructor, "a constructor with its arguments, for example `contrast(P, Q)`", Expected::Kind::name);
PROVISO_EXPECT(loose_call, "a name, with its arguments in parentheses", Expected::Kind::name);
PROVISO_EXPECT(metric, "a metric, for example `accuracy(P)`", Expected::Kind::name);

PROVISO_EXPECT(compare, "a comparison: `<`, `<=`, `>`, `>=`, `==` or `!=`", Expected::Kind::comparison);
PROVISO_EXPECT(operand, "a feature, a number or `quantile(…)`", Expected::Kind::name);
PROVISO_EXPECT(token_test, "`is \"…\"` or `in [\"…\"]`");
PROVISO_EXPECT(condition, "a condition", Expected::Kind::name);
PROVISO_EXPECT(conjunction, "a condition", Expected::Kind::name);
PROVISO_EXPECT(unary, "a condition", Expected::Kind::name);

PROVISO_EXPECT(used_file, "a rule file in double quotes, or `std/NAME`");
PROVISO_EXPECT(requirement_value, "a name, a number or a string", Expected::Kind::name);
PROVISO_EXPECT(token_choice, "`last`, `all` or a token's number");
PROVISO_EXPECT(select_open, "`(` and two prompt sets");
PROVISO_EXPECT(select_comma, "`,` and the other prompt set");
PROVISO_EXPECT(pair_side, "a prompt, or the name of a prompt set", Expected::Kind::name);
PROVISO_EXPECT(keep_unit, "`edges` or `nodes`");
PROVISO_EXPECT(under_what, "`rule`, `edit` or `attack`");

PROVISO_EXPECT(notes_close, "a note, or `}`", Expected::Kind::body_end, "");
PROVISO_EXPECT(meta_close, "a key and its string, or `}`");
PROVISO_EXPECT(model_close, "a requirement of the model, or `}`", Expected::Kind::body_end,
               "family layers width sha256");
PROVISO_EXPECT(file_close, "an option of the file, or `}`", Expected::Kind::body_end, "take seed field answer cluster");
PROVISO_EXPECT(rule_close, "a statement of a rule, or `}`", Expected::Kind::rule_end,
               "suppress amplify clamp steer cap fires silent");
PROVISO_EXPECT(edit_close, "a statement of an edit, or `}`", Expected::Kind::body_end,
               "fact facts remove erase using expect");
PROVISO_EXPECT(circuit_close, "a statement of a circuit, or `}`", Expected::Kind::body_end,
               "clean held measure using keep");
PROVISO_EXPECT(check_close, "a statement of a check, or `}`", Expected::Kind::body_end, "severity under expect");

#undef PROVISO_EXPECT

/// Where the last layout began and ended: the end of one token and the place of the next.
struct Cursor {
  const char* before = nullptr;
  const char* at = nullptr;
};

/// Stops at the first rule inside `must` that does not match.
template <class Rule>
struct control : normal<Rule> {
  template <class Input>
  [[noreturn]] static void raise(const Input& in, const Cursor& cursor) {
    static_assert(!expected<Rule>.what.empty(), "every rule inside `must` says what it expects");
    constexpr bool inside_token = expected<Rule>.kind == Expected::Kind::string_end ||
                                  expected<Rule>.kind == Expected::Kind::regex_end ||
                                  expected<Rule>.kind == Expected::Kind::number_end || std::is_same_v<Rule, range_end>;
    if (inside_token) throw SyntaxError{expected<Rule>, in.current(), in.current()};
    throw SyntaxError{expected<Rule>, cursor.before, cursor.at};
  }
};

/// Keeps the cursor, and bounds what can nest within itself.
template <class Rule>
struct action : nothing<Rule> {};

template <>
struct action<layout> {
  template <class ActionInput>
  static void apply(const ActionInput& in, Cursor& cursor) {
    cursor = {in.begin(), in.end()};
  }
};

inline constexpr std::size_t kMaxNesting = 64;
template <>
struct action<unary> : limit_depth<kMaxNesting> {};
template <>
struct action<value> : limit_depth<kMaxNesting> {};

}  // namespace grammar
}  // namespace proviso::dsl
