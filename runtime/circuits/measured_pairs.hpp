#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// A measure m on pairs of prompts, where some parts of the model are what they are in a run on the clean prompt, and
/// all others something else. What the parts are (edges, latents), and what stands in their place, derived classes say.
class MeasuredPairs {
 public:
  /// What acts in a pass over these prompts, begun for that pass: a rule's hooks.
  using InForce = std::function<model::SiteVisitor*(const std::vector<std::string>& prompts)>;

  virtual ~MeasuredPairs() = default;
  MeasuredPairs(const MeasuredPairs&) = delete;
  MeasuredPairs& operator=(const MeasuredPairs&) = delete;

  /// m by pair, in the order of the pairs, of the clean prompts, and with nothing kept.
  const std::vector<double>& clean() const { return clean_; }
  const std::vector<double>& edgeless() const { return edgeless_; }
  /// m by pair for each of several sets of parts kept (bools), as many a pass as its memory holds.
  virtual std::vector<std::vector<double>> measure_each(const std::vector<at::Tensor>& kept) const = 0;
  std::vector<double> measure(const at::Tensor& kept) const { return measure_each({kept}).front(); }
  virtual at::Tensor all() const = 0;  ///< every part kept

  /// Where gradients are taken, between what stands in a part's place (0) and what it is on the clean prompt (1): there
  /// where `steps` is 0, at k / steps otherwise.
  static std::vector<double> path_shares(std::int64_t steps);

  std::int64_t passes() const { return passes_; }
  std::int64_t tokens() const { return tokens_; }  ///< fed to the model so far

 protected:
  struct Side {
    std::vector<model::Row> rows;
    std::vector<std::string> prompts;  ///< their texts
  };
  /// Pairs whose passes are one.
  struct Batch {
    Side clean_side, corrupt_side;
    std::vector<std::int64_t> last;  ///< packed index of each row's last token
    at::Tensor raised, lowered;      // [rows] token ids of m; `lowered` is undefined for a probability
    std::int64_t size() const { return last.back() + 1; }
  };
  /// A mean over prompts at position 0, and one at the others that count, [width] float64; undefined where none does.
  struct Mean {
    at::Tensor first, others;
  };
  class PromptMeans;

  MeasuredPairs(const model::Transformer& transformer, bool probability, InForce in_force);

  /// Calls `batch` with consecutive pairs [first, end), as many as hold `numbers_a_token` for each of their tokens in
  /// some memory, and at least one.
  static void each_batch(const std::vector<BoundPair>& pairs, std::int64_t numbers_a_token,
                         const std::function<void(std::size_t first, std::size_t end)>& batch);
  void fill(Batch& batch, const std::vector<BoundPair>& pairs, std::size_t first, std::size_t end) const;
  /// How many copies of a batch a pass holds.
  static std::int64_t copies_at_once(const Batch& batch, std::int64_t numbers_a_token);

  model::SiteVisitor* begin(const Side& side, std::int64_t copies = 1) const;
  void require_nothing_in_force() const;
  /// Runs `pass`, which says where it starts and who reads, over a side's prompts, where `in_force` (or nothing: null)
  /// acts before `visitor` (or nothing) sees, and returns m by row, [rows] float64. `copies` of the side go through
  /// together, one after another.
  at::Tensor run(const Batch& batch, const Side& side, model::Pass pass, model::SiteVisitor* visitor,
                 model::SiteVisitor* in_force, std::int64_t copies = 1) const;
  static std::vector<double> numbers(const at::Tensor& values);
  at::Tensor even_weights() const;  // [1, pairs]
  /// The weights [draws, pairs] of consecutive pairs from `first_pair` on, for each of their tokens: [draws, n].
  static at::Tensor token_weights(const at::Tensor& weights, const Batch& batch, std::int64_t first_pair);

  const model::Transformer& transformer_;
  bool probability_ = false;
  std::vector<double> clean_, edgeless_;

 private:
  InForce in_force_;
  mutable std::int64_t passes_ = 0, tokens_ = 0;
};

/// Means over prompts, each weighing one: at position 0, and at the others that count.
class MeasuredPairs::PromptMeans {
 public:
  /// `values` [n, width] of the rows of a side; `ordinary` [n] bool tells which positions count.
  void add(const at::Tensor& values, const at::Tensor& ordinary, const Side& side);
  Mean take() const;

 private:
  Mean sums_;
  std::int64_t prompts_ = 0, with_others_ = 0;
};

}  // namespace proviso::runtime
