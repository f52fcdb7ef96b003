#include "editing/rome_prompts.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <span>

namespace proviso::editing {
namespace {

constexpr std::int64_t kTopK = 5;

/// What a model's training texts start with.
std::int64_t start_token(const model::Transformer& transformer, const model::Tokenizer& tokenizer) {
  if (const auto id = tokenizer.special("<|endoftext|>")) return *id;
  const auto& config = transformer.config();
  return config.bos.value_or(config.eos.value_or(0));
}

/// One of the `kTopK` likeliest tokens of `logits` [vocabulary]. Drawn by hand: the standard distributions
/// differ between libraries.
std::int64_t draw(const at::Tensor& logits, std::mt19937_64& random) {
  const auto [top, ids] = logits.to(at::kDouble).topk(std::min(kTopK, logits.size(0)));
  const auto cumulative = top.softmax(0).cumsum(0);
  const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;
  const auto index = (cumulative <= uniform).sum().item<std::int64_t>();
  return ids[std::min(index, ids.size(0) - 1)].item<std::int64_t>();
}

std::string prefix_text(const model::Tokenizer& tokenizer, std::vector<std::int64_t> tokens) {
  std::erase_if(tokens, [&](std::int64_t id) { return tokenizer.is_special(id); });
  auto text = tokenizer.decode(tokens);
  for (auto at = text.find("\n\n"); at != std::string::npos; at = text.find("\n\n", at)) text.replace(at, 2, " ");
  return text;
}

}  // namespace

SubjectPrompt locate_subject(const model::Tokenizer& tokenizer, std::string_view before, std::string_view subject,
                             std::string_view after) {
  const auto subject_end = before.size() + subject.size();
  const auto text = std::string(before).append(subject).append(after);
  const auto plain = tokenizer.encode(text);
  SubjectPrompt prompt{tokenizer.encode(text, /*add_special=*/true), 0};
  // Bytes are counted without the special tokens, which stand for none of the text.
  std::size_t bytes = 0;
  while (prompt.subject_last < std::ssize(plain)) {
    bytes += tokenizer.decode(std::span(plain).subspan(prompt.subject_last, 1), /*replace_invalid=*/false).size();
    if (bytes >= subject_end) break;
    ++prompt.subject_last;
  }
  prompt.subject_last +=
      std::search(prompt.tokens.begin(), prompt.tokens.end(), plain.begin(), plain.end()) - prompt.tokens.begin();
  return prompt;
}

std::vector<std::string> sample_prefixes(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                         const std::vector<PrefixBatch>& batches, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  std::mt19937_64 random(seed);
  std::vector<std::string> prefixes;
  for (const auto& batch : batches) {
    if (batch.count == 0) continue;
    const auto start = start_token(transformer, tokenizer);
    std::vector<std::vector<std::int64_t>> written(batch.count, {start});
    std::vector<model::Row> rows(batch.count, {{start}, 1});
    model::KeyValueCache cache;
    for (std::int64_t length = 1; length < batch.tokens; ++length) {
      model::Pass pass;
      pass.rows = &rows;
      pass.cache = &cache;
      pass.logits_at = std::nullopt;
      pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
        for (std::int64_t i = 0; i < logits.size(0); ++i) {
          const auto token = draw(logits[i], random);
          written[first + i].push_back(token);
          rows[first + i].tokens = {token};
        }
      };
      transformer.forward(pass);
    }
    for (auto& tokens : written) prefixes.push_back(prefix_text(tokenizer, std::move(tokens)));
  }
  return prefixes;
}

}  // namespace proviso::editing
