#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <tuple>

#include "runtime/formats/gguf.hpp"
#include "runtime/tokenizer/tokenizer_parts.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

using Json = nlohmann::json;

struct PreTokenizerEntry {
  const char* name;
  const char *json, *normalizer;
  bool ignore_merges, adds_bos;
};

constexpr PreTokenizerEntry kPreTokenizers[] = {
#define PROVISO_GGUF_PRE(name, json, normalizer, ignore_merges, adds_bos) \
  {name, json, normalizer, ignore_merges, adds_bos},
#include "runtime/tokenizer/gguf_pre_tokenizers.def"
#undef PROVISO_GGUF_PRE
};

constexpr std::size_t kMaxScoredToken = 1024;

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
    if (tokens[id].empty()) metadata.refuse("token " + std::to_string(id) + " has no text");
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

std::vector<TokenKind> read_kinds(const Metadata& metadata, std::size_t tokens) {
  std::vector<TokenKind> kinds;
  for (const std::int64_t kind : metadata.list<std::int64_t>("tokenizer.ggml.token_type")) {
    kinds.push_back(static_cast<TokenKind>(kind));
  }
  if (kinds.size() != tokens) {
    metadata.refuse("tokenizer.ggml.token_type has " + std::to_string(kinds.size()) + " elements for " +
                    std::to_string(tokens) + " tokens");
  }
  return kinds;
}

Json added_tokens(const std::vector<TokenKind>& kinds, const std::vector<std::string>& tokens) {
  Json added = Json::array();
  for (std::size_t id = 0; id < kinds.size(); ++id) {
    const bool special = kinds[id] == TokenKind::control || kinds[id] == TokenKind::unknown;
    if (!special && kinds[id] != TokenKind::user_defined) continue;
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

// A post-processor that puts the tokens `before` and `after` around a text.
Json template_around(const std::vector<std::string>& tokens, std::optional<std::int64_t> before,
                     std::optional<std::int64_t> after) {
  if (!before && !after) return nullptr;
  Json single = Json::array(), special = Json::object();
  const auto put = [&](std::optional<std::int64_t> id) {
    if (!id) return;
    const std::string& text = tokens[static_cast<std::size_t>(*id)];
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    special[text] = {{"id", text}, {"ids", {*id}}, {"tokens", {text}}};
  };
  put(before);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  put(after);
  Json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

// The model of a tokenizer.json.
Json model_json(const Bpe& bpe) {
  Json vocabulary = Json::object(), merges = Json::array();
  for (std::uint32_t id = 0; id < bpe.vocabulary().size(); ++id) vocabulary[bpe.vocabulary().text(id)] = id;
  for (const Merge& merge : bpe.merges()) merges.push_back({merge.left, merge.right});
  const BpeOptions& options = bpe.options();
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", options.unknown_token ? Json(*options.unknown_token) : Json()},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", options.fuse_unknown},
          {"byte_fallback", options.byte_fallback},
          {"ignore_merges", options.ignore_merges},
          {"vocab", vocabulary},
          {"merges", merges}};
}

// How text becomes words and ids become text, for one kind of tokenizer; the names are those of a tokenizer.json.
struct Scheme {
  Json normalizer, pre_tokenizer, decoder;
  BpeOptions options;
  bool adds_bos;
};

Scheme byte_level_scheme(const Metadata& metadata) {
  const PreTokenizerEntry& entry = pre_tokenizer_of(metadata);
  Scheme scheme;
  scheme.pre_tokenizer = Json::parse(entry.json);
  scheme.normalizer = Json::parse(entry.normalizer);
  scheme.decoder = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  scheme.options.ignore_merges = entry.ignore_merges;
  scheme.adds_bos = entry.adds_bos;
  return scheme;
}

// SentencePiece as transformers converts it: "▁" for a space, and one before each text.
Scheme sentence_piece_scheme(const Metadata& metadata, const std::vector<std::string>& tokens) {
  constexpr const char* kSpace = "\u2581";
  const bool prefix = metadata.get_or<bool>("tokenizer.ggml.add_space_prefix", true);
  Scheme scheme;
  Json normalizers = Json::array();
  if (prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpace}});
  normalizers.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}});
  scheme.normalizer = {{"type", "Sequence"}, {"normalizers", normalizers}};
  Json decoders = Json::array();
  decoders.push_back({{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}});
  decoders.push_back({{"type", "ByteFallback"}});
  decoders.push_back({{"type", "Fuse"}});
  if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  scheme.decoder = {{"type", "Sequence"}, {"decoders", decoders}};
  scheme.options.byte_fallback = true;
  scheme.options.fuse_unknown = true;
  if (const auto unknown = token_id(metadata, "tokenizer.ggml.unknown_token_id", tokens.size())) {
    scheme.options.unknown_token = tokens[static_cast<std::size_t>(*unknown)];
  }
  scheme.adds_bos = true;
  return scheme;
}

