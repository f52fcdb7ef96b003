#include "runtime/tokenizer/normalizer.hpp"

#include "runtime/tokenizer/normal_form.hpp"

namespace proviso::model {
namespace {

std::string apply(const Prepend& step, std::string text) {
  if (!text.empty()) text.insert(0, step.prefix);
  return text;
}

std::string apply(const Replace& step, std::string text) {
  std::vector<TextSpan> matches;
  step.pattern.find_all(text, matches);
  if (matches.empty()) return text;
  std::string out;
  std::size_t end = 0;
  for (const TextSpan& match : matches) {
    out.append(text, end, match.begin - end).append(step.replacement);
    end = match.end;
  }
  return out.append(text, end);
}

std::string apply(const Compose&, std::string text) { return to_normal_form_c(std::move(text)); }

}  // namespace

std::string normalize(const std::vector<Normalizer>& normalizers, std::string text) {
  for (const Normalizer& normalizer : normalizers) {
    text = std::visit([&](const auto& step) { return apply(step, std::move(text)); }, normalizer);
  }
  return text;
}

}  // namespace proviso::model
