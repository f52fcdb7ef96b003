#pragma once

#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <utility>

#include "audit/audit.hpp"
#include "tests/support/schema.hpp"
#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::test {

inline const std::string kTexts = R"(
prompts p = ["The cat sat", "A dog ran!", "My hat fell"]
prompts q = ["One two ten", "Six or seven?", "Nine then"]
prompts texts = each who in ["He", "She", "They"], what in ["is", "was", "has"] "{who} {what} a cat"
)";

/// The report of an audit, which satisfies the schema.
inline audit::Report audited(RulesOnModel& rules, const std::set<std::string>& off = {},
                             dsl::Date as_of = {2027, 1, 1}) {
  audit::AuditOptions options;
  options.passes_off = off;
  options.as_of = as_of;
  runtime::SessionOptions session_options;
  session_options.seed = rules.bound.seed;
  runtime::Session session(*rules.model.transformer, rules.bound, session_options);
  auto outcome = audit::audit(session, rules.bound, rules.sources, options);
  INFO(dsl::render_text(outcome.diagnostics, rules.sources));
  REQUIRE(outcome.value);
  audit::Report whole = *outcome.value;
  whole.model.sha256 = std::string(64, '0');  // the program's part
  CHECK_THAT(tests::schema_violations(audit::to_yaml(whole, {})), Catch::Equals(""));
  return std::move(*outcome.value);
}

inline audit::Report audited(const std::string& text, dsl::Date as_of = {2027, 1, 1}) {
  RulesOnModel rules(text);
  return audited(rules, {}, as_of);
}

}  // namespace proviso::test
