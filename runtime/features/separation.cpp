#include "runtime/features/separation.hpp"

#include <ATen/ATen.h>

namespace proviso::runtime {

Separation separation(const at::Tensor& positive, const at::Tensor& negative) {
  auto wins = at::zeros({positive.size(1)}, at::kDouble);
  for (std::int64_t i = 0; i < positive.size(0); ++i) {
    wins += negative.lt(positive[i]).to(at::kDouble).sum(0) + 0.5 * negative.eq(positive[i]).to(at::kDouble).sum(0);
  }
  const auto variance = [](const at::Tensor& x) { return x.to(at::kDouble).var(0, /*unbiased=*/false); };
  const auto spread = ((variance(positive) + variance(negative)) / 2).sqrt();
  const auto difference = positive.to(at::kDouble).mean(0) - negative.to(at::kDouble).mean(0);
  return {wins / static_cast<double>(positive.size(0) * negative.size(0)),
          at::where(spread.gt(0), difference / spread, 0.0)};
}

}  // namespace proviso::runtime
