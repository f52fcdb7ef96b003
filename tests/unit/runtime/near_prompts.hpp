#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "tests/support/random_model.hpp"

namespace proviso::runtime {

inline double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

/// The token `to` gets nearly the embedding of `from`.
inline void bring_near(model::Transformer& transformer, const model::Tokenizer& tokenizer, const std::string& from,
                       const std::string& to, double distance) {
  auto table = transformer.get(transformer.embedding_name()).clone();
  const auto noise = test::random_tensor({table.size(1)}, 3).to(at::kFloat) * distance;
  table[tokenizer.encode(to).front()] = table[tokenizer.encode(from).front()] + noise;
  transformer.set(transformer.embedding_name(), table);
}

}  // namespace proviso::runtime
