#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "audit/feature_search.hpp"
#include "audit/statistics.hpp"
#include "dsl/rule_set.hpp"

namespace proviso::audit {

/// Labelled prompts by which single latents of an autoencoder are judged.
struct LatentMeasures {
  using Sets = std::vector<std::pair<std::string, std::vector<dsl::Prompt>>>;  ///< each with its file
  std::string folder;                                                          ///< of the autoencoder
  Sets labelled;                                                               ///< two classes or more
  Sets spurious;                                                               ///< none, or the four sets of `scr`
  std::int64_t k = 0;  ///< latents taken; 0: as each metric has it
};

/// A metric of the language with what it came to: of two classes `sparse_probing` and `absorption`, of more these for
/// each class against all others, and `tpp`.
struct LatentMeasure {
  std::string metric;  ///< "sparse_probing"
  std::string about;   ///< the class, or ""
  Estimate estimate;
  std::string reason;  ///< why there is no value; "" otherwise
};

/// Measures by a rule file that nobody wrote, so that every number is what the language makes of its metric, interval
/// included. `sources` takes its text. Throws `InputError`: too few sets, or a text in two of them.
dsl::Outcome<std::vector<LatentMeasure>> measure_latents(const LatentMeasures& asked, const FeatureSearchModel& model,
                                                         dsl::SourceSet& sources);

}  // namespace proviso::audit
