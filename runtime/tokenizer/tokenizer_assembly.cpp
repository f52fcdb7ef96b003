#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "runtime/tokenizer/json_node.hpp"
#include "runtime/tokenizer/tokenizer_parts.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

constexpr int kMaxNesting = 8;
constexpr std::size_t kMaxSteps = 32;
constexpr std::uint32_t kMaxAddedTokens = 1 << 16;

[[noreturn]] void refuse_type(const JsonNode& node) {
  node.refuse("'" + node["type"].text_or("(none)") + "' is not reproduced exactly, so this tokenizer is not read");
}

void append_steps(const JsonNode& node, const char* member, std::vector<JsonNode>& steps, int depth) {
  if (node.is_null()) return;
  if (depth > kMaxNesting) node.refuse("sequences are nested too deeply");
  if (node["type"].text() == "Sequence") {
    for (const JsonNode& element : node[member].elements()) append_steps(element, member, steps, depth + 1);
  } else if (steps.size() == kMaxSteps) {
    node.refuse("more than 32 steps");
  } else {
    steps.push_back(node);
  }
}

// `node`, or the steps of the sequence that it is, listed under `member`.
std::vector<JsonNode> steps_of(const JsonNode& node, const char* member) {
  std::vector<JsonNode> steps;
  append_steps(node, member, steps, 0);
  return steps;
}

Pattern read_pattern(const JsonNode& node) {
  try {
    if (!node["Regex"].is_null()) return Pattern(node["Regex"].text());
    const std::string& text = node["String"].text();
    if (text.empty()) node.refuse("an empty pattern");
    return Pattern::literal(text);
  } catch (const InputError& error) {
    node.refuse(error.what());
  }
}

std::vector<Normalizer> read_normalizers(const JsonNode& tokenizer) {
  std::vector<Normalizer> out;
  for (const JsonNode& node : steps_of(tokenizer["normalizer"], "normalizers")) {
    const std::string& type = node["type"].text();
    if (type == "Prepend") {
      out.emplace_back(Prepend{node["prepend"].text()});
    } else if (type == "Replace") {
      out.emplace_back(Replace{read_pattern(node["pattern"]), node["content"].text()});
    } else if (type == "NFC") {
      out.emplace_back(Compose{});
    } else {
      refuse_type(node);
    }
  }
  return out;
}

SplitBehavior read_behavior(const JsonNode& node) {
  const std::unordered_map<std::string, SplitBehavior> behaviors = {
      {"Removed", SplitBehavior::removed},
      {"Isolated", SplitBehavior::isolated},
      {"MergedWithPrevious", SplitBehavior::merged_with_previous},
      {"MergedWithNext", SplitBehavior::merged_with_next},
      {"Contiguous", SplitBehavior::contiguous},
  };
  const auto found = behaviors.find(node.text());
  if (found == behaviors.end()) node.refuse("'" + node.text() + "' is not a known behavior");
  return found->second;
}

std::string read_replacement(const JsonNode& node) {
  const std::string& text = node.text();
  std::size_t offset = 0;
  if (!text.empty()) next_code_point(text, offset);
  if (text.empty() || offset != text.size()) node.refuse("one character is expected");
  return text;
}

bool metaspace_adds_prefix(const JsonNode& node) {
  return node["prepend_scheme"].is_null() ? node["add_prefix_space"].flag_or(true)
                                          : node["prepend_scheme"].text() != "never";
}

SplitAtSpaces read_metaspace(const JsonNode& node) {
  using Prefix = SplitAtSpaces::Prefix;
  const std::string scheme = node["prepend_scheme"].text_or("always");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    node.refuse("'" + scheme + "' is not a known prepend_scheme");
  }
  const std::string replacement = read_replacement(node["replacement"]);
  const Prefix prefix = !metaspace_adds_prefix(node) ? Prefix::never
                        : scheme == "first"          ? Prefix::first
                                                     : Prefix::always;
  return {replacement, prefix, node["split"].flag_or(true), Pattern::literal(replacement)};
}

// What GPT-2 splits text by, and ByteLevel with `use_regex` after it.
constexpr const char* kGpt2Expression = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::vector<PreTokenizer> read_pre_tokenizers(const JsonNode& tokenizer) {
  std::vector<PreTokenizer> out;
  for (const JsonNode& node : steps_of(tokenizer["pre_tokenizer"], "pretokenizers")) {
    const std::string& type = node["type"].text();
    if (type == "ByteLevel") {
      if (node["add_prefix_space"].flag_or(true)) out.emplace_back(PrefixSpace{});
      if (node["use_regex"].flag_or(true)) {
        out.emplace_back(SplitByPattern{Pattern(kGpt2Expression), SplitBehavior::isolated, false});
      }
      out.emplace_back(MapBytes{});
    } else if (type == "Split") {
      out.emplace_back(SplitByPattern{read_pattern(node["pattern"]), read_behavior(node["behavior"]),
                                      node["invert"].flag_or(false)});
    } else if (type == "Digits") {
      out.emplace_back(SplitDigits{node["individual_digits"].flag_or(false)});
    } else if (type == "Metaspace") {
      out.emplace_back(read_metaspace(node));
    } else {
      refuse_type(node);
    }
  }
  return out;
}

