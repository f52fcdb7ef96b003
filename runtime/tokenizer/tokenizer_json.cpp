#include <algorithm>
#include <array>
#include <filesystem>

#include "runtime/formats/json_text.hpp"
#include "runtime/tokenizer/json_node.hpp"
#include "runtime/tokenizer/tokenizer_parts.hpp"

namespace proviso::model {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kMaxVocabulary = 1 << 22;

constexpr std::array kFileNames = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
                                   "merges.txt",     "added_tokens.json",     "chat_template.jinja"};

std::optional<std::string> read_if_there(const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  const auto file = MappedFile::open(path.string());
  return std::string(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
}

Vocabulary read_vocabulary(const JsonNode& node) {
  if (!node.is_object() || node.json().empty()) node.refuse("an object of tokens and ids is expected");
  std::vector<std::string> texts(node.json().size());
  for (const auto& [text, id] : node.json().items()) {
    if (!id.is_number_unsigned() || id >= texts.size() || texts.size() > kMaxVocabulary) {
      node.refuse("'" + text + "' has the id " + id.dump() + "; ids are 0 … " + std::to_string(texts.size() - 1));
    }
    std::string& slot = texts[id.get<std::size_t>()];
    if (!slot.empty()) node.refuse("'" + slot + "' and '" + text + "' have one id, " + id.dump());
    slot = text;
  }
  return Vocabulary(std::move(texts));
}

// Either form: ["a b", …] or [["a", "b"], …].
std::vector<Merge> read_merges(const JsonNode& node) {
  std::vector<Merge> merges;
  if (!node.is_array()) node.refuse("a list is expected");
  merges.reserve(node.json().size());
  for (const auto& merge : node.json()) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.push_back({merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()});
      continue;
    }
    const std::string_view line = merge.is_string() ? std::string_view(merge.get_ref<const std::string&>()) : "";
    if (line.starts_with("#version")) continue;
    const std::size_t space = line.find(' ');
    if (space == line.npos || line.find(' ', space + 1) != line.npos) {
      node.refuse("merge " + std::to_string(merges.size()) + " is not a pair of tokens");
    }
    merges.push_back({line.substr(0, space), line.substr(space + 1)});
  }
  return merges;
}

Bpe read_model(const JsonNode& node) {
  const std::string type = node["type"].text_or("BPE");
  if (type != "BPE") node.refuse("'" + type + "' is not a model that is read; BPE is");
  if (!node["dropout"].is_null() && node["dropout"].json() != 0.0) node.refuse("dropout makes the ids random");
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!node[affix].text_or("").empty()) node.refuse(std::string(affix) + " is not reproduced");
  }
  BpeOptions options;
  options.ignore_merges = node["ignore_merges"].flag_or(false);
  options.byte_fallback = node["byte_fallback"].flag_or(false);
  options.fuse_unknown = node["fuse_unk"].flag_or(false);
  if (!node["unk_token"].is_null()) options.unknown_token = node["unk_token"].text();
  try {
    return Bpe(read_vocabulary(node["vocab"]), read_merges(node["merges"]), std::move(options));
  } catch (const InputError& error) {
    node.refuse(error.what());
  }
}

// A token's text, or an object that holds it.
std::optional<std::string> token_text(const JsonNode& node) {
  if (node.is_null()) return std::nullopt;
  return node.is_object() ? node["content"].text() : node.text();
}

// A template, or a list of named ones of which "default" counts.
std::optional<std::string> read_chat_template(const JsonNode& node) {
  if (node.is_null()) return std::nullopt;
  if (node.is_string()) return node.text();
  for (const JsonNode& named : node.elements()) {
    if (named["name"].text() == "default") return named["template"].text();
  }
  return std::nullopt;
}

// The id of the token that the configuration calls `name`.
std::optional<std::int64_t> find_token(const TokenizerParts& parts, const std::string& name) {
  const auto named = parts.named_tokens.find(name);
  if (named == parts.named_tokens.end()) return std::nullopt;
  for (const AddedToken& token : parts.added) {
    if (token.text == named->second) return token.id;
  }
  const auto id = parts.bpe.vocabulary().find(named->second);
  return id ? std::optional<std::int64_t>(*id) : std::nullopt;
}

