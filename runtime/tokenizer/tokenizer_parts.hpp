#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/tokenizer/added_tokens.hpp"
#include "runtime/tokenizer/bpe.hpp"
#include "runtime/tokenizer/decoder.hpp"
#include "runtime/tokenizer/normalizer.hpp"
#include "runtime/tokenizer/pre_tokenizer.hpp"

namespace proviso::model {

using NamedFiles = std::vector<std::pair<std::string, std::string>>;  // (name, bytes)

/// What a tokenizer is made of, whatever file it came from.
struct TokenizerParts {
  explicit TokenizerParts(Bpe model) : bpe(std::move(model)) {}

  Bpe bpe;
  std::vector<AddedToken> added;
  std::vector<Normalizer> normalizers;
  std::vector<PreTokenizer> pre_tokenizers;
  std::vector<Decoder> decoders;
  std::vector<std::int64_t> prefix, suffix;         ///< what `add_special` adds
  std::vector<std::int64_t> eos;                    ///< the main one first
  std::map<std::string, std::string> named_tokens;  ///< "bos_token", "eos_token" … of the configuration
  std::optional<std::string> chat_template;
  std::function<NamedFiles(const Bpe&)> files;

  std::int64_t size() const;  ///< ids are 0 … size−1
};

/// Reads all but the model from the object of a tokenizer.json. `source` names the file in messages.
/// Throws `InputError` for what is not reproduced exactly.
TokenizerParts assemble(Bpe bpe, const nlohmann::json& tokenizer, const std::string& source);

/// The whole of a tokenizer.json.
TokenizerParts parse_tokenizer_json(std::string_view text, const std::string& source);

TokenizerParts read_hugging_face_tokenizer(const std::string& directory);
TokenizerParts read_gguf_tokenizer(const std::string& path);

}  // namespace proviso::model
