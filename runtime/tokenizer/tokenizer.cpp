#include "runtime/tokenizer/tokenizer.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <unordered_map>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/tokenizer/tokenizer_parts.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{256} << 20;

// The ids of words met before: most words of a text come again.
class WordCache {
 public:
  /// Appends the ids of `word`, which `encode` appends where it is new.
  template <typename Encode>
  void append(std::string_view word, std::vector<std::int64_t>& ids, const Encode& encode) {
    if (word.size() > kMaxWordBytes) return encode(word, ids);
    if (const auto found = spans_.find(word); found != spans_.end()) {
      const auto begin = ids_.begin() + found->second.begin;
      ids.insert(ids.end(), begin, begin + found->second.count);
      return;
    }
    if (spans_.size() == kMaxWords) {
      spans_.clear();
      ids_.clear();
    }
    const auto begin = static_cast<std::uint32_t>(ids_.size());
    encode(word, ids_);
    ids.insert(ids.end(), ids_.begin() + begin, ids_.end());
    spans_.emplace(word, Span{begin, static_cast<std::uint32_t>(ids_.size()) - begin});
  }

 private:
  static constexpr std::size_t kMaxWordBytes = 64, kMaxWords = 1 << 16;
  struct Span {
    std::uint32_t begin, count;
  };
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_map<std::string, Span, Hash, std::equal_to<>> spans_;
  std::vector<std::int64_t> ids_;
};

std::vector<AddedToken> tokens_found(const TokenizerParts& parts, bool normalized) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : parts.added) {
    if (token.normalized != normalized) continue;
    if (normalized) token.text = normalize(parts.normalizers, std::move(token.text));
    if (!token.text.empty()) tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

struct Tokenizer::State {
  explicit State(TokenizerParts from)
      : parts(std::move(from)),
        before(tokens_found(parts, false)),
        after(tokens_found(parts, true)),
        size(parts.size()) {
    for (const AddedToken& token : parts.added) added_by_id.emplace(token.id, &token);
    // Words are then encoded from their bytes, without writing them in the alphabet first.
    byte_words = !parts.pre_tokenizers.empty() && std::holds_alternative<MapBytes>(parts.pre_tokenizers.back());
    if (byte_words) parts.pre_tokenizers.pop_back();
  }

  void check(std::int64_t id) const {
    if (id >= 0 && id < size) return;
    throw InputError("token id " + std::to_string(id) + " is not in the vocabulary: ids are 0 … " +
                     std::to_string(size - 1));
  }

  const std::string& text(std::int64_t id) const {
    static const std::string none;
    check(id);
    const auto added = added_by_id.find(id);
    if (added != added_by_id.end()) return added->second->text;
    const Vocabulary& vocabulary = parts.bpe.vocabulary();
    return static_cast<std::size_t>(id) < vocabulary.size() ? vocabulary.text(static_cast<std::uint32_t>(id)) : none;
  }

  void encode_words(std::string_view text, bool at_start, WordCache& cache, std::vector<std::int64_t>& ids) const {
    std::deque<std::string> storage;
    const auto encode = [this](std::string_view word, std::vector<std::int64_t>& out) {
      byte_words ? parts.bpe.encode_bytes(word, out) : parts.bpe.encode(word, out);
    };
    for (const Piece& piece : pre_tokenize(parts.pre_tokenizers, {text, at_start}, storage)) {
      cache.append(piece.text, ids, encode);
    }
  }

  // A cache that no other thread uses.
  std::unique_ptr<WordCache> borrow() const {
    const std::lock_guard lock(mutex);
    if (idle.empty()) return std::make_unique<WordCache>();
    auto cache = std::move(idle.back());
    idle.pop_back();
    return cache;
  }
  void give_back(std::unique_ptr<WordCache> cache) const {
    const std::lock_guard lock(mutex);
    idle.push_back(std::move(cache));
  }

  TokenizerParts parts;
  AddedTokenFinder before, after;  // tokens found before and after normalizing
  std::int64_t size;
  std::unordered_map<std::int64_t, const AddedToken*> added_by_id;
  bool byte_words = false;
  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<WordCache>> idle;
};

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& model_path) {
  const std::filesystem::path path(model_path);
  if (!std::filesystem::exists(path)) throw InputError(model_path + ": no such file or directory");
  const auto parts = [&] {
    if (std::filesystem::is_directory(path)) return read_hugging_face_tokenizer(model_path);
    if (path.extension() == ".gguf") return read_gguf_tokenizer(model_path);
    return read_hugging_face_tokenizer(path.parent_path().string());
  };
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::make_unique<const State>(parts())));
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  if (text.size() > kMaxTextBytes) throw InputError("a text to encode is larger than 256 MiB: split it");
  if (const std::size_t at = find_invalid_utf8(text); at != std::string_view::npos) {
    char byte[8];
    std::snprintf(byte, sizeof byte, "0x%02X", static_cast<unsigned char>(text[at]));
    throw InputError("the text is not UTF-8: byte " + std::string(byte) + " at offset " + std::to_string(at) +
                     "; convert it to UTF-8");
  }
  std::vector<std::int64_t> ids;
  if (add_special) ids = state_->parts.prefix;
  auto cache = state_->borrow();
  for (const auto& part : state_->before.split(text)) {
    if (part.id) {
      ids.push_back(*part.id);
      continue;
    }
    bool at_start = part.text.data() == text.data();
    const std::string normalized = state_->parts.normalizers.empty()
                                       ? std::string()
                                       : normalize(state_->parts.normalizers, std::string(part.text));
    const std::string_view segment = state_->parts.normalizers.empty() ? part.text : normalized;
    for (const auto& piece : state_->after.split(segment)) {
      piece.id ? ids.push_back(*piece.id) : state_->encode_words(piece.text, at_start, *cache, ids);
      at_start = false;
    }
  }
  state_->give_back(std::move(cache));
  if (add_special) ids.insert(ids.end(), state_->parts.suffix.begin(), state_->parts.suffix.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int64_t> ids, bool replace_invalid) const {
  std::vector<std::string> texts;
  texts.reserve(ids.size());
  for (const std::int64_t id : ids) {
    if (const std::string& text = state_->text(id); !text.empty()) texts.push_back(text);
  }
  return decode_texts(state_->parts.decoders, std::move(texts), replace_invalid);
}