void add_eos_id(TokenizerParts& parts, std::int64_t id) {
  if (std::find(parts.eos.begin(), parts.eos.end(), id) == parts.eos.end()) parts.eos.push_back(id);
}

// `eos_token_id` of config.json and generation_config.json: a number or a list.
void read_eos_ids(TokenizerParts& parts, const fs::path& path) {
  const auto text = read_if_there(path);
  if (!text) return;
  const nlohmann::json json = parse_json_object(*text, path.string());
  const JsonNode node = JsonNode(json, path.string() + ":")["eos_token_id"];
  if (node.is_null()) return;
  for (const JsonNode& id : node.is_array() ? node.elements() : std::vector{node}) {
    if (id.number() >= parts.size()) id.refuse("no token has the id " + std::to_string(id.number()));
    add_eos_id(parts, id.number());
  }
}

// Llama's classes in transformers have names of their own for three tokens, and replace tokenizer.json's
// post-processor by two flags.
bool is_llama_class(const std::string& name) {
  const auto classes = {"LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast"};
  return std::find(classes.begin(), classes.end(), name) != classes.end();
}

// "bos_token", "eos_token" … of tokenizer_config.json and special_tokens_map.json; what came first stays.
void read_named_tokens(TokenizerParts& parts, const JsonNode& node) {
  for (const auto& [name, value] : node.json().items()) {
    if (!name.ends_with("_token") || !(value.is_string() || value.is_object())) continue;
    if (const auto text = token_text(node[name])) parts.named_tokens.emplace(name, *text);
  }
}

void read_configuration(TokenizerParts& parts, const fs::path& folder) {
  bool llama = false, add_bos = true, add_eos = false;
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const std::string path = (folder / name).string();
    const auto text = read_if_there(path);
    if (!text) continue;
    const nlohmann::json json = parse_json_object(*text, path);
    const JsonNode config(json, path + ":");
    read_named_tokens(parts, config);
    if (!parts.chat_template) parts.chat_template = read_chat_template(config["chat_template"]);
    llama = llama || is_llama_class(config["tokenizer_class"].text_or(""));
    add_bos = config["add_bos_token"].flag_or(add_bos);
    add_eos = config["add_eos_token"].flag_or(add_eos);
  }
  if (llama) {
    for (const auto& [name, text] : {std::pair("bos_token", "<s>"), {"eos_token", "</s>"}, {"unk_token", "<unk>"}}) {
      parts.named_tokens.emplace(name, text);
    }
    const auto bos = find_token(parts, "bos_token"), eos = find_token(parts, "eos_token");
    parts.prefix = add_bos && bos ? std::vector{*bos} : std::vector<std::int64_t>();
    parts.suffix = add_eos && eos ? std::vector{*eos} : std::vector<std::int64_t>();
  }
  if (const auto eos = find_token(parts, "eos_token")) add_eos_id(parts, *eos);
  if (auto source = read_if_there(folder / "chat_template.jinja")) parts.chat_template = std::move(source);
}

}  // namespace

TokenizerParts parse_tokenizer_json(std::string_view text, const std::string& source) {
  const nlohmann::json json = parse_json_object(text, source);
  return assemble(read_model(JsonNode(json, source + ":")["model"]), json, source);
}

TokenizerParts read_hugging_face_tokenizer(const std::string& directory) {
  const fs::path folder(directory.empty() ? "." : directory);
  const std::string path = (folder / "tokenizer.json").string();
  const auto text = read_if_there(path);
  if (!text) {
    throw InputError(path + ": no such file; transformers writes it: AutoTokenizer.from_pretrained(\"" +
                     folder.string() + "\").save_pretrained(\"" + folder.string() + "\")");
  }
  TokenizerParts parts = parse_tokenizer_json(*text, path);
  read_configuration(parts, folder);
  read_eos_ids(parts, folder / "generation_config.json");
  read_eos_ids(parts, folder / "config.json");
  parts.files = [folder](const Bpe&) {
    NamedFiles files;
    for (const char* name : kFileNames) {
      if (auto bytes = read_if_there(folder / name)) files.emplace_back(name, std::move(*bytes));
    }
    return files;
  };
  return parts;
}

}  // namespace proviso::model
