#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace proviso::model {

/// A byte-level BPE tokenizer, equal token by token to the model's own.
class Tokenizer {
 public:
  /// From the model at `path` (as `read_model_card` takes it): `tokenizer.json`, or GGUF metadata.
  /// Throws `InputError` naming what it cannot reproduce exactly (an unknown pre-tokenizer, normalizer or model).
  static std::shared_ptr<const Tokenizer> load(const std::string& model_path);
  ~Tokenizer();

  /// Ids of `text`. Special tokens in the text are read as such (as `tokenizers` does). `add_special`
  /// adds what the model's own tokenizer adds (a BOS, say), and nothing else. Throws `InputError` for
  /// invalid UTF-8, naming the byte, and for texts beyond 256 MiB.
  std::vector<std::int64_t> encode(std::string_view text, bool add_special = false) const;
  /// Bytes of the ids; invalid UTF-8 stays as it is unless `replace_invalid` puts U+FFFD there.
  std::string decode(std::span<const std::int64_t> ids, bool replace_invalid = true) const;

  std::int64_t size() const;  ///< ids are 0 … size−1
  std::string token_text(
      std::int64_t id) const;  ///< as it reads within a text (" Paris"), U+FFFD for part of a character
  std::optional<std::int64_t> special(std::string_view text) const;
  std::optional<std::int64_t> eos() const;
  bool is_eos(std::int64_t id) const;  ///< `eos()`, or another id that ends a text (a turn's end, say)
  bool is_special(std::int64_t id) const;

  /// The model's chat template (Jinja source), or nothing.
  const std::optional<std::string>& chat_template() const;

  /// The tokens that the model's configuration names: "bos_token", "eos_token" ….
  const std::map<std::string, std::string>& named_tokens() const;

  /// The files that a written model needs to carry this tokenizer on: (name, bytes). For GGUF a
  /// tokenizer.json and tokenizer_config.json are made that `transformers` reads to equal ids.
  std::vector<std::pair<std::string, std::string>> files() const;

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

struct ChatMessage {
  std::string role, content;
};

/// The text that the model's own template makes of `messages`, with its generation prompt, as transformers renders it.
/// `InputError` where the model has no template, where the template uses what is not reproduced (by name), and where
/// it refuses the conversation itself.
std::string apply_chat_template(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages);

}  // namespace proviso::model