std::vector<Decoder> read_decoders(const JsonNode& tokenizer) {
  std::vector<Decoder> out;
  if (tokenizer["decoder"].is_null()) return {JoinBySpaces{}};
  for (const JsonNode& node : steps_of(tokenizer["decoder"], "decoders")) {
    const std::string& type = node["type"].text();
    if (type == "ByteLevel") {
      out.emplace_back(UnmapBytes{});
    } else if (type == "ByteFallback") {
      out.emplace_back(UnmapFallback{});
    } else if (type == "Fuse") {
      out.emplace_back(Fuse{});
    } else if (type == "Strip") {
      out.emplace_back(Strip{read_replacement(node["content"]), node["start"].number(), node["stop"].number()});
    } else if (type == "Replace") {
      if (node["pattern"]["String"].is_null()) node.refuse("a decoder's regular expression is not reproduced");
      if (node["pattern"]["String"].text().empty()) node.refuse("an empty pattern");
      out.emplace_back(ReplaceText{node["pattern"]["String"].text(), node["content"].text()});
    } else if (type == "Metaspace") {
      out.emplace_back(SpacesBack{read_replacement(node["replacement"]), metaspace_adds_prefix(node)});
    } else {
      refuse_type(node);
    }
  }
  return out;
}

// Ids are as `tokenizers` deals them out: the vocabulary's own, else the next that is free.
std::vector<AddedToken> read_added_tokens(const JsonNode& tokenizer, const Vocabulary& vocabulary) {
  std::vector<AddedToken> out;
  if (tokenizer["added_tokens"].is_null()) return out;
  std::unordered_set<std::string> seen;
  auto next = static_cast<std::uint32_t>(vocabulary.size());
  for (const JsonNode& node : tokenizer["added_tokens"].elements()) {
    AddedToken token;
    token.text = node["content"].text();
    token.id = node["id"].number();
    token.special = node["special"].flag_or(false);
    token.normalized = node["normalized"].flag_or(!token.special);
    token.lstrip = node["lstrip"].flag_or(false);
    token.rstrip = node["rstrip"].flag_or(false);
    token.single_word = node["single_word"].flag_or(false);
    if (token.text.empty()) node.refuse("a token without text");
    if (!seen.insert(token.text).second) node.refuse("'" + token.text + "' is added twice");
    if (seen.size() > kMaxAddedTokens) node.refuse("more than 65536 added tokens");
    const auto known = vocabulary.find(token.text);
    const std::uint32_t id = known ? *known : next;
    if (token.id != id) {
      node.refuse("'" + token.text + "' has the id " + std::to_string(token.id) + ", but " +
                  (known ? "the vocabulary gives it " : "the next that is free is ") + std::to_string(id));
    }
    if (!known) ++next;
    out.push_back(std::move(token));
  }
  return out;
}

class PostProcessing {
 public:
  explicit PostProcessing(TokenizerParts& parts) : parts_(parts) {}

  void read(const JsonNode& node) {
    const std::string& type = node["type"].text();
    if (type == "ByteLevel") return;  // moves offsets, not ids
    if (type != "TemplateProcessing") refuse_type(node);
    std::vector<std::int64_t> before, after;
    bool text_seen = false;
    for (const JsonNode& part : node["single"].elements()) {
      if (const JsonNode special = part["SpecialToken"]; !special.is_null()) {
        const JsonNode token = node["special_tokens"][special["id"].text()];
        for (const JsonNode& id : token["ids"].elements()) (text_seen ? after : before).push_back(checked(id));
      } else if (part["Sequence"].is_null() || text_seen) {
        part.refuse("a template with its text once is expected");
      } else {
        text_seen = true;
      }
    }
    if (!text_seen) node.refuse("the template leaves the text out");
    parts_.prefix.insert(parts_.prefix.begin(), before.begin(), before.end());
    parts_.suffix.insert(parts_.suffix.end(), after.begin(), after.end());
  }

 private:
  std::int64_t checked(const JsonNode& node) const {
    const std::uint32_t id = node.number();
    const bool added =
        std::any_of(parts_.added.begin(), parts_.added.end(), [&](const AddedToken& token) { return token.id == id; });
    if (!added && id >= parts_.bpe.vocabulary().size()) node.refuse("no token has the id " + std::to_string(id));
    return id;
  }

  TokenizerParts& parts_;
};

}  // namespace

std::int64_t TokenizerParts::size() const {
  auto size = static_cast<std::int64_t>(bpe.vocabulary().size());
  for (const AddedToken& token : added) size = std::max<std::int64_t>(size, std::int64_t{token.id} + 1);
  return size;
}

TokenizerParts assemble(Bpe bpe, const nlohmann::json& json, const std::string& source) {
  const JsonNode tokenizer(json, source + ":");
  TokenizerParts parts(std::move(bpe));
  parts.added = read_added_tokens(tokenizer, parts.bpe.vocabulary());
  parts.normalizers = read_normalizers(tokenizer);
  parts.pre_tokenizers = read_pre_tokenizers(tokenizer);
  parts.decoders = read_decoders(tokenizer);
  PostProcessing post_processing(parts);
  for (const JsonNode& node : steps_of(tokenizer["post_processor"], "processors")) post_processing.read(node);
  return parts;
}

}  // namespace proviso::model
