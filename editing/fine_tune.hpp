#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "editing/certificate.hpp"
#include "editing/fact_prompts.hpp"
#include "editing/refusal.hpp"
#include "editing/weight_delta.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::editing {

/// Facts learnt by fine-tuning the second matrix of one MLP, no weight by more than a bound: the baseline that methods
/// which edit are held against, known as FT-L (Zhu et al. 2020, arXiv 2012.00363; kmeng01/rome, baselines/ft). Adam on
/// the mean NLL of the targets after their bare prompts, all facts in every step, each target token read after those
/// before it; after each step every weight is put back to within the bound.
struct FineTuneRequest {
  std::vector<EditedFact> facts;
  std::int64_t layer = 0;
  /// ‖W' − W‖∞ at most, as a share of the root mean square of W's elements: published bounds are in the weights' own
  /// unit, which differs between models.
  double norm = 0.02;
  std::int64_t steps = 25;      ///< evaluations of the loss; the last one only evaluates
  double learning_rate = 0.01;  ///< in the same unit as `norm`
  double early_stop = 0.01;     ///< the loss under which it ends
};

struct FineTuneSolution {
  WeightDelta delta;
  Certificate certificate;
  std::vector<Certificate> facts;  ///< what was measured of each, in their order
  std::vector<double> losses;      ///< one an evaluation
};

/// Leaves the model as found. A refusal where a fact cannot be put to the model, or facts contradict each other.
std::variant<FineTuneSolution, Refusal> solve_fine_tune(model::Transformer& transformer,
                                                        const model::Tokenizer& tokenizer,
                                                        const FineTuneRequest& request);

}  // namespace proviso::editing
