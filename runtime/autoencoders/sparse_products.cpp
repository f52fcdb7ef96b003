#include "runtime/autoencoders/sparse_products.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "runtime/model/for_each_cpu.hpp"

namespace proviso::runtime {

namespace {

constexpr std::int64_t kLanes = 16;
constexpr std::int64_t kRowsPerTask = 16;

PROVISO_FOR_EACH_CPU
void add_rows(float* out, const float* rows, const std::int64_t* which, const float* values, std::int64_t count,
              std::int64_t d) {
  for (std::int64_t j = 0; j < count; ++j) {
    const float value = values[j];
    if (value == 0) continue;
    const float* row = rows + which[j] * d;
    for (std::int64_t i = 0; i < d; ++i) out[i] += value * row[i];
  }
}

PROVISO_FOR_EACH_CPU
void dot_rows(float* out, const float* x, const float* rows, const std::int64_t* which, std::int64_t count,
              std::int64_t d) {
  for (std::int64_t j = 0; j < count; ++j) {
    const float* row = rows + which[j] * d;
    std::array<float, kLanes> lanes{};
    std::int64_t i = 0;
    for (; i + kLanes <= d; i += kLanes) {
      for (std::int64_t l = 0; l < kLanes; ++l) lanes[l] += x[i + l] * row[i + l];
    }
    float sum = 0;
    for (const float lane : lanes) sum += lane;
    for (; i < d; ++i) sum += x[i] * row[i];
    out[j] = sum;
  }
}

PROVISO_FOR_EACH_CPU
bool any_above(const float* x, std::int64_t count, float least) {
  int above = 0;
  for (std::int64_t i = 0; i < count; ++i) above |= x[i] > least ? 1 : 0;
  return above != 0;
}

struct Entry {
  float value;
  std::int64_t column;
};

/// One pass over a row that keeps what exceeds the k-th largest so far: few do, once the first have been seen.
void largest_of_row(const float* x, std::int64_t m, std::int64_t k, std::vector<Entry>& kept, float* values,
                    std::int64_t* columns) {
  constexpr std::int64_t kBlock = 64;
  const auto more = [](const Entry& a, const Entry& b) {
    return a.value > b.value || (a.value == b.value && a.column < b.column);
  };
  float least = -std::numeric_limits<float>::infinity();
  const auto cut = [&] {
    std::nth_element(kept.begin(), kept.begin() + (k - 1), kept.end(), more);
    kept.resize(static_cast<std::size_t>(k));
    least = kept.back().value;
  };
  kept.clear();
  for (std::int64_t begin = 0; begin < m; begin += kBlock) {
    const std::int64_t end = std::min(m, begin + kBlock);
    if (std::ssize(kept) >= k && !any_above(x + begin, end - begin, least)) continue;
    for (std::int64_t i = begin; i < end; ++i) {
      const float value = std::isnan(x[i]) ? -std::numeric_limits<float>::infinity() : x[i];
      if (std::ssize(kept) < k || value > least) kept.push_back({value, i});
    }
    if (std::ssize(kept) >= 2 * k) cut();
  }
  cut();
  std::sort(kept.begin(), kept.end(), [](const Entry& a, const Entry& b) { return a.column < b.column; });
  for (std::int64_t j = 0; j < k; ++j) {
    values[j] = kept[static_cast<std::size_t>(j)].value;
    columns[j] = kept[static_cast<std::size_t>(j)].column;
  }
}

at::Tensor dense(const at::Tensor& values, const at::Tensor& index, std::int64_t latents) {
  return at::zeros({values.size(0), latents}, values.options()).scatter_(1, index, values);
}

}  // namespace

at::Tensor sparse_decode(const at::Tensor& values, const at::Tensor& index, const at::Tensor& rows) {
  if (!rows.is_cpu()) return dense(values, index, rows.size(0)).matmul(rows);
  const auto v = values.contiguous(), w = index.contiguous(), r = rows.contiguous();
  const std::int64_t m = v.size(1), d = r.size(1);
  auto result = at::zeros({v.size(0), d}, r.options());
  float* out = result.mutable_data_ptr<float>();
  at::parallel_for(0, v.size(0), kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      add_rows(out + i * d, r.const_data_ptr<float>(), w.const_data_ptr<std::int64_t>() + i * m,
               v.const_data_ptr<float>() + i * m, m, d);
    }
  });
  return result;
}

