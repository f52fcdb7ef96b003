#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <memory>
#include <random>

#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/byte_alphabet.hpp"
#include "runtime/tokenizer/tokenizer.hpp"
#include "tests/support/tiny_model.hpp"

namespace proviso::test {

/// One token a byte, and one more that starts texts.
inline constexpr std::int64_t kByteVocabulary = 257;

inline nlohmann::json byte_tokenizer_json() {
  nlohmann::json vocabulary = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte)
    vocabulary[model::to_byte_alphabet(std::string(1, static_cast<char>(byte)))] = byte;
  return {{"version", "1.0"},
          {"added_tokens",
           {{{"id", 256},
             {"content", "<|endoftext|>"},
             {"single_word", false},
             {"lstrip", false},
             {"rstrip", false},
             {"normalized", false},
             {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", vocabulary},
            {"merges", nlohmann::json::array()}}}};
}

/// A tiny model of random weights in a folder of its own, with a tokenizer whose tokens are bytes.
class RandomModel {
 public:
  explicit RandomModel(nlohmann::json json = tiny_llama_json(), float spread = 0.25f) {
    json["vocab_size"] = kByteVocabulary;
    json[json.contains("n_positions") ? "n_positions" : "max_position_embeddings"] = 128;
    auto tiny = tiny_model(json);
    std::mt19937 random(7);
    for (auto& tensor : tiny.tensors)
      for (auto& value : tensor.values) {
        // Sums of uniform numbers: the same on every machine, near enough to normal.
        float sum = -2;
        for (int i = 0; i < 4; ++i) sum += static_cast<float>(random() >> 8) * 0x1p-24f;
        const bool gain = tensor.shape.size() == 1 && model::at_layer(tensor.spec->name, 0).ends_with("weight");
        value = gain ? 1 + spread * sum : 2 * spread * sum;
      }
    write_hugging_face(tiny, folder.path().string());
    write_bytes(folder / "tokenizer.json", byte_tokenizer_json().dump());
    transformer = model::Transformer::load(model::read_model_card(folder.path().string()), {});
    tokenizer = model::Tokenizer::load(folder.path().string());
  }

  TemporaryFolder folder;
  std::unique_ptr<model::Transformer> transformer;
  std::shared_ptr<const model::Tokenizer> tokenizer;
};

inline at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t seed = 1) {
  return at::randn(shape, at::detail::createCPUGenerator(seed), at::TensorOptions().dtype(at::kDouble));
}

/// All logits of some rows.
inline at::Tensor logits_of(const model::Transformer& transformer, const std::vector<model::Row>& rows,
                            model::SiteVisitor* visitor = nullptr) {
  std::vector<at::Tensor> chunks;
  model::Pass pass;
  pass.rows = &rows;
  pass.visitor = visitor;
  pass.logits_at = std::nullopt;
  pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits.clone()); };
  transformer.forward(pass);
  return at::cat(chunks);
}

inline std::vector<model::Row> rows_of(const model::Tokenizer& tokenizer, const std::vector<std::string>& texts) {
  std::vector<model::Row> rows;
  for (const auto& text : texts) {
    const auto tokens = tokenizer.encode(text);
    rows.push_back({tokens, std::ssize(tokens)});
  }
  return rows;
}

/// Bytes of a tensor in memory: what "to the bit" compares.
inline std::string bytes_of(const at::Tensor& tensor) {
  const auto contiguous = tensor.contiguous();
  return {static_cast<const char*>(contiguous.const_data_ptr()), contiguous.nbytes()};
}

}  // namespace proviso::test
