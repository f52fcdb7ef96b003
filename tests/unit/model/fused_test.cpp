#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <catch2/catch.hpp>
#include <functional>
#include <vector>

#include "runtime/model/linear.hpp"
#include "runtime/model/packed_weights.hpp"
#include "runtime/model/rotary.hpp"

using namespace proviso;

namespace {

using Tensors = std::vector<at::Tensor>;
using Operation = std::function<at::Tensor(const Tensors&)>;

/// The result, then the gradient at each input of its product with fixed numbers.
Tensors with_gradients(const Operation& operation, const Tensors& inputs) {
  Tensors leaves;
  for (const auto& input : inputs) leaves.push_back(input.detach().requires_grad_(true));
  const auto out = operation(leaves);
  const auto factors = at::sin(at::arange(out.numel(), at::kFloat)).view(out.sizes()).to(out.dtype());
  (out * factors).sum().backward();
  Tensors results = {out.detach()};
  for (const auto& leaf : leaves) results.push_back(leaf.grad());
  return results;
}

void check_close(const Tensors& found, const Tensors& wanted, at::ScalarType dtype) {
  REQUIRE(found.size() == wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    CAPTURE(at::toString(dtype), i);
    CHECK(found[i].scalar_type() == dtype);
    const double largest = (found[i].to(at::kDouble) - wanted[i]).abs().max().item<double>();
    CHECK(largest < (dtype == at::kFloat ? 2e-6 : 2e-2) * wanted[i].abs().max().item<double>());
  }
}

/// Fused in float32 and bfloat16, against the plain form in float64 of the same numbers.
void check_fused(const Operation& fused, const Operation& plain, const Tensors& inputs) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    Tensors rounded, exact;
    for (const auto& input : inputs) {
      rounded.push_back(input.to(dtype));
      exact.push_back(rounded.back().to(at::kDouble));
    }
    const auto found = with_gradients(fused, rounded);
    check_close(found, with_gradients(plain, exact), dtype);
    const at::NoGradGuard no_grad;
    CHECK(at::equal(fused(rounded), found[0]));
  }
}

at::Tensor numbers(std::int64_t rows, std::int64_t columns, double seed) {
  return at::sin(at::arange(rows * columns, at::kDouble) * 1.7 + seed).view({rows, columns}) * 2;
}

}  // namespace

TEST_CASE("fused operations of the body have the gradients of their plain forms") {
  SECTION("norm") {
    const auto gain = numbers(1, 37, 3).flatten().to(at::kBFloat16);  // as is in either type
    const double eps = 1e-2;
    check_fused(
        [&](const Tensors& x) { return model::rms_norm(x[0], gain.to(x[0].dtype()), eps); },
        [&](const Tensors& x) { return x[0] * at::rsqrt(x[0].square().mean(-1, true) + eps) * gain.to(at::kDouble); },
        {numbers(5, 37, 0)});
  }
  SECTION("gated neurons, also of maps that are columns of one product") {
    const auto activate = [](const Tensors& x) { return model::activate(model::Activation::silu, x[0], x[1]); };
    const auto plain = [](const Tensors& x) { return at::silu(x[0]) * x[1]; };
    check_fused(activate, plain, {numbers(5, 37, 0), numbers(5, 37, 1)});
    const auto halves = [](const Operation& operation) -> Operation {
      return [operation](const Tensors& x) { return operation({x[0].narrow(1, 0, 20), x[0].narrow(1, 20, 20)}); };
    };
    check_fused(halves(activate), halves(plain), {numbers(5, 40, 0)});
    check_fused(
        [&](const Tensors& x) {
          return activate({x[0].t(), x[1].t()});
        },
        [&](const Tensors& x) {
          return plain({x[0].t(), x[1].t()});
        },
        {numbers(7, 5, 0), numbers(7, 5, 1)});
  }
  SECTION("rotation of a part of every head") {
    const std::int64_t head_dim = 6, half = 2;
    const auto angles = numbers(5, half, 2).to(at::kFloat);
    const model::RotaryTable table{at::cos(angles), at::sin(angles)};
    check_fused([&](const Tensors& x) { return model::rotate(x[0], table, head_dim, true); },
                [&](const Tensors& x) {
                  const auto heads = x[0].view({5, 3, head_dim});
                  const auto cos = table.cos.to(at::kDouble).unsqueeze(1), sin = table.sin.to(at::kDouble).unsqueeze(1);
                  const auto first = heads.narrow(2, 0, half), second = heads.narrow(2, half, half);
                  return at::cat({first * cos - second * sin, second * cos + first * sin, heads.narrow(2, 4, 2)}, 2)
                      .view({5, 3 * head_dim});
                },
                {numbers(5, 3 * head_dim, 0)});
  }
  SECTION("linear maps, with and without a bias, whose weights stay") {
    for (const std::int64_t rows : {1, 5, 70}) {
      const auto weight = numbers(7, 37, 3).to(at::kBFloat16), bias = numbers(1, 7, 4).flatten().to(at::kBFloat16);
      for (const bool has_bias : {false, true}) {
        const auto map = [&](const Tensors& x, at::ScalarType type) {
          return model::project(x[0], weight.to(type), has_bias ? bias.to(type) : at::Tensor());
        };
        const Tensors x = {numbers(rows, 37, 0).to(at::kFloat)};
        const auto found = with_gradients([&](const Tensors& x) { return map(x, at::kFloat); }, x);
        const auto wanted =
            with_gradients([&](const Tensors& x) { return map(x, at::kDouble); }, {x[0].to(at::kDouble)});
        CAPTURE(rows, has_bias);
        check_close(found, wanted, at::kFloat);
      }
    }
  }
}

TEST_CASE("weights that come again under a gradient are packed once, and anew when they change") {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    auto weight = numbers(7, 37, 3).to(dtype);
    const Tensors x = {numbers(70, 37, 0).to(dtype)}, exact = {x[0].to(at::kDouble)};
    const auto check_product = [&] {
      const auto map = [&](const Tensors& x) { return model::project(x[0], weight.to(x[0].dtype()), {}); };
      check_close(with_gradients(map, x), with_gradients(map, exact), dtype);
    };
    for (int pass = 0; pass < 10; ++pass) {
      CAPTURE(at::toString(dtype), pass);
      if (pass == 4) weight.mul_(-2);
      if (pass == 7) weight = numbers(7, 37, 5).to(dtype);
      check_product();
      const bool changed = pass == 0 || pass == 4 || pass == 7;
      if (model::onednn_runs()) CHECK(model::packed_where_reused(weight, true).is_mkldnn() != changed);
    }
  }
}
