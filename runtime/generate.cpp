#include "runtime/generate.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/model/random.hpp"

namespace proviso::runtime {

namespace {

constexpr std::size_t kRowsInBatch = 32;

std::int64_t draw(std::span<const float> logits, double temperature, std::uint64_t seed) {
  if (temperature == 0) return likeliest_token(logits);
  const double largest = *std::max_element(logits.begin(), logits.end());
  const auto weight = [&](float logit) { return std::exp((logit - largest) / temperature); };
  double total = 0;
  for (float logit : logits) total += weight(logit);
  double left = model::NormalSource(seed).uniform() * total;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    left -= weight(logits[i]);
    if (left <= 0) return static_cast<std::int64_t>(i);
  }
  return static_cast<std::int64_t>(logits.size()) - 1;
}

}  // namespace

std::int64_t likeliest_token(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

std::vector<std::int64_t> likeliest_tokens(std::span<const float> logits, std::int64_t count) {
  std::vector<std::int64_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto middle = ids.begin() + std::min<std::int64_t>(count, static_cast<std::int64_t>(ids.size()));
  std::partial_sort(ids.begin(), middle, ids.end(), [&](std::int64_t a, std::int64_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  return {ids.begin(), middle};
}

std::vector<TextWriter::Written> TextWriter::write(std::span<TextRequest> requests) {
  std::vector<Written> texts(requests.size());
  for (std::size_t first = 0; first < requests.size(); first += kRowsInBatch) {
    write_batch(requests.subspan(first, std::min(kRowsInBatch, requests.size() - first)), first, texts);
  }
  return texts;
}

void TextWriter::write_batch(std::span<TextRequest> requests, std::size_t first, std::vector<Written>& texts) {
  const std::int64_t context = transformer_.config().context;
  std::vector<std::size_t> alive;  // requests still being written, as rows of the cache
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].max_tokens > 0) alive.push_back(i);
  }
  model::KeyValueCache cache;
  bool prefill = true;
  while (!alive.empty()) {
    std::vector<model::Row> rows;
    std::vector<RowMemory*> memories;
    std::vector<std::int64_t> logits_at;
    std::vector<std::size_t> which;
    model::PackedLayout expected;
    std::int64_t packed = 0;
    for (std::size_t i : alive) {
      const auto prompt = static_cast<std::int64_t>(requests[i].prompt.size());
      auto tokens = prefill ? requests[i].prompt : std::vector{texts[first + i].tokens.back()};
      const auto length = static_cast<std::int64_t>(tokens.size());
      const std::int64_t position =
          prefill ? 0 : prompt + static_cast<std::int64_t>(texts[first + i].tokens.size()) - 1;
      expected.rows.push_back({packed, length, position, prompt});
      packed += length;
      logits_at.push_back(packed - 1);
      rows.push_back({std::move(tokens), prompt});
      memories.push_back(&requests[i].memory);
      which.push_back(first + i);
    }
    hooks_.begin(std::move(memories));
    if (before_pass) before_pass(expected, which);
    std::vector<std::int64_t> next(alive.size());
    model::Pass pass;
    pass.rows = &rows;
    pass.cache = &cache;
    pass.visitor = &hooks_;
    pass.logits_at = logits_at;
    pass.on_logits = [&](std::int64_t at, const at::Tensor& logits) {
      const auto values = logits.cpu().contiguous();
      for (std::int64_t r = 0; r < values.size(0); ++r) {
        const auto& request = requests[alive[static_cast<std::size_t>(at + r)]];
        auto& text = texts[first + alive[static_cast<std::size_t>(at + r)]];
        const std::span<const float> row(values.const_data_ptr<float>() + r * values.size(1),
                                         static_cast<std::size_t>(values.size(1)));
        text.finite =
            text.finite && std::all_of(row.begin(), row.end(), [](float logit) { return std::isfinite(logit); });
        next[static_cast<std::size_t>(at + r)] =
            draw(row, request.temperature, model::mix_seed(request.seed, text.tokens.size()));
      }
    };
    const auto layout = transformer_.forward(pass);
    if (after_pass) after_pass(layout, which);
    prefill = false;

    std::vector<std::size_t> still;
    std::vector<std::int64_t> kept;
    for (std::size_t r = 0; r < alive.size(); ++r) {
      const std::size_t i = alive[r];
      if (tokenizer_.is_eos(next[r])) continue;
      auto& text = texts[first + i].tokens;
      text.push_back(next[r]);
      const auto length = static_cast<std::int64_t>(requests[i].prompt.size() + text.size());
      if (static_cast<std::int64_t>(text.size()) == requests[i].max_tokens || length >= context) continue;
      still.push_back(i);
      kept.push_back(static_cast<std::int64_t>(r));
    }
    if (still.size() != alive.size() && !still.empty()) cache = cache.select(kept);
    alive = std::move(still);
  }
}

}  // namespace proviso::runtime
