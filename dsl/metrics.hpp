#pragma once

// Metrics and expectations of a checked set of rule files: see dsl/rule_set.hpp.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dsl/declarations.hpp"

namespace proviso::dsl {

struct Metric;
using MetricPtr = std::shared_ptr<const Metric>;

struct ChangeRule {
  RuleId rule = 0;
};
struct ChangeEdit {
  EditId edit = 0;
};
/// `patch z[9] head 3 from P`: whole activations, or one feature's part of them, become those of other prompts.
struct Patch {
  enum class Source {
    prompts,  ///< of `from`, each at the same place as the prompt measured and of as many tokens
    zero,
    mean,     ///< over `from`
    resample  ///< of another one of the prompts measured, drawn by the seed
  } source = Source::prompts;
  PromptsId from = 0;
  std::optional<FeatureId> feature;  ///< at its own site; nothing: `sites` are patched whole
  std::vector<SiteSpec> sites;
  ConditionPtr condition;  ///< null: at every position; reads no feature
  std::string text;        ///< canonical
  Span span;
};
using Change = std::variant<Intervention, ChangeRule, ChangeEdit, CircuitSuppression, Patch>;

namespace metric {
struct Probability {
  std::string text;
  PromptsId after = 0;
  Span text_span;
};
struct Rank {
  std::string text;
  PromptsId after = 0;
  Span text_span;
};
struct LogitDiff {
  std::string a, b;
  PromptsId after = 0;
  Span a_span, b_span;
};
struct Accuracy {
  PromptsId prompts = 0;
};
struct Rate {
  PromptsId prompts = 0;
  std::string regex;  ///< RE2, flags folded in
  std::int64_t tokens = 32;
  std::int64_t samples = 1;
  double temperature = 0;  ///< 0: greedy
};
struct Perplexity {
  PromptsId prompts = 0;
};
struct PerplexityRise {
  PromptsId prompts = 0;
};
struct Kl {
  PromptsId prompts = 0;
};
struct Mean {
  FeatureId feature = 0;
  PromptsId on = 0;
};
struct Max {
  FeatureId feature = 0;
  PromptsId on = 0;
};
struct FiringRate {
  FeatureId feature = 0;
  Compare op = Compare::greater;
  double threshold = 0;
  PromptsId on = 0;
};
struct Auroc {
  FeatureId feature = 0;
  PromptsId p = 0, q = 0;
};
struct Cosine {
  FeatureId f = 0, g = 0;
};
struct Effect {
  Change change;
  MetricPtr on;
  std::int64_t controls = 32;
  bool direct = false;  ///< by the path to the logits alone: all that later layers compute stays as it was
};
struct Efficacy {};
struct Paraphrase {
  PromptsId prompts = 0;
};
struct Specificity {
  PromptsId prompts = 0;
};
struct LossRecovered {
  std::string folder;  ///< of the sparse autoencoder, as resolved
  PromptsId prompts = 0;
  Span span;  ///< the folder
};
// How well single latents of a sparse autoencoder stand for what sets of prompts differ in, in the manner of SAEBench.
/// Held-out accuracy of a probe on the `k` latents that differ most between two sides.
struct SparseProbing {
  std::string folder;
  PromptsId p = 0, q = 0;
  std::int64_t k = 1;
  Span span;  ///< the folder
};
/// Share of P's prompts, among those that a probe tells for P's, where the `k` latents of P are silent and another
/// latent says what they should.
struct Absorption {
  std::string folder;
  PromptsId p = 0, q = 0;
  std::int64_t k = 1;
  Span span;
};
/// What ablating a class's `k` latents costs its own probe, less what it costs those of other classes.
struct Tpp {
  std::string folder;
  std::vector<PromptsId> sets;  ///< a class each
  std::int64_t k = 10;
  Span span;
};
/// How much of a probe's wrong correlation goes with the `k` latents of what it should not read.
struct Scr {
  std::string folder;
  std::vector<PromptsId> sets;  ///< four: wanted with and without the spurious, unwanted with and without it
  std::int64_t k = 10;
  Span span;
};
struct Faithfulness {
  CircuitId circuit = 0;
};
struct Completeness {
  CircuitId circuit = 0;
};
struct Minimality {
  CircuitId circuit = 0;
};
struct Stability {
  CircuitId circuit = 0;
};
struct Overlap {
  CircuitId first = 0, second = 0;
};
}  // namespace metric

struct Metric {
  std::variant<metric::Probability, metric::Rank, metric::LogitDiff, metric::Accuracy, metric::Rate, metric::Perplexity,
               metric::PerplexityRise, metric::Kl, metric::Mean, metric::Max, metric::FiringRate, metric::Auroc,
               metric::Cosine, metric::Effect, metric::Efficacy, metric::Paraphrase, metric::Specificity,
               metric::LossRecovered, metric::SparseProbing, metric::Absorption, metric::Tpp, metric::Scr,
               metric::Faithfulness, metric::Completeness, metric::Minimality, metric::Stability, metric::Overlap>
      node;
  std::string text;  ///< canonical
  Span span;
};

/// How a feature is taken out: d·x becomes 0, its mean over the prompts measured, or what it is in another of them. Of
/// a circuit, what the edges outside it carry: nothing, the mean over the clean prompts, or what the corrupt prompt
/// wrote.
enum class Ablation { zero, mean, resample };
inline constexpr std::string_view kAblationNames[] = {"zero", "mean", "resample"};
constexpr std::string_view ablation_name(Ablation ablation) {
  return kAblationNames[static_cast<std::size_t>(ablation)];
}

/// `across seeds(5), paraphrases(P)`: every combination is measured.
struct Across {
  std::int64_t seeds = 0;  ///< 0: not asked for
  std::vector<Ablation> ablations;
  std::vector<PromptsId> paraphrases;  ///< each in turn stands for the metric's one set, beside the set itself
  bool empty() const { return seeds == 0 && ablations.empty() && paraphrases.empty(); }
};

struct Expectation {
  Metric metric;
  Compare op = Compare::greater_equal;
  double bound = 0;
  std::optional<double> confidence;  ///< 0.95 for `at 95% confidence`
  bool relative = false;             ///< of the value before (`effect` only)
  bool beyond_control = false;
  Across across;
  std::string text;  ///< canonical and whole: "rate(angry, generates: /idiot/i) <= 2% at 95% confidence"
  Span span;
};

}  // namespace proviso::dsl
