#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "audit/audit.hpp"
#include "audit/report.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/source.hpp"
#include "runtime/planted_faults.hpp"
#include "runtime/session.hpp"

namespace proviso::audit {

struct MutationOptions {
  runtime::FaultSettings faults;
  std::int64_t controls = 2;
};

/// A fault counts as planted from this KL on text that the audit does not read, in nats a token, unless it is a fact or
/// a trigger, which count where the model says them.
inline constexpr double kLeastFaultKl = 1e-3;

/// Plants faults into the model, one after another, and audits it with each; `clean` is the audit of the model as
/// loaded, which everything is compared with. The model is left as found, to the byte. `session.corpus_path` is what
/// ROME takes its second moments from, `session.held_out_path` the text that faults are weighed on, both required.
PlantedFaults plant_faults(model::Transformer& transformer, const runtime::BoundRules& bound,
                           const dsl::SourceSet& sources, const AuditOptions& audit,
                           const runtime::SessionOptions& session, const MutationOptions& options, const Report& clean);

}  // namespace proviso::audit
