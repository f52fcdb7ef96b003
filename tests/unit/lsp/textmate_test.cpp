// The grammar that Visual Studio Code colours rule files by, interpreted as an editor does.

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <vector>

#include "lsp/tokens.hpp"

namespace proviso::lsp {
namespace {

const std::filesystem::path kRoot = PROVISO_SOURCE_DIR;

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

nlohmann::json grammar() {
  return nlohmann::json::parse(read(kRoot / "editors/vscode/syntaxes/proviso.tmLanguage.json"));
}

struct Rule {
  std::string scope;
  std::regex expression;  // of its beginning, where it spans
  bool spans = false;
};

std::vector<Rule> rules_of(const nlohmann::json& grammar) {
  std::vector<Rule> rules;
  for (const auto& include : grammar.at("patterns")) {
    const auto& rule = grammar.at("repository").at(include.at("include").get<std::string>().substr(1));
    const bool spans = rule.contains("begin");
    std::string scope = rule.value("name", "");
    if (scope.empty()) scope = rule.at("captures").at("1").at("name");
    rules.push_back({std::move(scope), std::regex(rule.at(spans ? "begin" : "match").get<std::string>()), spans});
  }
  return rules;
}

struct Match {
  std::string scope;
  std::size_t begin = std::string::npos, end = std::string::npos;
};

/// The leftmost rule that matches at `at` or later in `line`, as TextMate chooses: of several at one place the first.
/// Where the rule spans (`begin`, `end`), the span.
Match next_match(const std::vector<Rule>& rules, const std::string& line, std::size_t at) {
  Match best;
  for (const Rule& rule : rules) {
    std::smatch found;
    const auto flags = at > 0 ? std::regex_constants::match_prev_avail : std::regex_constants::match_default;
    if (!std::regex_search(line.begin() + static_cast<std::ptrdiff_t>(at), line.end(), found, rule.expression, flags))
      continue;
    const std::size_t begin = at + static_cast<std::size_t>(found.position());
    if (begin >= best.begin) continue;
    best = {rule.scope, begin, begin + static_cast<std::size_t>(found.length())};
    if (!rule.spans) continue;
    // A string's own patterns keep an escaped quote from ending it.
    const char quote = line[begin];
    for (best.end = begin + 1; best.end < line.size() && line[best.end] != quote; ++best.end) {
      if (line[best.end] == '\\') ++best.end;
    }
    best.end = std::min(best.end + 1, line.size());
    // The rule ends with the flags of a regular expression.
    while (quote == '/' && best.end < line.size() && std::string_view("ims").find(line[best.end]) < 3) ++best.end;
  }
  return best;
}

std::vector<Match> matches_in(const std::vector<Rule>& rules, const std::string& line) {
  std::vector<Match> matches;
  for (std::size_t at = 0; at <= line.size(); at = std::max(matches.back().end, at + 1)) {
    Match match = next_match(rules, line, at);
    if (match.begin == std::string::npos) break;
    matches.push_back(std::move(match));
  }
  return matches;
}

/// What the kinds of tokens are called in scopes; "" where the grammar may choose.
std::string scope_of(Token::Kind kind) {
  switch (kind) {
    case Token::Kind::comment:
      return "comment.";
    case Token::Kind::string:
      return "string.quoted.";
    case Token::Kind::regex:
      return "string.regexp.";
    case Token::Kind::number:
      return "constant.numeric.";
    default:
      return "";
  }
}

}  // namespace

TEST_CASE("the TextMate grammar colours every shipped rule file as the language reads it") {
  const auto rules = rules_of(grammar());
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot / "rules")) {
    if (entry.path().extension() != ".proviso") continue;
    ++files;
    std::ifstream file(entry.path());
    std::size_t number = 0;
    for (std::string line; std::getline(file, line);) {
      ++number;
      const auto matches = matches_in(rules, line);
      for (const Token& token : tokens(line)) {
        if (token.kind == Token::Kind::symbol) continue;
        const auto holding =
            std::find_if(matches.begin(), matches.end(), [&](const Match& each) { return each.end > token.begin; });
        const Match match = holding == matches.end() ? Match() : *holding;
        CAPTURE(entry.path().string(), number, line, token.of(line), match.scope);
        REQUIRE(match.begin <= token.begin);
        REQUIRE(match.end >= token.end);
        CHECK(match.scope.starts_with(scope_of(token.kind)));
        if (token.kind == Token::Kind::word) CHECK_FALSE(match.scope.starts_with("string"));
      }
    }
  }
  CHECK(files > 0);
}

}  // namespace proviso::lsp
