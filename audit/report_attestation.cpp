// The verdict as an in-toto statement: https://github.com/in-toto/attestation, Statement v1, predicate Test Result 0.1.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "audit/report.hpp"
#include "audit/verdict.hpp"

namespace proviso::audit {
namespace {

using Json = nlohmann::ordered_json;

Json resource(const std::string& name, const std::string& sha256) {
  return {{"name", name}, {"digest", {{"sha256", sha256}}}};
}

}  // namespace

std::string to_attestation(const Report& report, const std::string& path, const std::string& sha256) {
  Json passed = Json::array(), warned = Json::array(), failed = Json::array(), configuration = Json::array();
  for (const Judgement& judgement : judgements(report)) {
    const bool excused = judgement.status == Status::waived || judgement.experimental;
    (judgement.status == Status::pass ? passed : excused ? warned : failed).push_back(full_name(judgement));
  }
  for (const auto* files : {&report.rules, &report.data})
    for (const auto& [file, file_sha256] : *files) configuration.push_back(resource(file, file_sha256));
  const char* result = report.verdict() != Status::pass ? "FAILED" : warned.empty() ? "PASSED" : "WARNED";
  const Json statement = {{"_type", "https://in-toto.io/Statement/v1"},
                          {"subject",
                           {resource(report.model.name, report.model.sha256),
                            resource(std::filesystem::path(path).filename().string(), sha256)}},
                          {"predicateType", "https://in-toto.io/attestation/test-result/v0.1"},
                          {"predicate",
                           {{"result", result},
                            {"configuration", std::move(configuration)},
                            {"passedTests", std::move(passed)},
                            {"warnedTests", std::move(warned)},
                            {"failedTests", std::move(failed)}}}};
  return statement.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace proviso::audit
