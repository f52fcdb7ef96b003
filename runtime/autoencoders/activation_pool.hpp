#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "runtime/autoencoders/activations.hpp"
#include "runtime/progress.hpp"

namespace proviso::runtime {

/// Vectors at one site, harvested from the model in memory and given out in a random order that depends on the seed
/// alone. A text that fits is harvested once; of a longer one a part at a time stands in memory, in an order of rows
/// that is drawn anew each time round.
class ActivationPool {
 public:
  /// `capacity` is in tokens. All of these outlive the pool.
  ActivationPool(const model::Transformer& transformer, const dsl::Site& site, const std::vector<model::Row>& rows,
                 std::int64_t capacity, std::uint64_t seed, const Progress& progress);

  /// Where the next batch is taken from: enough to go on from there in another process.
  struct Place {
    std::int64_t round = 0, part = 0, batch = 0;
  };
  const Place& place() const { return place_; }
  void go_to(const Place& place);

  /// [size, width] float32. Throws `InputError` where the text gives fewer vectors than one batch.
  at::Tensor next(std::int64_t size);
  /// All vectors in memory now, after harvesting the first part if need be.
  const at::Tensor& here();

 private:
  void open();
  std::vector<std::int64_t> shuffled(std::int64_t count, std::uint64_t salt) const;

  const model::Transformer& transformer_;
  const dsl::Site site_;
  const std::vector<model::Row>& rows_;
  const std::int64_t capacity_;
  const std::uint64_t seed_;
  const Progress& progress_;
  bool fits_ = true;
  Place place_;
  bool opened_ = false;
  std::int64_t opened_round_ = 0, opened_part_ = 0;
  std::vector<std::pair<std::size_t, std::size_t>> parts_;  // of this round's order: first, count
  std::vector<std::int64_t> order_;                         // of rows, this round
  at::Tensor vectors_;                                      // [m, width] float32
  at::Tensor drawn_;                                        // [m] int64
};

}  // namespace proviso::runtime
