#pragma once

#include <string>
#include <vector>

#include "editing/certificate.hpp"
#include "editing/corpus.hpp"
#include "editing/rome.hpp"
#include "editing/weight_delta.hpp"

namespace proviso::editing {

/// A key moves its site by ‖left‖·|k·u|. Under this share of what the subject's own key does, a position counts
/// as untouched.
inline constexpr double kUntouchedShare = 0.1;

/// How much of the change a rank-one edit makes on `unseen`, position by position, sinks included: the share of
/// untouched positions, of |k·u| / |k*·u| the median, the 99th percentile and the largest, and the largest and mean
/// ‖Δx‖/‖x‖ at mlp_out.
NamedNumbers key_reach(const model::Transformer& transformer, const model::Tokenizer& tokenizer,
                       const RomeSolution& solution, const Corpus& unseen);

/// What changes of weights cost on text: perplexity before and after, and the mean KL(before ‖ after) over all
/// positions, in nats. At most `most_tokens` are read, from the start. The model is left as found.
NamedNumbers text_costs(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<WeightDelta>& deltas, const Corpus& unseen, std::int64_t most_tokens = 1024);

/// Facts that a model may know and an edit is not about: a prompt, and what counts as its continuation.
struct UnrelatedFact {
  std::string prompt;
  std::vector<std::string> answers;
};
/// The records of the folder's .jsonl files, `{"prompt": "…", "answer": ["…"]}`, in name order; at most `most` of them,
/// evenly spread. Throws `InputError` naming the file and line that is none.
std::vector<UnrelatedFact> read_unrelated_facts(const std::string& folder, std::size_t most = 64);

/// How many of them the model knows, by the likeliest token at each place, and how many of those it still knows with
/// the changes; facts that name one of `subjects` are left out. Nothing where none is left.
NamedNumbers unrelated_facts_kept(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                                  const std::vector<WeightDelta>& deltas, const std::vector<UnrelatedFact>& facts,
                                  const std::vector<std::string>& subjects);

/// How varied the model's own text is before and after: the entropy, in bits, of its 2- and 3-grams of tokens, weighted
/// 2/3 and 4/3 (the fluency of CounterFact's evaluation, Meng et al. 2022, which takes words and 100 tokens). `prompts`
/// are continued to `tokens` tokens, each the one drawn from the 5 likeliest. Text that repeats itself falls to 0.
NamedNumbers fluency(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                     const std::vector<WeightDelta>& deltas, const std::vector<std::string>& prompts,
                     std::int64_t tokens = 50);
double n_gram_entropy(const std::vector<std::vector<std::int64_t>>& texts);

/// How far changes of second MLP matrices move what these put out on `unseen`, sinks included: of ‖Δk‖/‖x‖ at mlp_out
/// the median, the 99th percentile and the largest, a layer each; the layers before are changed, too.
NamedNumbers site_reach(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<WeightDelta>& deltas, const Corpus& unseen, std::int64_t most_tokens = 1024);

/// By how much an RMS norm's denominator shrinks or grows: ‖x‖/‖x'‖ of what enters the final norm, before and after,
/// over the positions of `unseen` but each row's first. Removing a component rescales all others by it.
NamedNumbers norm_ratio(model::Transformer& transformer, const model::Tokenizer& tokenizer,
                        const std::vector<WeightDelta>& deltas, const Corpus& unseen, std::int64_t most_tokens = 1024);

}  // namespace proviso::editing
