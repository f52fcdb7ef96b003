#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "dsl/site.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// One activation patched: at a position of the corrupt prompt it becomes what it is there on the clean one.
struct SweptPatch {
  dsl::Site site;  ///< canonical: the stream before a layer (`embed`, `resid_post[L]`), one head's `z`, or `mlp_out`
  std::int64_t position = 0;
};

/// Activation patching over layers and positions of one pair of prompts of equally many tokens. A patch at (layer,
/// position) changes nothing before that position and nothing below that layer, so only what lies downstream of it is
/// computed: rows of several patches at one position grow together, layer by layer, on the keys and values of the
/// corrupt run. Before the first token that differs nothing can change, and the patch is not computed.
class PatchSweep {
 public:
  /// Runs both prompts once.
  PatchSweep(const model::Transformer& transformer, const BoundPair& pair, bool probability);
  ~PatchSweep();

  double clean() const { return clean_; }                              ///< m of the clean prompt
  double corrupt() const { return corrupt_; }                          ///< m of the corrupt one
  std::int64_t first_difference() const { return first_difference_; }  ///< position of the first token that differs
  std::int64_t length() const { return std::ssize(pair_.clean.tokens); }

  /// m of the corrupt prompt under each patch by itself.
  std::vector<double> run(const std::vector<SweptPatch>& patches) const;

  /// Every patch of a kind of site, layer by layer, head by head, position by position: `resid_pre` (the stream before
  /// each layer), `z` (each head), `mlp_out`.
  static std::vector<SweptPatch> all(dsl::SiteKind kind, const model::ModelConfig& config, std::int64_t length);

  /// Tokens that went through a layer, in whole passes: what `run` computed so far.
  double token_passes() const { return layer_tokens_ / static_cast<double>(transformer_.config().layers); }

 private:
  struct Run;
  /// A patch as what it leaves in the stream before `layer`; at the top of the last layer there is none left.
  struct Start {
    std::size_t patch = 0;
    std::int64_t layer = 0;
    at::Tensor value;  // [width]
  };
  std::vector<Start> starts(const std::vector<SweptPatch>& patches, const std::vector<std::size_t>& computed) const;
  void run_position(std::int64_t position, std::vector<Start> starts, std::vector<double>& m) const;
  std::vector<double> measure(const std::vector<at::Tensor>& logits) const;

  const model::Transformer& transformer_;
  const BoundPair pair_;
  bool probability_;
  std::unique_ptr<Run> clean_run_, corrupt_run_;
  double clean_ = 0, corrupt_ = 0;
  std::int64_t first_difference_ = 0;
  mutable double layer_tokens_ = 0;
};

/// What of a sweep is large: |m under the patch − m corrupt| ≥ `threshold` · |m clean − m corrupt|.
struct ScreenedSweep {
  std::vector<double> m;  ///< as the screening model has it, and where it was confirmed as the other has it
  std::vector<bool> large;
  double error = 0;            ///< the most that the two differed by over the sample, doubled, in m
  std::int64_t sampled = 0;    ///< patches that both ran to know that
  std::int64_t confirmed = 0;  ///< patches run again because their margin to the threshold lay within it
};

/// Screens a sweep on a model of a smaller type, and runs in `exact` what that cannot tell.
ScreenedSweep screen(const PatchSweep& exact, const PatchSweep& screening, const std::vector<SweptPatch>& patches,
                     double threshold, std::uint64_t seed);

}  // namespace proviso::runtime
