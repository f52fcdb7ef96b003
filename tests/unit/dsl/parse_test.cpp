#include "dsl/parse.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <string>

#include "dsl/format.hpp"
#include "dsl/render.hpp"

namespace proviso::dsl {
namespace {

struct Read {
  SourceSet sources;
  Parsed parsed;
  explicit Read(std::string text) : parsed(parse(sources, sources.add("a.proviso", std::move(text)))) {}

  template <class Node>
  const Node& only() const {
    INFO(render_text(parsed.diagnostics, sources));
    REQUIRE(parsed.diagnostics.empty());
    REQUIRE(parsed.file.declarations.size() == 1);
    return std::get<Node>(parsed.file.declarations.front());
  }
};

double number(const std::string& literal) {
  const Read read("rule r { steer f by " + literal + " }");
  return read.only<ast::Rule>().interventions.front().amount->value;
}

TEST_CASE("a percentage is the nearest number to its hundredth") {
  CHECK(number("80%") == 0.8);
  CHECK(number("99.9%") == 0.999);
  CHECK(number("0.1%") == 0.001);
  CHECK(number("1e-3%") == Approx(1e-5).epsilon(1e-15));
  CHECK(number("-2.5e-1") == -0.25);
  CHECK(number("4e2") == 400);
}

TEST_CASE("a whole number is exact as far as 64 bits go") {
  const auto integer = [](const std::string& literal) {
    return Read("rule r { steer f by " + literal + " }").only<ast::Rule>().interventions.front().amount->integer();
  };
  CHECK(integer("9007199254740993") == 9007199254740993);
  CHECK(integer("-1") == -1);
  CHECK_FALSE(integer("99999999999999999999"));
  CHECK_FALSE(integer("1.0"));
  CHECK_FALSE(integer("5%"));
  CHECK_FALSE(integer("1e2"));
}

TEST_CASE("escapes decode to UTF-8") {
  const Read read(R"(prompts p = ["\u00e9\ud83d\ude00\n\/{}"])");
  const auto& list = std::get<ast::PromptList>(read.only<ast::Prompts>().source);
  CHECK(list.items.front().text.value == "é😀\n/{}");
}

TEST_CASE("a regular expression loses only its delimiters") {
  const Read read(R"(rule r { suppress f when prompt matches /a\/[\/b]\\/si })");
  const auto& condition = **read.only<ast::Rule>().interventions.front().condition;
  const auto& regex = std::get<ast::PromptMatches>(condition.node).regex;
  CHECK(regex.pattern == R"(a/[/b]\\)");
  CHECK(regex.re2() == R"((?is)a/[/b]\\)");
}

TEST_CASE("nodes know where they were written") {
  const std::string text = "rule r {\n  suppress anger by 80% at mlp_out[3] when any anger > 0.5  # why\n}\n";
  const Read read(text);
  const auto& intervention = read.only<ast::Rule>().interventions.front();
  const auto shown = [&](Span span) { return std::string(read.sources.text(span)); };
  CHECK(shown(intervention.span) == "suppress anger by 80% at mlp_out[3] when any anger > 0.5");
  CHECK(shown(intervention.feature.span) == "anger");
  CHECK(shown(intervention.amount->span) == "80%");
  CHECK(shown(intervention.sites.front().span) == "mlp_out[3]");
  CHECK(shown((*intervention.condition)->span) == "any anger > 0.5");
  CHECK(shown(read.only<ast::Rule>().span) == text.substr(0, text.size() - 1));
}

TEST_CASE("what can be read of a file is kept") {
  const Read read(
      "prompts a = [\"x\"]\nrule b { suppress }\nprompts c = [\"y\"]\nrule d { suppress x at nowhere[1] }\nprompts e = "
      "[\"z\"]\n");
  CHECK(read.parsed.diagnostics.size() == 2);
  CHECK(read.parsed.file.declarations.size() == 3);
}

TEST_CASE("the canonical text of a part is one line") {
  const Read read(
      "check c { expect effect( suppress g at [mlp_out[*],embed] , on : rate(p,\n generates:/a\\/b/i ) )<=-10% "
      "relative "
      "beyond control at 95% confidence across seeds(5),ablation(zero) }");
  const auto& expectation = read.only<ast::Check>().expectations.front();
  CHECK(canonical_text(expectation) ==
        "effect(suppress g at [mlp_out[*], embed], on: rate(p, generates: /a\\/b/i)) <= -10% relative beyond control "
        "at 95% "
        "confidence across seeds(5), ablation(zero)");
  CHECK(canonical_text(expectation.metric.arguments[1].value) == "rate(p, generates: /a\\/b/i)");
  CHECK(canonical_text(std::get<ast::Intervention>(expectation.metric.arguments[0].value)) ==
        "suppress g at mlp_out[*], embed");
}

TEST_CASE("hostile texts are read in linear time") {
  const auto repeat = [](std::string_view piece, std::size_t bytes) {
    std::string text;
    while (text.size() < bytes) text += piece;
    return text;
  };
  constexpr std::size_t kBytes = 300'000;
  const std::string texts[] = {
      repeat("(", kBytes),
      "rule a { suppress x when " + repeat("(", kBytes),
      "rule a { suppress x when " + repeat("not ", kBytes),
      "rule a { suppress x when a > 1" + repeat(" and a > 1", kBytes) + " }",
      "check a { expect " + repeat("f(", kBytes),
      "check a { expect f(" + repeat("x: f(1), ", kBytes),
      "prompts a = [" + repeat("\"\" ,", 300'000),
      "prompts a = [" + repeat("#\n", kBytes),
      "prompts a = [\"" + repeat("\\", kBytes),
      "rule a { suppress x when prompt matches /" + repeat("\\/", kBytes),
      repeat("rule a {\n", kBytes),
      repeat("x\n", kBytes),
      "rule a { suppress x at " + repeat("mlp_out[1], ", kBytes),
      "feature a = contrast(p, q)" + repeat(" # c\n", kBytes) + " at resid_post[1]",
      "rule a { suppress x by 1" + repeat("0", kBytes) + " }",
      "rule a { " + repeat("suppress x #\n", kBytes) + "}",
      repeat("prompts a = [\"\" #\n]\n", kBytes),
      repeat("rule a { suppress }\n", kBytes),
  };
  for (const std::string& text : texts) {
    INFO(text.substr(0, 60));
    const auto begin = std::chrono::steady_clock::now();
    const Read read(text);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    CHECK(seconds < 20);  // linear time takes one at most, even without optimisation
    if (read.parsed.diagnostics.empty()) CHECK(format(read.parsed.file, read.sources).size() > 100);
  }
}

}  // namespace
}  // namespace proviso::dsl
