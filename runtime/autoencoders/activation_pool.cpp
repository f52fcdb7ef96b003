#include "runtime/autoencoders/activation_pool.hpp"

#include <ATen/ATen.h>

#include <numeric>
#include <random>
#include <utility>

#include "runtime/model/random.hpp"

namespace proviso::runtime {

ActivationPool::ActivationPool(const model::Transformer& transformer, const dsl::Site& site,
                               const std::vector<model::Row>& rows, std::int64_t capacity, std::uint64_t seed,
                               const Progress& progress)
    : transformer_(transformer), site_(site), rows_(rows), capacity_(capacity), seed_(seed), progress_(progress) {
  std::int64_t tokens = 0;
  for (const auto& row : rows_) tokens += std::ssize(row.tokens);
  fits_ = tokens <= capacity_;
}

std::vector<std::int64_t> ActivationPool::shuffled(std::int64_t count, std::uint64_t salt) const {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(model::mix_seed(seed_, salt, place_.round, place_.part));
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  return order;
}

void ActivationPool::go_to(const Place& place) {
  place_ = place;
  opened_ = false;
}

/// Harvests the part that `place_` names, where it is not the one in memory, and draws the order of its vectors.
void ActivationPool::open() {
  constexpr std::uint64_t kRows = 1, kVectors = 2;
  const bool harvested =
      vectors_.defined() && (fits_ || (opened_round_ == place_.round && opened_part_ == place_.part));
  if (!fits_ || parts_.empty()) {
    const Place here = place_;
    place_.part = 0;  // one order of rows for all parts of a round
    order_ = fits_ ? std::vector<std::int64_t>(rows_.size()) : shuffled(std::ssize(rows_), kRows);
    if (fits_) std::iota(order_.begin(), order_.end(), 0);
    place_ = here;
    parts_.clear();
    std::int64_t tokens = capacity_;
    for (std::size_t i = 0; i < order_.size(); ++i) {
      const auto length = std::ssize(rows_[static_cast<std::size_t>(order_[i])].tokens);
      if (parts_.empty() || tokens + length > capacity_) {
        parts_.emplace_back(i, 0);
        tokens = 0;
      }
      tokens += length;
      ++parts_.back().second;
    }
  }
  if (!harvested) {
    std::vector<model::Row> rows;
    const auto [first, count] = parts_[static_cast<std::size_t>(place_.part)];
    for (std::size_t i = first; i < first + count; ++i) rows.push_back(rows_[static_cast<std::size_t>(order_[i])]);
    std::int64_t tokens = 0, filled = 0;
    for (const auto& row : rows) tokens += std::ssize(row.tokens);
    vectors_ = at::Tensor();
    each_activation(transformer_, site_, site_, rows, [&](const SeenActivations& activations) {
      if (progress_)
        progress_("reading activations, row", static_cast<std::int64_t>(activations.first_row), std::ssize(rows));
      const at::Tensor& read = activations.read;
      if (!vectors_.defined()) vectors_ = at::empty({tokens, read.size(1)}, read.options());
      vectors_.narrow(0, filled, read.size(0)).copy_(read);
      filled += read.size(0);
    });
    vectors_ = vectors_.narrow(0, 0, filled);  // sinks are left out
  }
  opened_ = true;
  opened_round_ = place_.round;
  opened_part_ = place_.part;
  drawn_ = at::tensor(shuffled(vectors_.size(0), kVectors), at::kLong).to(vectors_.device());
}

const at::Tensor& ActivationPool::here() {
  if (!opened_) open();
  return vectors_;
}

at::Tensor ActivationPool::next(std::int64_t size) {
  for (std::int64_t without_batch = 0;;) {
    if (!opened_) open();
    if ((place_.batch + 1) * size <= vectors_.size(0)) break;
    without_batch = place_.batch == 0 ? without_batch + 1 : 0;
    if (without_batch > std::ssize(parts_)) {
      throw model::InputError("the text gives " + std::to_string(vectors_.size(0)) + " vectors, and a batch takes " +
                              std::to_string(size) + "\n  help: name more text, or a smaller --batch");
    }
    place_.batch = 0;
    if (++place_.part == std::ssize(parts_)) {
      place_.part = 0;
      ++place_.round;
    }
    opened_ = false;
  }
  const auto which = drawn_.narrow(0, place_.batch * size, size);
  ++place_.batch;
  return vectors_.index_select(0, which);
}

}  // namespace proviso::runtime
