#include "runtime/suffix_place.hpp"

#include <algorithm>
#include <utility>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/model/random.hpp"

namespace proviso::runtime {
namespace {

constexpr int kDrawsForToken = 2000;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD: part of a character

std::vector<std::int64_t> joined(std::span<const std::int64_t> a, std::span<const std::int64_t> b,
                                 std::span<const std::int64_t> c) {
  std::vector<std::int64_t> all(a.begin(), a.end());
  all.insert(all.end(), b.begin(), b.end());
  all.insert(all.end(), c.begin(), c.end());
  return all;
}

}  // namespace

bool is_writable(const model::Tokenizer& tokenizer, std::int64_t token) {
  if (tokenizer.is_special(token)) return false;
  const std::string text = tokenizer.token_text(token);
  return !text.empty() && text.find(kReplacement) == std::string::npos &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7F; });
}

SuffixPlace::SuffixPlace(const model::Tokenizer& tokenizer, std::optional<dsl::Chat> chat, std::string text)
    : tokenizer_(tokenizer), chat_(std::move(chat)), text_(std::move(text)) {
  const EncodedPrompt whole = encode_prompt(tokenizer_, chat_, text_);
  before_ = whole.tokens;
  if (!chat_) return;
  const std::size_t found = whole.text.rfind(text_);
  if (found != std::string::npos) {
    const std::size_t end = found + text_.size();
    before_ = tokenizer_.encode(whole.text.substr(0, end));
    after_ = tokenizer_.encode(whole.text.substr(end));
  }
  if (found == std::string::npos || joined(before_, {}, after_) != whole.tokens) {
    throw model::InputError("the model's chat template does not show \"" + text_ + "\" as it stands");
  }
}

std::string SuffixPlace::text_with(std::span<const std::int64_t> suffix) const {
  return text_ + tokenizer_.decode(suffix);
}

std::optional<EncodedPrompt> SuffixPlace::with(std::span<const std::int64_t> suffix) const {
  EncodedPrompt prompt = encode_prompt(tokenizer_, chat_, text_with(suffix));
  if (prompt.tokens != joined(before_, suffix, after_)) return std::nullopt;
  return prompt;
}

std::optional<std::vector<std::int64_t>> SuffixPlace::draw(std::int64_t count, std::uint64_t seed) const {
  model::NormalSource random(seed);
  std::vector<std::int64_t> suffix;
  const auto vocabulary = static_cast<std::size_t>(tokenizer_.size());
  for (int draws = 0; static_cast<std::int64_t>(suffix.size()) < count; ++draws) {
    if (draws == kDrawsForToken) return std::nullopt;
    suffix.push_back(static_cast<std::int64_t>(random.below(vocabulary)));
    if (is_writable(tokenizer_, suffix.back()) && with(suffix)) {
      draws = -1;
    } else {
      suffix.pop_back();
    }
  }
  return suffix;
}

}  // namespace proviso::runtime
