#include <nlohmann/json.hpp>

#include "runtime/formats/gguf.hpp"
#include "runtime/tokenizer/tokenizer_parts.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

using Json = nlohmann::json;

struct PreTokenizerEntry {
  const char* name;
  const char* json;
  bool ignore_merges, adds_bos;
};

constexpr PreTokenizerEntry kPreTokenizers[] = {
#define PROVISO_GGUF_PRE(name, json, ignore_merges, adds_bos) {name, json, ignore_merges, adds_bos},
#include "runtime/tokenizer/gguf_pre_tokenizers.def"
#undef PROVISO_GGUF_PRE
};

// llama.cpp's values of `tokenizer.ggml.token_type`.
enum class TokenKind : std::int64_t { normal = 1, unknown, control, user_defined, unused, byte };

// The `tokenizer.…` keys of a GGUF file, by type.
class Metadata {
 public:
  explicit Metadata(const std::string& path) : path_(path), file_(read_gguf(path)) {}

  [[noreturn]] void refuse(const std::string& why) const { throw InputError(path_ + ": " + why); }
  const std::string& path() const { return path_; }

  template <typename T>
  const T* find(const std::string& key) const {
    const GgufValue* value = file_.find(key);
    if (!value) return nullptr;
    if (const T* typed = std::get_if<T>(&value->value)) return typed;
    refuse(key + " has the wrong type");
  }
  template <typename T>
  T get_or(const std::string& key, T fallback) const {
    const T* value = find<T>(key);
    return value ? *value : fallback;
  }
  template <typename T>
  std::vector<T> list(const std::string& key) const {
    std::vector<T> out;
    const GgufArray* array = find<GgufArray>(key);
    if (!array) return out;
    out.reserve(array->size());
    for (const GgufValue& element : *array) {
      const T* typed = std::get_if<T>(&element.value);
      if (!typed) refuse(key + " has an element of the wrong type");
      out.push_back(*typed);
    }
    return out;
  }

 private:
  std::string path_;
  GgufFile file_;
};

const PreTokenizerEntry& pre_tokenizer_of(const Metadata& metadata) {
  const auto name = metadata.get_or<std::string>("tokenizer.ggml.pre", "");
  std::string known;
  for (const PreTokenizerEntry& entry : kPreTokenizers) {
    if (name == entry.name) return entry;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  metadata.refuse("the pre-tokenizer '" + name + "' (tokenizer.ggml.pre) is not reproduced exactly; known are " +
                  known + "; use the model's Hugging Face directory with its tokenizer.json");
}

std::vector<std::string> read_tokens(const Metadata& metadata) {
  std::vector<std::string> tokens = metadata.list<std::string>("tokenizer.ggml.tokens");
  if (tokens.empty()) metadata.refuse("tokenizer.ggml.tokens is missing");
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (find_invalid_utf8(tokens[id]) != std::string::npos) {
      metadata.refuse("token " + std::to_string(id) + " is not UTF-8");
    }
  }
  return tokens;
}

std::vector<Merge> read_merges(const Metadata& metadata, const std::vector<std::string>& lines) {
  std::vector<Merge> merges;
  merges.reserve(lines.size());
  for (const std::string& line : lines) {
    // A token may begin with a space, never the pair.
    const std::size_t space = line.find(' ', 1);
    if (line.size() < 3 || space == line.npos) metadata.refuse("tokenizer.ggml.merges: '" + line + "' is not a pair");
    merges.push_back({std::string_view(line).substr(0, space), std::string_view(line).substr(space + 1)});
  }
  return merges;
}

std::optional<std::int64_t> token_id(const Metadata& metadata, const std::string& key, std::size_t tokens) {
  const std::int64_t* id = metadata.find<std::int64_t>(key);
  if (!id) return std::nullopt;
  if (*id < 0 || *id >= static_cast<std::int64_t>(tokens)) {
    metadata.refuse(key + " is " + std::to_string(*id) + ", but there are " + std::to_string(tokens) + " tokens");
  }
  return *id;
}

Json added_tokens(const Metadata& metadata, const std::vector<std::string>& tokens) {
  const auto kinds = metadata.list<std::int64_t>("tokenizer.ggml.token_type");
  if (!kinds.empty() && kinds.size() != tokens.size()) {
    metadata.refuse("tokenizer.ggml.token_type has " + std::to_string(kinds.size()) + " elements for " +
                    std::to_string(tokens.size()) + " tokens");
  }
  Json added = Json::array();
  for (std::size_t id = 0; id < kinds.size(); ++id) {
    const auto kind = static_cast<TokenKind>(kinds[id]);
    const bool special = kind == TokenKind::control || kind == TokenKind::unknown;
    if (tokens[id].empty() || !(special || kind == TokenKind::user_defined)) continue;
    added.push_back({{"id", id},
                     {"content", tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", special}});
  }
  return added;
}

}  // namespace

TokenizerParts read_gguf_tokenizer(const std::string& path) {
  const Metadata metadata(path);
  const auto model = metadata.get_or<std::string>("tokenizer.ggml.model", "");
  if (model != "gpt2") {
    metadata.refuse("the tokenizer model '" + model +
                    "' (tokenizer.ggml.model) is not read from GGUF; use the model's "
                    "Hugging Face directory with its tokenizer.json");
  }
  const PreTokenizerEntry& pre = pre_tokenizer_of(metadata);
  std::vector<std::string> tokens = read_tokens(metadata);

  const auto bos = token_id(metadata, "tokenizer.ggml.bos_token_id", tokens.size());
  const auto eos = token_id(metadata, "tokenizer.ggml.eos_token_id", tokens.size());
  const auto end_of_turn = token_id(metadata, "tokenizer.ggml.eot_token_id", tokens.size());
  const bool add_bos = metadata.get_or<bool>("tokenizer.ggml.add_bos_token", pre.adds_bos);
  const bool add_eos = metadata.get_or<bool>("tokenizer.ggml.add_eos_token", false);

  Json tokenizer = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  tokenizer["added_tokens"] = added_tokens(metadata, tokens);
  tokenizer["normalizer"] = nullptr;
  tokenizer["pre_tokenizer"] = Json::parse(pre.json);
  tokenizer["post_processor"] = nullptr;
  tokenizer["decoder"] = {
      {"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};

  const std::vector<std::string> merge_lines = metadata.list<std::string>("tokenizer.ggml.merges");
  BpeOptions options;
  options.ignore_merges = pre.ignore_merges;
  auto parts = [&] {
    try {
      return assemble(Bpe(Vocabulary(std::move(tokens)), read_merges(metadata, merge_lines), options), tokenizer, path);
    } catch (const InputError& error) {
      metadata.refuse(error.what());
    }
  }();
  if (add_bos && bos) parts.prefix.push_back(*bos);
  if (add_eos && eos) parts.suffix.push_back(*eos);
  if (eos) parts.eos.push_back(*eos);
  if (end_of_turn && end_of_turn != eos) parts.eos.push_back(*end_of_turn);
  if (const auto* source = metadata.find<std::string>("tokenizer.chat_template")) parts.chat_template = *source;
  return parts;
}

}  // namespace proviso::model
