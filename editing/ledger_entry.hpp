#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "editing/certificate.hpp"
#include "editing/weight_delta.hpp"

namespace proviso::editing {

/// One `expect` of an edit as it was measured: on the model with that edit alone, and on the one that was written.
struct MeasuredExpectation {
  std::string text;    ///< "efficacy >= 100%"
  std::string status;  ///< "pass", "fail", …
  double value = 0;
  std::string final_status;  ///< "" once an edit beside it was dropped: nobody has measured what is left
  double final_value = 0;

  bool met() const { return status == "pass" && (final_status == "pass" || final_status.empty()); }
};

/// By layer, the facts' keys: [d_in, facts] float64.
using KeptKeys = std::map<std::int64_t, at::Tensor>;

/// One edit, or one rule that became weights, as the ledger keeps it.
struct LedgerEntry {
  std::string name;
  std::string rule_file;    ///< as named on the command line
  std::string rule_sha256;  ///< of that file
  std::vector<WeightDelta> deltas;
  std::vector<Certificate> certificates;
  NamedNumbers costs;    ///< of all together, on text that no edit sees
  std::string remark{};  ///< what has become of it since: "measured together with `x`, which was dropped"
  std::vector<MeasuredExpectation> expectations{};
  KeptKeys kept_keys{};  ///< of alphaedit: what later ones are to spare
};

}  // namespace proviso::editing
