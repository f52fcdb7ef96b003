#pragma once

#include <string>
#include <vector>

#include "audit/report.hpp"

namespace proviso::audit {

struct ReportFile {
  std::string path;    ///< as named
  std::string sha256;  ///< of its bytes
  Report report;
};

/// The parts of one audit as one report: checks, edits and examples of all, each once. All must be of one model,
/// program version, seed and date; what stands in two must be the same in both. Throws `model::InputError` naming the
/// two that disagree. Holm's correction is made anew over the controls of all parts, since a file's effects are
/// corrected together: an effect that was beyond control in its part may be inconclusive in the whole. What a rule did
/// in one part is not added to what it did in another: a prompt may stand in both.
Report merged(const std::vector<ReportFile>& parts);

}  // namespace proviso::audit
