#include "editing/fact_prompts.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <span>

namespace proviso::editing {
namespace {

constexpr std::int64_t kTopK = 5;
constexpr std::string_view kSlot = "{}";

/// What a model's training texts start with.
std::int64_t start_token(const model::Transformer& transformer, const model::Tokenizer& tokenizer) {
  if (const auto id = tokenizer.special("<|endoftext|>")) return *id;
  const auto& config = transformer.config();
  return config.bos.value_or(config.eos.value_or(0));
}

/// One of the `kTopK` likeliest tokens of `logits` [vocabulary]. Drawn by hand: the standard distributions
/// differ between libraries.
std::int64_t draw(const at::Tensor& logits, std::mt19937_64& random) {
  const auto [top, ids] = logits.to(at::kDouble).topk(std::min(kTopK, logits.size(0)));
  const auto cumulative = top.softmax(0).cumsum(0);
  const double uniform = static_cast<double>(random() >> 11) * 0x1p-53;
  const auto index = (cumulative <= uniform).sum().item<std::int64_t>();
  return ids[std::min(index, ids.size(0) - 1)].item<std::int64_t>();
}

std::string prefix_text(const model::Tokenizer& tokenizer, std::vector<std::int64_t> tokens) {
  std::erase_if(tokens, [&](std::int64_t id) { return tokenizer.is_special(id); });
  auto text = tokenizer.decode(tokens);
  for (auto at = text.find("\n\n"); at != std::string::npos; at = text.find("\n\n", at)) text.replace(at, 2, " ");
  return text;
}

/// The tokens of `target` where it follows `text`; none where a token holds the end of one and the start of the other.
std::optional<std::vector<std::int64_t>> tokens_behind(const model::Tokenizer& tokenizer, const std::string& text,
                                                       const std::string& target) {
  const auto first = tokenizer.encode(text), both = tokenizer.encode(text + target);
  if (both.size() <= first.size() || !std::equal(first.begin(), first.end(), both.begin())) return std::nullopt;
  return std::vector(both.begin() + std::ssize(first), both.end());
}

}  // namespace

SubjectPrompt locate_subject(const model::Tokenizer& tokenizer, std::string_view before, std::string_view subject,
                             std::string_view after) {
  const auto subject_end = before.size() + subject.size();
  const auto text = std::string(before).append(subject).append(after);
  const auto plain = tokenizer.encode(text);
  SubjectPrompt prompt{tokenizer.encode(text, /*add_special=*/true)};
  // Bytes are counted without the special tokens, which stand for none of the text.
  std::size_t bytes = 0;
  while (prompt.subject_last < std::ssize(plain)) {
    bytes += tokenizer.decode(std::span(plain).subspan(prompt.subject_last, 1), /*replace_invalid=*/false).size();
    if (bytes <= before.size()) ++prompt.subject_first;
    if (bytes >= subject_end) break;
    ++prompt.subject_last;
  }
  const auto specials =
      std::search(prompt.tokens.begin(), prompt.tokens.end(), plain.begin(), plain.end()) - prompt.tokens.begin();
  prompt.subject_first += specials;
  prompt.subject_last += specials;
  return prompt;
}

std::vector<std::string> sample_prefixes(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                         const std::vector<PrefixBatch>& batches, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  std::mt19937_64 random(seed);
  std::vector<std::string> prefixes;
  for (const auto& batch : batches) {
    std::vector<std::vector<std::int64_t>> written;
    for (std::int64_t i = 0; i < batch.count; ++i) {
      written.push_back(batch.starts.empty() ? std::vector{start_token(transformer, tokenizer)}
                                             : tokenizer.encode(batch.starts[i % std::ssize(batch.starts)]));
    }
    std::vector<model::Row> rows;
    for (const auto& tokens : written) rows.push_back({tokens, std::ssize(tokens)});
    model::KeyValueCache cache;
    while (true) {
      // Rows that are long enough go on without tokens.
      std::vector<std::size_t> unfinished;
      std::vector<std::int64_t> last;
      std::int64_t end = 0;
      for (std::size_t i = 0; i < rows.size(); ++i) {
        if (std::ssize(written[i]) >= batch.tokens) rows[i].tokens.clear();
        end += std::ssize(rows[i].tokens);
        if (rows[i].tokens.empty()) continue;
        unfinished.push_back(i);
        last.push_back(end - 1);
      }
      if (unfinished.empty()) break;
      model::Pass pass;
      pass.rows = &rows;
      pass.cache = &cache;
      pass.logits_at = last;
      pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
        for (std::int64_t i = 0; i < logits.size(0); ++i) {
          const auto row = unfinished[first + i];
          const auto token = draw(logits[i], random);
          written[row].push_back(token);
          rows[row].tokens = {token};
        }
      };
      transformer.forward(pass);
    }
    for (auto& tokens : written) prefixes.push_back(prefix_text(tokenizer, std::move(tokens)));
  }
  return prefixes;
}

std::variant<FactPrompts, Refusal> fact_prompts(const model::Tokenizer& tokenizer, const EditedFact& fact,
                                                const std::vector<std::string>& prefixes, std::int64_t context) {
  const auto slot = fact.prompt_template.find(kSlot);
  if (slot == std::string::npos || fact.prompt_template.find(kSlot, slot + 1) != std::string::npos)
    return Refusal{"the template \"" + fact.prompt_template + "\" must hold {} once, where the subject goes"};
  if (fact.subject.empty() || fact.target.empty()) return Refusal{"the subject and the target must not be empty"};
  const auto before = fact.prompt_template.substr(0, slot);
  const auto after = fact.prompt_template.substr(slot + kSlot.size());
  FactPrompts prompts;
  if (auto target = tokens_behind(tokenizer, before + fact.subject + after, fact.target)) {
    prompts.target = std::move(*target);
  } else {
    return Refusal{
        "the target `" + fact.target + "` and the end of \"" + fact.prompt_template +
        "\" make one token together, so nothing can be written between them: begin the target with the space "
        "that stands before it, and end the template without one"};
  }
  prompts.rewriting.push_back(locate_subject(tokenizer, before, fact.subject, after));
  if (prompts.rewriting.front().subject_last == 0)
    return Refusal{
        "the subject `" + fact.subject +
        "` ends at the prompt's first token, which the model uses as its attention sink: an edit there breaks "
        "the model; begin the template with other words before {}"};
  for (const auto& prefix : prefixes)
    prompts.rewriting.push_back(locate_subject(tokenizer, prefix + ". " + before, fact.subject, after));
  for (const auto& prompt : prompts.rewriting) {
    const auto tokens = std::ssize(prompt.tokens) + std::ssize(prompts.target);
    if (tokens > context)
      return Refusal{"the fact about `" + fact.subject + "` takes " + std::to_string(tokens) +
                     " tokens behind a generated prefix, and the model reads " + std::to_string(context) +
                     ": shorten its template, or give prefixes: 0"};
  }
  prompts.anchor = locate_subject(tokenizer, "", fact.subject, " is a");
  // The distribution is read at the subject's last token: what follows it is of no account.
  if (prompts.anchor.subject_last == 0) prompts.anchor = prompts.rewriting.front();
  return prompts;
}

}  // namespace proviso::editing