// The merges that SentencePiece's scores amount to, as transformers derives them: every way to split a token into two
// others, the best score first, then the longest parts.
std::vector<Merge> merges_of_scores(const Metadata& metadata, const Vocabulary& vocabulary,
                                    const std::vector<TokenKind>& kinds) {
  const auto scores = metadata.list<double>("tokenizer.ggml.scores");
  if (scores.size() != vocabulary.size()) metadata.refuse("tokenizer.ggml.scores has another length than the tokens");
  struct Split {
    double score;
    std::size_t left_length, right_length;  // in code points
    std::uint32_t left_id, right_id;
    Merge merge;
  };
  std::vector<Split> splits;
  for (std::uint32_t id = 0; id < vocabulary.size(); ++id) {
    if (!std::isfinite(scores[id])) metadata.refuse("the score of token " + std::to_string(id) + " is not a number");
    if (kinds[id] != TokenKind::normal && kinds[id] != TokenKind::user_defined) continue;
    const std::string_view text = vocabulary.text(id);
    if (text.size() > kMaxScoredToken) metadata.refuse("token " + std::to_string(id) + " is longer than 1024 bytes");
    const std::size_t first_of_token = splits.size();
    std::size_t length = 0;
    for (std::size_t offset = 0; offset < text.size(); next_code_point(text, offset), ++length) {
      if (offset == 0) continue;
      const Merge merge{text.substr(0, offset), text.substr(offset)};
      const auto left = vocabulary.find(merge.left), right = vocabulary.find(merge.right);
      if (left && right) splits.push_back({scores[id], length, 0, *left, *right, merge});
    }
    const auto begin = splits.begin() + static_cast<std::ptrdiff_t>(first_of_token);
    for (auto split = begin; split != splits.end(); ++split) split->right_length = length - split->left_length;
    std::sort(begin, splits.end(), [](const Split& a, const Split& b) {
      return std::pair(a.left_id, a.right_id) < std::pair(b.left_id, b.right_id);
    });
  }
  std::stable_sort(splits.begin(), splits.end(), [](const Split& a, const Split& b) {
    return std::tuple(a.score, a.left_length, a.right_length) > std::tuple(b.score, b.left_length, b.right_length);
  });
  std::vector<Merge> merges;
  merges.reserve(splits.size());
  for (const Split& split : splits) merges.push_back(split.merge);
  return merges;
}

// The named tokens of a tokenizer_config.json and the GGUF keys that hold their ids.
constexpr std::pair<const char*, const char*> kNamedTokens[] = {
    {"bos_token", "tokenizer.ggml.bos_token_id"},
    {"eos_token", "tokenizer.ggml.eos_token_id"},
    {"unk_token", "tokenizer.ggml.unknown_token_id"},
    {"pad_token", "tokenizer.ggml.padding_token_id"},
};

// The named tokens among those that are added: transformers would add any other to those found in the text.
std::map<std::string, std::string> named_tokens(const Metadata& metadata, const std::vector<std::string>& tokens,
                                                const std::vector<AddedToken>& added) {
  std::map<std::string, std::string> named;
  for (const auto& [name, key] : kNamedTokens) {
    const auto id = token_id(metadata, key, tokens.size());
    const auto is_named = [&](const AddedToken& token) { return id && token.id == *id; };
    if (std::any_of(added.begin(), added.end(), is_named)) named.emplace(name, tokens[static_cast<std::size_t>(*id)]);
  }
  return named;
}

}  // namespace

TokenizerParts read_gguf_tokenizer(const std::string& path) {
  const Metadata metadata(path);
  const std::vector<std::string> tokens = read_tokens(metadata);
  const std::vector<TokenKind> kinds = read_kinds(metadata, tokens.size());
  const auto bos = token_id(metadata, "tokenizer.ggml.bos_token_id", tokens.size());
  const auto eos = token_id(metadata, "tokenizer.ggml.eos_token_id", tokens.size());
  const auto end_of_turn = token_id(metadata, "tokenizer.ggml.eot_token_id", tokens.size());

  const auto model = metadata.get_or<std::string>("tokenizer.ggml.model", "");
  const bool scored = model == "llama";
  if (!scored && model != "gpt2") {
    metadata.refuse("the tokenizer model '" + model +
                    "' (tokenizer.ggml.model) is not read; gpt2 and llama are. Use "
                    "the model's Hugging Face directory with its tokenizer.json");
  }
  const Scheme scheme = scored ? sentence_piece_scheme(metadata, tokens) : byte_level_scheme(metadata);
  const bool add_bos = metadata.get_or<bool>("tokenizer.ggml.add_bos_token", scheme.adds_bos);
  const bool add_eos = metadata.get_or<bool>("tokenizer.ggml.add_eos_token", false);
  const Json tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added_tokens(kinds, tokens)},
      {"normalizer", scheme.normalizer},
      {"pre_tokenizer", scheme.pre_tokenizer},
      {"post_processor", template_around(tokens, add_bos ? bos : std::nullopt, add_eos ? eos : std::nullopt)},
      {"decoder", scheme.decoder},
  };

  auto parts = [&] {
    try {
      Vocabulary vocabulary(tokens);
      const auto lines = metadata.list<std::string>("tokenizer.ggml.merges");
      const auto merges = scored ? merges_of_scores(metadata, vocabulary, kinds) : read_merges(metadata, lines);
      return assemble(Bpe(std::move(vocabulary), merges, scheme.options), tokenizer, path);
    } catch (const InputError& error) {
      metadata.refuse(error.what());
    }
  }();
  if (eos) parts.eos.push_back(*eos);
  if (end_of_turn && end_of_turn != eos) parts.eos.push_back(*end_of_turn);
  if (const auto* source = metadata.find<std::string>("tokenizer.chat_template")) parts.chat_template = *source;
  parts.named_tokens = named_tokens(metadata, tokens, parts.added);
  Json config = parts.named_tokens;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  if (parts.chat_template) config["chat_template"] = *parts.chat_template;
  parts.files = [tokenizer, config](const Bpe& bpe) -> NamedFiles {
    Json whole = tokenizer;
    whole["model"] = model_json(bpe);
    return {{"tokenizer.json", whole.dump(1) + "\n"}, {"tokenizer_config.json", config.dump(2) + "\n"}};
  };
  return parts;
}

}  // namespace proviso::model
