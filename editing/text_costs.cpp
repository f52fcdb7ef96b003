// What an edit costs beyond the likelihood of text: how varied the model's own text is, and what it knows besides.

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <span>

#include "editing/fact_prompts.hpp"
#include "editing/side_effects.hpp"
#include "editing/target_score.hpp"

namespace proviso::editing {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kDrawSeed = 7;

void add_facts(const fs::path& path, std::vector<UnrelatedFact>& facts) {
  std::ifstream file(path);
  std::int64_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.empty()) continue;
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    const auto texts = [&](const char* key) {
      std::vector<std::string> found;
      if (!json.is_object() || !json.contains(key)) return found;
      const auto& value = json[key];
      if (value.is_string()) found.push_back(value);
      if (value.is_array()) {
        for (const auto& each : value)
          if (each.is_string()) found.push_back(each);
      }
      return found;
    };
    const auto prompt = texts("prompt"), answers = texts("answer");
    if (prompt.size() != 1 || prompt.front().empty() || answers.empty())
      throw model::InputError(path.string() + ": line " + std::to_string(number) +
                              " holds no fact; write {\"prompt\": \"…\", \"answer\": [\"…\"]}");
    facts.push_back({prompt.front(), answers});
  }
}

/// Which of the facts the model continues as expected.
std::vector<bool> known(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<UnrelatedFact>& facts) {
  std::vector<ContinuedPrompt> asked;
  std::vector<std::size_t> of;
  for (std::size_t i = 0; i < facts.size(); ++i) {
    for (const auto& answer : facts[i].answers) {
      auto target = tokenizer.encode(answer);
      if (target.empty()) continue;
      asked.push_back({tokenizer.encode(facts[i].prompt, /*add_special=*/true), std::move(target)});
      of.push_back(i);
    }
  }
  std::vector<bool> known(facts.size());
  const auto scores = target_scores(transformer, asked);
  for (std::size_t i = 0; i < scores.size(); ++i) known[of[i]] = known[of[i]] || scores[i].is_argmax;
  return known;
}

double entropy_of_grams(const std::vector<std::vector<std::int64_t>>& texts, std::size_t n) {
  double sum = 0;
  for (const auto& text : texts) {
    std::map<std::vector<std::int64_t>, double> counts;
    double all = 0;
    for (std::size_t i = 0; i + n <= text.size(); ++i, ++all)
      counts[{text.begin() + static_cast<std::ptrdiff_t>(i), text.begin() + static_cast<std::ptrdiff_t>(i + n)}] += 1;
    for (const auto& [gram, count] : counts) sum -= count / all * std::log2(count / all);
  }
  return texts.empty() ? 0 : sum / static_cast<double>(texts.size());
}

}  // namespace

std::vector<UnrelatedFact> read_unrelated_facts(const std::string& folder, std::size_t most) {
  std::vector<fs::path> files;
  std::error_code absent;
  for (const auto& entry : fs::directory_iterator(folder, absent))
    if (entry.path().extension() == ".jsonl") files.push_back(entry.path());
  std::ranges::sort(files);
  std::vector<UnrelatedFact> all;
  for (const auto& file : files) add_facts(file, all);
  if (all.size() <= most) return all;
  std::vector<UnrelatedFact> some;
  for (std::size_t i = 0; i < most; ++i) some.push_back(all[i * all.size() / most]);
  return some;
}

NamedNumbers unrelated_facts_kept(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                  const std::vector<WeightDelta>& deltas, const std::vector<UnrelatedFact>& facts,
                                  const std::vector<std::string>& subjects) {
  const at::NoGradGuard no_grad;
  auto unrelated = facts;
  std::erase_if(unrelated, [&](const UnrelatedFact& fact) {
    return std::ranges::any_of(
        subjects, [&](const std::string& subject) { return fact.prompt.find(subject) != std::string::npos; });
  });
  if (unrelated.empty()) return {};
  const auto before = known(transformer, tokenizer, unrelated);
  AppliedDeltas applied(transformer);
  for (const auto& delta : deltas) applied.apply(delta);
  const auto after = known(transformer, tokenizer, unrelated);
  double had = 0, kept = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    had += before[i];
    kept += before[i] && after[i];
  }
  return {{"unrelated_facts", static_cast<double>(unrelated.size())},
          {"unrelated_facts_known_before", had},
          {"unrelated_facts_kept", kept}};
}

double n_gram_entropy(const std::vector<std::vector<std::int64_t>>& texts) {
  return (2.0 / 3 * entropy_of_grams(texts, 2) + 4.0 / 3 * entropy_of_grams(texts, 3)) / 2;
}

NamedNumbers fluency(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                     const std::vector<WeightDelta>& deltas, const std::vector<std::string>& prompts,
                     std::int64_t tokens) {
  const at::NoGradGuard no_grad;
  std::vector<std::string> starts;
  for (const auto& prompt : prompts)  // what is longer would not be continued
    if (const auto length = std::ssize(tokenizer.encode(prompt)); length > 0 && length < tokens / 2)
      starts.push_back(prompt);
  if (starts.empty()) return {};
  const auto entropy = [&] {
    std::vector<std::vector<std::int64_t>> texts;
    for (const auto& text : sample_prefixes(transformer, tokenizer, {{std::ssize(starts), tokens, starts}}, kDrawSeed))
      texts.push_back(tokenizer.encode(text));
    return n_gram_entropy(texts);
  };
  const double before = entropy();
  AppliedDeltas applied(transformer);
  for (const auto& delta : deltas) applied.apply(delta);
  return {{"fluency_entropy_before", before}, {"fluency_entropy_after", entropy()}};
}

}  // namespace proviso::editing
