#include <cctype>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "audit/report.hpp"
#include "audit/verdict.hpp"

namespace proviso::audit {

namespace {

using Json = nlohmann::ordered_json;

/// As RFC 3986 writes it: "more%20rules.proviso", relative to where the audit ran; "file:///rules/a.proviso".
std::string uri_of(std::string_view path) {
  constexpr std::string_view kPlain = "-._~/";
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string uri = path.starts_with('/') ? "file://" : "";
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x80 && std::isalnum(byte)) || kPlain.find(c) != std::string_view::npos) {
      uri += c;
    } else {
      uri += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return uri;
}

/// Of a failure: what an author of the rule file gave it.
const char* level_of(dsl::CheckSeverity severity) {
  switch (severity) {
    case dsl::CheckSeverity::info:
      return "note";
    case dsl::CheckSeverity::minor:
      return "warning";
    case dsl::CheckSeverity::major:
    case dsl::CheckSeverity::critical:
      return "error";
  }
  return "error";
}

std::string message_of(const Judgement& judgement) {
  std::string text = std::string(status_name(judgement.status)) + ": " + judgement.name;
  if (judgement.expectations == nullptr) return text;
  for (const ExpectationResult& expectation : *judgement.expectations)
    text += "\n" + std::string(status_name(expectation.status)) + ": " + expectation_line(expectation);
  return text;
}

Json location_of(const std::string& where) {
  const auto colon = where.rfind(':');
  Json physical = {{"artifactLocation", {{"uri", uri_of(where.substr(0, colon))}}}};
  if (colon != std::string::npos) physical["region"] = {{"startLine", std::stoll(where.substr(colon + 1))}};
  return {{"physicalLocation", std::move(physical)}};
}

Json result_of(const Judgement& judgement, std::size_t rule) {
  const bool passed = judgement.status == Status::pass;
  Json result = {{"ruleId", full_name(judgement)},
                 {"ruleIndex", rule},
                 {"kind", passed                   ? "pass"
                          : judgement.experimental ? "informational"
                                                   : "fail"},
                 {"level", passed || judgement.experimental ? "none" : level_of(judgement.severity)},
                 {"message", {{"text", message_of(judgement)}}},
                 {"locations", Json::array({location_of(judgement.where)})},
                 // One alert a judgement, wherever its lines move to.
                 {"partialFingerprints", {{"judgement/v1", full_name(judgement)}}},
                 {"properties", {{"status", status_name(judgement.status)}}}};
  if (judgement.status == Status::waived) {
    const auto& waiver = *judgement.waiver;
    const Json suppression = {
        {"kind", "external"},
        {"status", "accepted"},
        {"justification", waiver.because + " (" + waiver.by + ", until " + date_text(waiver.until) + ")"}};
    result["suppressions"] = Json::array({suppression});
  }
  return result;
}

/// What the rule file asks, for who sees the alert and not the file.
std::string help_of(const Judgement& judgement) {
  const auto& says = *judgement.annotations;
  std::string text = full_name(judgement);
  if (!says.description.empty()) text += "\n" + says.description;
  if (judgement.under != nullptr)
    for (const std::string& under : *judgement.under) text += "\nunder " + under;
  if (judgement.expectations != nullptr)
    for (const ExpectationResult& expectation : *judgement.expectations) text += "\nexpect " + expectation.text;
  for (const auto& [name, value] : says.meta) text += "\n" + name + ": " + value;
  return text;
}

Json rule_of(const Judgement& judgement) {
  const auto& says = *judgement.annotations;
  Json rule = {{"id", full_name(judgement)},
               {"shortDescription", {{"text", says.title.empty() ? judgement.name : says.title}}}};
  if (!says.description.empty()) rule["fullDescription"] = {{"text", says.description}};
  rule["help"] = {{"text", help_of(judgement)}};
  rule["defaultConfiguration"] = {{"level", level_of(judgement.severity)}};
  rule["properties"] = {{"severity", dsl::severity_name(judgement.severity)}};
  if (!says.tags.empty()) rule["properties"]["tags"] = says.tags;
  return rule;
}

}  // namespace

std::string to_sarif(const Report& report, bool problems_only) {
  Json rules = Json::array(), results = Json::array();
  for (const Judgement& judgement : judgements(report)) {
    if (problems_only && (judgement.stands() || judgement.experimental)) continue;
    results.push_back(result_of(judgement, rules.size()));
    rules.push_back(rule_of(judgement));
  }
  Json artifacts = Json::array();
  for (const auto& [file, sha256] : report.rules)
    artifacts.push_back({{"location", {{"uri", uri_of(file)}}}, {"hashes", {{"sha-256", sha256}}}});
  const Json run = {
      {"tool", {{"driver", {{"name", "Proviso"}, {"version", report.version}, {"rules", std::move(rules)}}}}},
      {"automationDetails", {{"id", "proviso/" + report.model.name + "/"}}},
      {"invocations", Json::array({{{"executionSuccessful", true}}})},
      {"artifacts", std::move(artifacts)},
      {"results", std::move(results)},
      {"columnKind", "unicodeCodePoints"},
      {"properties",
       {{"verdict", status_name(report.verdict())},
        {"model", report.model.name},
        {"modelSha256", report.model.sha256}}}};
  const Json sarif = {
      {"$schema", "https://json.schemastore.org/sarif-2.1.0.json"}, {"version", "2.1.0"}, {"runs", Json::array({run})}};
  return sarif.dump(2) + "\n";
}

}  // namespace proviso::audit
