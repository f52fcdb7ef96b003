#include "dsl/render.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

namespace proviso::dsl {
namespace {

Diagnostic about(Span span, Severity severity = Severity::error) {
  Diagnostic diagnostic = make_diagnostic(Code::syntax, span, "something", {"do this", "or that"});
  diagnostic.severity = severity;
  return diagnostic;
}

TEST_CASE("a diagnostic is shown with its place, its line and its cures") {
  SourceSet sources;
  std::string text;
  for (int line = 1; line < 19; ++line) text += "#\n";
  text += "  suppress gender at resid_post[12] when anger > 0.5\n";
  const SourceId id = sources.add("capitals.proviso", text);
  const auto begin = static_cast<std::uint32_t>(text.find("anger"));
  CHECK(render_text({about({id, begin, begin + 5})}, sources) ==
        "capitals.proviso:19:42: error[syntax]: something\n"
        "   19 |   suppress gender at resid_post[12] when anger > 0.5\n"
        "      |                                          ^^^^^\n"
        "   help: do this\n"
        "   help: or that\n");
}

TEST_CASE("an underline stays under what it marks") {
  SourceSet sources;
  const auto underline = [&](std::string text, std::string_view marked) {
    const SourceId id = sources.add("a", text);
    const auto begin = static_cast<std::uint32_t>(text.find(marked));
    const std::string shown =
        render_text({about({id, begin, static_cast<std::uint32_t>(begin + marked.size())})}, sources);
    std::size_t line = 0;
    for (int i = 0; i < 2; ++i) line = shown.find('\n', line) + 1;
    return shown.substr(line, shown.find('\n', line) - line);
  };
  CHECK(underline("\tab", "b") == "      | \t ^");
  CHECK(underline("日本x", "x") == "      |     ^");
  CHECK(underline("a日b", "日") == "      |  ^^");
  CHECK(underline("e\xCC\x81x", "x") == "      |  ^");
  CHECK(underline("abc\ndef", "c\nd") == "      |   ^");
  CHECK(underline("abc", "") == "      | ^");
}

TEST_CASE("of a long line what lies around the mark is shown") {
  SourceSet sources;
  const std::string text = std::string(5000, 'a') + "X" + std::string(5000, 'b');
  const SourceId id = sources.add("a", text);
  const std::string shown = render_text({about({id, 5000, 5001})}, sources);
  CHECK(shown.starts_with("a:1:5001: error"));
  CHECK(shown.find("| …" + std::string(60, 'a') + "X" + std::string(99, 'b') + "…\n") != std::string::npos);
  CHECK(shown.find("| " + std::string(61, ' ') + "^\n") != std::string::npos);
}

TEST_CASE("diagnostics come in the order of files and places, errors and warnings counted") {
  SourceSet sources;
  const SourceId first = sources.add("first", "abc"), second = sources.add("second", "abc");
  const std::vector<Diagnostic> diagnostics = {about({second, 0, 1}), about({first, 2, 3}, Severity::warning),
                                               about({first, 0, 1})};
  const std::string shown = render_text(diagnostics, sources);
  CHECK(shown.find("first:1:1: error") < shown.find("first:1:3: warning"));
  CHECK(shown.find("first:1:3: warning") < shown.find("second:1:1: error"));
  CHECK(summary_text(diagnostics) == "2 errors, 1 warning");
  CHECK(summary_text({}) == "");
  CHECK(has_errors(diagnostics));
  CHECK_FALSE(has_errors({diagnostics[1]}));
}

TEST_CASE("colour only adds escapes") {
  SourceSet sources;
  const SourceId id = sources.add("a", "abc");
  std::string colored = render_text({about({id, 0, 1})}, sources, {.color = true});
  CHECK(colored.find("\x1b[1;31m") != std::string::npos);
  for (std::size_t at; (at = colored.find('\x1b')) != std::string::npos;)
    colored.erase(at, colored.find('m', at) - at + 1);
  CHECK(colored == render_text({about({id, 0, 1})}, sources));
}

TEST_CASE("editors get spans") {
  SourceSet sources;
  const SourceId id = sources.add("a", "é\nxy");
  const auto json = nlohmann::json::parse(render_json({about({id, 3, 5})}, sources));
  REQUIRE(json.size() == 1);
  CHECK(json[0]["file"] == "a");
  CHECK(json[0]["code"] == "syntax");
  CHECK(json[0]["severity"] == "error");
  CHECK(json[0]["help"].size() == 2);
  CHECK(json[0]["span"]["begin"] == nlohmann::json{{"offset", 3}, {"line", 2}, {"column", 1}});
  CHECK(json[0]["span"]["end"] == nlohmann::json{{"offset", 5}, {"line", 2}, {"column", 3}});
}

}  // namespace
}  // namespace proviso::dsl
