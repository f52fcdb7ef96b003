#pragma once

#include <map>
#include <string>
#include <vector>

#include "audit/audit.hpp"
#include "cli/models.hpp"
#include "editing/written_form.hpp"

namespace proviso::cli {

/// What `apply` measures of its edits: each by itself, and all once more on the model that it writes, where later
/// edits, rules that became weights, and the types of the file have had their say.
class FinalModel {
 public:
  FinalModel(runtime::Session& session, const BoundFiles& opened, const audit::AuditOptions& judged);

  /// Measures every edit by itself. Diagnostics are what only the model could tell.
  std::vector<dsl::Diagnostic> measure_alone();
  /// Measures them on the model with all of `entries`, whose tensors come to `rounded` in its file. Where that is the
  /// model of one edit alone, it has been measured.
  void measure_final(const std::vector<editing::LedgerEntry>& entries,
                     const std::vector<editing::RoundedTensor>& rounded);

  /// The last report measured, and whether it holds an edit that misses what it expects (and is not experimental).
  const audit::Report& report() const { return final_ ? *final_ : *alone_; }
  bool missed() const;

  /// Of every edit that holds by itself and not in the final model: what broke it, in words.
  std::vector<std::string> broken();

  /// What was measured, for the ledger.
  void record(std::vector<editing::LedgerEntry>& entries) const;

 private:
  audit::Report measured(audit::Together together, const std::string& only = "");
  /// Whether the edit holds there by itself.
  bool holds(const std::string& name, audit::Together together);

  runtime::Session& session_;
  const BoundFiles& opened_;
  audit::AuditOptions judged_;
  std::vector<dsl::EditId> edits_;
  std::vector<dsl::RuleId> rules_;
  std::optional<audit::Report> alone_, final_;
  std::string lossy_type_;  ///< of the file, where it changes a tensor that an edit changed: "Q4_1"
};

}  // namespace proviso::cli
