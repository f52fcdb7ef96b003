#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/hooks.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::runtime {

/// The largest logit's id; ties to the lower one.
std::int64_t likeliest_token(std::span<const float> logits);
/// The `count` largest logits' ids, best first; ties to the lower id.
std::vector<std::int64_t> likeliest_tokens(std::span<const float> logits, std::int64_t count);

struct TextRequest {
  std::vector<std::int64_t> prompt;
  RowMemory memory;
  std::int64_t max_tokens = 32;
  double temperature = 0;  ///< 0: greedy
  std::uint64_t seed = 0;
};

/// Generates texts in batches, each with a key-value cache, under a program's hooks. A text ends at the
/// end of sequence, at its most tokens, or where the context is full.
class TextWriter {
 public:
  TextWriter(const model::Transformer& transformer, const model::Tokenizer& tokenizer, HookPass& hooks)
      : transformer_(transformer), tokenizer_(tokenizer), hooks_(hooks) {}

  struct Written {
    std::vector<std::int64_t> tokens;  ///< without the end of sequence
    bool finite = true;                ///< false where a logit was NaN or infinite: the text says nothing
  };
  std::vector<Written> write(std::span<TextRequest> requests);

  /// Called around each forward pass with its rows, and which request each of them is; may be empty. Before
  /// a pass the layout holds rows only.
  std::function<void(const model::PackedLayout&, std::span<const std::size_t>)> before_pass, after_pass;

 private:
  void write_batch(std::span<TextRequest> requests, std::size_t first, std::vector<Written>& texts);

  const model::Transformer& transformer_;
  const model::Tokenizer& tokenizer_;
  HookPass& hooks_;
};

}  // namespace proviso::runtime
