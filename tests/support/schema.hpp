#pragma once

#include <string>

namespace proviso::tests {

/// What in the report, YAML or JSON, breaks the schema that ships, one violation a line; "" where nothing does. Every
/// report that a test makes should satisfy it:
///   CHECK(tests::schema_violations(audit::to_yaml(report, {})) == "");
std::string schema_violations(const std::string& report);

}  // namespace proviso::tests