at::Tensor row_products(const at::Tensor& x, const at::Tensor& index, const at::Tensor& rows) {
  if (!rows.is_cpu()) return x.matmul(rows.t()).gather(1, index);
  const auto v = x.contiguous(), w = index.contiguous(), r = rows.contiguous();
  const std::int64_t m = w.size(1), d = r.size(1);
  auto result = at::empty({v.size(0), m}, r.options());
  float* out = result.mutable_data_ptr<float>();
  at::parallel_for(0, v.size(0), kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      dot_rows(out + i * m, v.const_data_ptr<float>() + i * d, r.const_data_ptr<float>(),
               w.const_data_ptr<std::int64_t>() + i * m, m, d);
    }
  });
  return result;
}

at::Tensor sparse_gradient(const at::Tensor& values, const at::Tensor& index, const at::Tensor& x,
                           std::int64_t latents) {
  if (!x.is_cpu()) return dense(values, index, latents).t().matmul(x);
  const auto v = values.contiguous(), w = index.contiguous(), rows = x.contiguous();
  const auto* value = v.const_data_ptr<float>();
  const auto* which = w.const_data_ptr<std::int64_t>();
  const std::int64_t m = v.size(1), d = rows.size(1);
  // The entries of each latent one after the other, in the order of the rows: every sum has one owner and one order.
  std::vector<std::int64_t> begins(static_cast<std::size_t>(latents) + 1, 0);
  for (std::int64_t e = 0; e < v.numel(); ++e) ++begins[static_cast<std::size_t>(which[e]) + 1];
  for (std::size_t l = 1; l < begins.size(); ++l) begins[l] += begins[l - 1];
  std::vector<std::int64_t> row_of(static_cast<std::size_t>(v.numel())), next(begins.begin(), begins.end() - 1);
  std::vector<float> value_of(row_of.size());
  for (std::int64_t e = 0; e < v.numel(); ++e) {
    const auto place = static_cast<std::size_t>(next[static_cast<std::size_t>(which[e])]++);
    row_of[place] = e / m;
    value_of[place] = value[e];
  }
  auto result = at::zeros({latents, d}, rows.options());
  float* out = result.mutable_data_ptr<float>();
  at::parallel_for(0, latents, kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t l = begin; l < end; ++l) {
      const auto first = begins[static_cast<std::size_t>(l)];
      add_rows(out + l * d, rows.const_data_ptr<float>(), row_of.data() + first, value_of.data() + first,
               begins[static_cast<std::size_t>(l) + 1] - first, d);
    }
  });
  return result;
}

std::pair<at::Tensor, at::Tensor> largest(const at::Tensor& x, std::int64_t k) {
  if (!x.is_cpu()) {
    const auto columns = std::get<0>(std::get<1>(x.topk(k, 1, /*largest=*/true, /*sorted=*/false)).sort(1));
    return {x.gather(1, columns).to(at::kFloat), columns};
  }
  const auto rows = x.contiguous();
  const std::int64_t m = rows.size(1);
  auto values = at::empty({rows.size(0), k}, rows.options().dtype(at::kFloat));
  auto columns = at::empty({rows.size(0), k}, rows.options().dtype(at::kLong));
  auto* value = values.mutable_data_ptr<float>();
  auto* column = columns.mutable_data_ptr<std::int64_t>();
  at::parallel_for(0, rows.size(0), kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    std::vector<Entry> kept;
    for (std::int64_t i = begin; i < end; ++i) {
      const auto row = rows.select(0, i).to(at::kFloat);  // of bfloat16: one row at a time stays in the cache
      largest_of_row(row.const_data_ptr<float>(), m, k, kept, value + i * k, column + i * k);
    }
  });
  return {values, columns};
}

}  // namespace proviso::runtime
