// The grammar that Visual Studio Code colours rule files by, interpreted as an editor does.

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>

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

/// The scope of the leftmost rule that matches at `at` or later in `line`, as TextMate chooses: of several at one place
/// the first. Where the rule spans (`begin`, `end`), the span.
struct Match {
  std::string scope;
  std::size_t begin = std::string::npos, end = std::string::npos;
};

Match next_match(const nlohmann::json& grammar, const std::string& line, std::size_t at) {
  Match best;
  for (const auto& include : grammar.at("patterns")) {
    const auto& rule = grammar.at("repository").at(include.at("include").get<std::string>().substr(1));
    const bool spans = rule.contains("begin");
    std::smatch found;
    const auto flags = at > 0 ? std::regex_constants::match_prev_avail : std::regex_constants::match_default;
    const std::regex expression(rule.at(spans ? "begin" : "match").get<std::string>());
    if (!std::regex_search(line.begin() + static_cast<std::ptrdiff_t>(at), line.end(), found, expression, flags))
      continue;
    const std::size_t begin = at + static_cast<std::size_t>(found.position());
    if (begin >= best.begin) continue;
    best = {rule.value("name", ""), begin, begin + static_cast<std::size_t>(found.length())};
    if (best.scope.empty()) best.scope = rule.at("captures").at("1").at("name");
    if (!spans) continue;
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
  const auto colours = grammar();
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot / "rules")) {
    if (entry.path().extension() != ".proviso") continue;
    ++files;
    std::ifstream file(entry.path());
    std::size_t number = 0;
    for (std::string line; std::getline(file, line);) {
      ++number;
      for (const Token& token : tokens(line)) {
        if (token.kind == Token::Kind::symbol) continue;
        Match match;
        for (std::size_t at = 0; at <= token.begin; at = std::max(match.end, at + 1)) {
          match = next_match(colours, line, at);
          if (match.begin == std::string::npos || match.end > token.begin) break;
        }
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