std::int64_t Tokenizer::size() const { return state_->size; }

std::string Tokenizer::token_text(std::int64_t id) const {
  std::vector<Decoder> within_token = state_->parts.decoders;
  std::erase_if(within_token, [](const Decoder& step) { return std::holds_alternative<Strip>(step); });
  for (Decoder& step : within_token) {
    if (auto* spaces = std::get_if<SpacesBack>(&step)) spaces->drop_first = false;
  }
  return decode_texts(within_token, {state_->text(id)}, true);
}

std::optional<std::int64_t> Tokenizer::special(std::string_view text) const {
  for (const AddedToken& token : state_->parts.added) {
    if (token.special && token.text == text) return token.id;
  }
  return std::nullopt;
}

std::optional<std::int64_t> Tokenizer::eos() const {
  return state_->parts.eos.empty() ? std::nullopt : std::optional(state_->parts.eos.front());
}

bool Tokenizer::is_eos(std::int64_t id) const {
  return std::find(state_->parts.eos.begin(), state_->parts.eos.end(), id) != state_->parts.eos.end();
}

bool Tokenizer::is_special(std::int64_t id) const {
  const auto added = state_->added_by_id.find(id);
  return added != state_->added_by_id.end() && added->second->special;
}

const std::optional<std::string>& Tokenizer::chat_template() const { return state_->parts.chat_template; }

const std::map<std::string, std::string>& Tokenizer::named_tokens() const { return state_->parts.named_tokens; }

NamedFiles Tokenizer::files() const { return state_->parts.files(state_->parts.bpe); }

}  // namespace proviso::model
