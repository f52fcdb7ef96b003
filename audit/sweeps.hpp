#pragma once

// Sweeps of activation patching as results: what each patch gives back, as data, as text and as a page.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dsl/site.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/circuits/patch_sweep.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::audit {

/// What a sweep on a model of a smaller type was screened by.
struct SweepScreening {
  std::string dtype;
  double threshold = 0;  ///< share of clean less corrupt from which a patch counts as large
  double error = 0;      ///< the margin within which patches were run again, as such a share
  std::int64_t sampled = 0, confirmed = 0, large = 0;
};

/// One kind of site swept over a pair of prompts.
struct SweepResult {
  std::string circuit;
  std::string measure;
  std::string clean, corrupt;       ///< the prompts
  std::vector<std::string> tokens;  ///< of the corrupt prompt, by position
  dsl::SiteKind site = dsl::SiteKind::resid_pre;
  std::int64_t layers = 0, heads = 1;  ///< heads of `z`; 1 otherwise
  std::int64_t first_difference = 0;   ///< patches before it change nothing and were not computed
  double m_clean = 0, m_corrupt = 0;
  /// (m under the patch − m corrupt) / (m clean − m corrupt), by layer, head and position.
  std::vector<double> recovered;
  std::optional<SweepScreening> screening;
  double passes = 0;  ///< tokens computed, in whole passes of the model
  double seconds = 0;

  double at(std::int64_t layer, std::int64_t head, std::int64_t position) const {
    const auto positions = static_cast<std::int64_t>(tokens.size());
    return recovered[static_cast<std::size_t>((layer * heads + head) * positions + position)];
  }
};

struct SweepOptions {
  std::vector<dsl::SiteKind> sites = {dsl::SiteKind::resid_pre};
  const model::Transformer* screening = nullptr;  ///< the same model in a smaller type; null: none
  double threshold = 0.1;
  std::uint64_t seed = 0;
};

/// Patches every layer and position of a circuit's pairs, from the clean prompt into the corrupt one.
std::vector<SweepResult> sweep_circuit(const model::Transformer& transformer, const runtime::BoundRules& bound,
                                       dsl::CircuitId circuit, const SweepOptions& options);

/// A table of shares a site and pair, layers by positions (of heads: layers by heads, the largest over the positions,
/// and the `shown` strongest), at most `columns` wide.
std::string sweeps_text(const std::vector<SweepResult>& sweeps, std::size_t shown, std::size_t columns, bool colour);
std::string sweeps_yaml(const std::vector<SweepResult>& sweeps);
std::string sweeps_json(const std::vector<SweepResult>& sweeps);
/// One self-contained page without scripts: heat maps whose cells say their number.
std::string sweeps_html(const std::vector<SweepResult>& sweeps);

}  // namespace proviso::audit
