#include "runtime/tokenizer/decoder.hpp"

#include <numeric>
#include <optional>
#include <string_view>

#include "runtime/tokenizer/byte_alphabet.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

using Texts = std::vector<std::string>;

std::string concatenate(const Texts& texts) { return std::accumulate(texts.begin(), texts.end(), std::string()); }

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9';
    const char lower = static_cast<char>(c | 0x20);
    if (!digit && (lower < 'a' || lower > 'f')) return std::nullopt;
    value = value * 16 + (digit ? c - '0' : lower - 'a' + 10);
  }
  return static_cast<char>(value);
}

struct Stage {
  bool replace_invalid;

  Texts apply(const UnmapBytes&, const Texts& texts) const {
    std::string bytes;
    for (const std::string& text : texts) bytes += from_byte_alphabet(text).value_or(text);
    return {replace_invalid ? replace_invalid_utf8(bytes) : bytes};
  }

  // A run of byte tokens that is not UTF-8 becomes one U+FFFD a byte.
  Texts apply(const UnmapFallback&, const Texts& texts) const {
    Texts out;
    std::string run;
    const auto put_run = [&] {
      if (run.empty()) return;
      if (replace_invalid && find_invalid_utf8(run) != std::string::npos) {
        out.insert(out.end(), run.size(), "\xEF\xBF\xBD");
      } else {
        out.push_back(run);
      }
      run.clear();
    };
    for (const std::string& text : texts) {
      if (const auto byte = fallback_byte(text)) {
        run.push_back(*byte);
      } else {
        put_run();
        out.push_back(text);
      }
    }
    put_run();
    return out;
  }

  Texts apply(const Fuse&, const Texts& texts) const { return {concatenate(texts)}; }

  Texts apply(const Strip& step, Texts texts) const {
    for (std::string& text : texts) {
      for (std::size_t i = 0; i < step.start && text.starts_with(step.content); ++i) text.erase(0, step.content.size());
      for (std::size_t i = 0; i < step.stop && text.ends_with(step.content); ++i) {
        text.resize(text.size() - step.content.size());
      }
    }
    return texts;
  }

  Texts apply(const ReplaceText& step, Texts texts) const {
    for (std::string& text : texts) replace_all(text, step.text, step.replacement);
    return texts;
  }

  Texts apply(const SpacesBack& step, Texts texts) const {
    for (std::size_t i = 0; i < texts.size(); ++i) {
      replace_all(texts[i], step.replacement, i == 0 && step.drop_first ? "" : " ");
    }
    return texts;
  }

  Texts apply(const JoinBySpaces&, Texts texts) const {
    for (std::size_t i = 1; i < texts.size(); ++i) texts[i].insert(0, " ");
    return texts;
  }
};

}  // namespace

std::string decode_texts(const std::vector<Decoder>& steps, std::vector<std::string> texts, bool replace_invalid) {
  const Stage stage{replace_invalid};
  for (const Decoder& decoder : steps) {
    texts = std::visit([&](const auto& step) { return stage.apply(step, std::move(texts)); }, decoder);
  }
  return concatenate(texts);
}

}  // namespace proviso::model
