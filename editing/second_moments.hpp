#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "editing/corpus.hpp"
#include "editing/refusal.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::editing {

/// What equations of one C are solved by, worked out once and kept beside it: many edits ask one second moment.
class MomentFactors {
 public:
  /// C + `ridge` · (mean eigenvalue) · I = L Lᵀ: L; undefined where that is not positive definite.
  at::Tensor cholesky(const at::Tensor& C, double ridge);
  /// Eigenvalues, ascending, and eigenvectors.
  std::pair<at::Tensor, at::Tensor> eigen(const at::Tensor& C);

 private:
  /// Forgets everything where C is no longer the one that it was.
  void of(const at::Tensor& C);
  at::Tensor of_, L_, values_, vectors_;
  std::uint32_t version_ = 0;  ///< of C's values
  double ridge_ = 0;
};

/// C = E[k kᵀ], uncentred, where k is what an MLP's second matrix is given (`mlp_post[layer]`).
struct SecondMoment {
  std::int64_t layer = 0;
  at::Tensor C;             // [neurons, neurons] float64, holding float32 values: fresh and cached are equal
  std::int64_t tokens = 0;  ///< that C averages over
  std::int64_t sinks = 0;   ///< positions left out
  std::string corpus_sha256;
  std::shared_ptr<MomentFactors> factors = std::make_shared<MomentFactors>();
};

/// Which positions are no attention sinks: all but position 0 and those whose residual norm exceeds 4 times
/// their row's median. `residual` is [n, width]; the answer [n] bool.
at::Tensor ordinary_positions(const at::Tensor& residual, const model::PackedLayout& layout);

/// What is added to C's diagonal, as a share of its mean eigenvalue: `asked`, or 0.001 where that is 0 and C, of fewer
/// tokens than neurons, is singular.
double needed_ridge(const SecondMoment& moment, double asked);

/// S⁻¹ B for a positive definite S [n, n] made of `moment` and B [n, m], or a refusal that ends with `cure`.
std::variant<at::Tensor, Refusal> solve_moments(const at::Tensor& S, const at::Tensor& B, const SecondMoment& moment,
                                                const std::string& cure);

/// (C + ridge · mean eigenvalue · I)⁻¹ B by the kept factors, or a refusal as above.
std::variant<at::Tensor, Refusal> solve_moment(const SecondMoment& moment, double ridge, const at::Tensor& B,
                                               const std::string& cure);

/// Streams `corpus` through the model as far as the last of `layers`; the answers are in their order. Kept in
/// `cache_directory` (see `TensorCache`) by model, layer and corpus. Ask for them on the model as loaded: the cache
/// knows the weights by their files.
std::vector<SecondMoment> second_moments(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                         const std::vector<std::int64_t>& layers, const Corpus& corpus,
                                         const std::string& cache_directory);

/// One that `second_moments` has kept for this model. Throws `InputError` where the file is damaged, or of another
/// model, shape or layer.
SecondMoment read_second_moment(const model::Transformer& transformer, const std::string& path, std::int64_t layer,
                                const std::string& cache_directory);

}  // namespace proviso::editing
