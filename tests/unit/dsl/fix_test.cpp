// Fixes: what `check --fix` and editors may change of a rule file.

#include "dsl/fix.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "dsl/check.hpp"

namespace proviso::dsl {
namespace {

constexpr const char* kSets =
    "prompts angry = [\"You idiot\"]\nprompts calm = [\"Fine\"]\n"
    "feature anger = contrast(angry, calm) at resid_post[3]\n";

struct Round {
  SourceSet sources;
  Outcome<RuleSet> checked;
  explicit Round(const std::string& text) {
    sources.add("a.proviso", text);
    checked = check_sources(sources, {0});
  }
};

/// The text once every safe fix is made, and those that reading it again asks for.
std::string fixed(std::string text) {
  for (int round = 0; round < 20; ++round) {
    const Round read(text);
    const FixedText made = make_safe_fixes(read.sources, 0, read.checked.diagnostics);
    if (made.made.empty()) return text;
    text = made.text;
  }
  FAIL("fixes never end");
  return text;
}

/// The statement as fixed: `text` stands after two sets of prompts and a feature.
std::string fixed_after_sets(const std::string& text) {
  const std::string whole = fixed(kSets + text);
  REQUIRE(whole.starts_with(kSets));
  return whole.substr(std::string(kSets).size());
}

}  // namespace

TEST_CASE("fixes cure what can only have been meant one way") {
  const auto [written, cured] = GENERATE(table<std::string, std::string>({
      {"rule r { supress anger }", "rule r { suppress anger }"},
      {"rule r { suppress agner }", "rule r { suppress anger }"},
      {"rule r { suppress anger by 80 }", "rule r { suppress anger by 80% }"},
      {"rule r { suppress anger by 80 % }", "rule r { suppress anger by 80% }"},
      {"rule r { suppress anger to 80% }", "rule r { suppress anger by 80% }"},
      {"rule r { suppress anger by .8 }", "rule r { suppress anger by 0.8 }"},
      {"rule r { clamp anger to +2 }", "rule r { clamp anger to 2 }"},
      {"rule r { suppress anger at mlp_uot[*] }", "rule r { suppress anger at mlp_out[*] }"},
      {"rule r { suppress anger at mlp_out[9..4] }", "rule r { suppress anger at mlp_out[4..9] }"},
      {"rule r { suppress anger when anger > 1 && not generated }",
       "rule r { suppress anger when anger > 1 and not generated }"},
      {"rule r { suppress anger when anger>1&&!generated }",
       "rule r { suppress anger when anger>1 and not generated }"},
      {"rule r { suppress anger when position = 4 }", "rule r { suppress anger when position == 4 }"},
      {"rule r { suppress anger when token is ' not' }", "rule r { suppress anger when token is \" not\" }"},
      {"prompts p = [\"a\" \"b\" \"c\"]", "prompts p = [\"a\", \"b\", \"c\"]"},
      {"prompts p: [\"a\"]", "prompts p = [\"a\"]"},
      {"check c { severity critcal expect perplexity(calm) <= 30 }",
       "check c { severity critical expect perplexity(calm) <= 30 }"},
      {"check c { expect auroc(anger, [\"x\"], [\"y\"]) >= 85 }",
       "check c { expect auroc(anger, [\"x\"], [\"y\"]) >= 85% }"},
      {"check c { expect rate(calm, generates = /x/) <= 2% }", "check c { expect rate(calm, generates: /x/) <= 2% }"},
      {"check c { expect rate(calm, /x/) <= 2% }", "check c { expect rate(calm, generates: /x/) <= 2% }"},
      {"check c { expect rate(calm, generates: \"idiot\") <= 2% }",
       "check c { expect rate(calm, generates: /idiot/) <= 2% }"},
      {"check c { expect rate(calm, generates: /x/, token: 4) <= 2% }",
       "check c { expect rate(calm, generates: /x/, tokens: 4) <= 2% }"},
      {"check c { expect perplxity(calm) <= 20 }", "check c { expect perplexity(calm) <= 20 }"},
      {"feature f = contrats(angry, calm) at embed", "feature f = contrast(angry, calm) at embed"},
      {"promtps p = [\"a\"]", "prompts p = [\"a\"]"},
      {"prompts p = each who in [\"He\"] \"{whoo} is\"", "prompts p = each who in [\"He\"] \"{who} is\""},
  }));
  CAPTURE(written);
  CHECK(fixed_after_sets(written) == cured);
  CHECK(Round(kSets + cured).checked.diagnostics.empty());
}

TEST_CASE("fixes leave alone what may have been meant otherwise") {
  const std::string written =
      GENERATE("prompts calm_1 = [\"a\"]\ncheck c { expect kl(calm_2) >= 0.1 }",  // two names, not a misspelt one
               "prompts angst = [\"a\"]\ncheck c { expect kl(angsy) >= 0.1 }",    // angry is as near
               "check c { expect kl(p) >= 0.1 }", "rule r { suppress anger at mlp_out }",
               "feature f = contrast(angry, calm) at hook_embed");
  CAPTURE(written);
  CHECK(fixed_after_sets(written) == written);
  CHECK(has_errors(Round(kSets + written).checked.diagnostics));
}

TEST_CASE("of fixes that overlap one is made, and the text read again") {
  SourceSet sources;
  sources.add("a.proviso", "abcdef");
  const auto found = [](std::uint32_t begin, std::uint32_t end, std::string text) {
    Diagnostic diagnostic = make_diagnostic(Code::syntax, {0, begin, end}, "");
    diagnostic.fixes.push_back({{0, begin, end}, std::move(text)});
    return diagnostic;
  };
  const FixedText fixed = make_safe_fixes(sources, 0, {found(3, 5, "X"), found(0, 2, "Y"), found(1, 4, "Z")});
  CHECK(fixed.text == "YcXf");
  CHECK(fixed.made.size() == 2);
}

}  // namespace proviso::dsl
