#include "tests/support/schema.hpp"

#include <nlohmann/json.hpp>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validation_results.hpp>
#include <valijson/validator.hpp>

#include "audit/report.hpp"
#include "audit/report_tree.hpp"

namespace proviso::tests {

std::string schema_violations(const std::string& report) {
  using Adapter = valijson::adapters::NlohmannJsonAdapter;
  const auto as_json = [](const std::string& text) { return nlohmann::json::parse(text); };
  const nlohmann::json schema_document = as_json(std::string(audit::report_schema()));
  const nlohmann::json target = as_json(audit::parse_yaml_tree(report, "report").dump());
  valijson::Schema schema;
  valijson::SchemaParser(valijson::SchemaParser::kDraft7).populateSchema(Adapter(schema_document), schema);
  valijson::Validator validator;
  valijson::ValidationResults results;
  validator.validate(schema, Adapter(target), &results);
  std::string violations;
  for (valijson::ValidationResults::Error error; results.popError(error);) {
    for (const std::string& part : error.context) violations += part;
    violations += ": " + error.description + "\n";
  }
  return violations;
}

}  // namespace proviso::tests
