#include "audit/evidence_source.hpp"

#include <ATen/ATen.h>

#include <cmath>

namespace proviso::audit {

using runtime::SequenceId;
using runtime::StateId;

namespace {

std::int64_t last_position(const runtime::BoundPrompt& prompt) {
  return static_cast<std::int64_t>(prompt.tokens.size()) - 1;
}

runtime::GenerationKey generation(StateId state, SequenceId sequence, const dsl::metric::Rate& rate,
                                  std::uint64_t seed) {
  return {state, sequence, rate.tokens, rate.samples, rate.temperature, rate.temperature > 0 ? seed : 0};
}

}  // namespace

std::span<const std::int64_t> fed(std::span<const std::int64_t> continuation) {
  return continuation.empty() ? continuation : continuation.first(continuation.size() - 1);
}

// ---- planning ------------------------------------------------------------------------------------

ContinuationScore PlanningSource::continuation(StateId state, const Prompt& prompt,
                                               std::span<const std::int64_t> tokens) {
  const SequenceId id = builder_.ask(prompt, fed(tokens));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    builder_.want_logits(state, id, last_position(prompt) + static_cast<std::int64_t>(i), tokens[i]);
  }
  return {};
}

NextToken PlanningSource::next(StateId state, const Prompt& prompt, std::int64_t token, bool rank) {
  builder_.want_logits(state, builder_.ask(prompt), last_position(prompt), token, rank);
  return {};
}

std::vector<double> PlanningSource::text(StateId state, const Prompt& prompt) {
  const SequenceId id = builder_.ask(prompt);
  for (std::size_t i = 1; i < prompt.tokens.size(); ++i) {
    builder_.want_logits(state, id, static_cast<std::int64_t>(i) - 1, prompt.tokens[i]);
  }
  return {};
}

std::vector<double> PlanningSource::kl(StateId state, const Prompt& prompt) {
  if (state != builder_.loaded()) builder_.want_kl(state, builder_.ask(prompt, {}, 2));  // there and as loaded
  return {};
}

Activations PlanningSource::activations(StateId state, const Prompt& prompt, dsl::FeatureId feature) {
  const SequenceId id = builder_.ask(prompt, {}, state == builder_.loaded() ? 1 : 2);
  builder_.want_feature(state, id, feature);
  builder_.want_feature(builder_.loaded(), id, feature);  // it says which positions are sinks
  return {};
}

std::span<const float> PlanningSource::readings(StateId state, const Prompt& prompt, dsl::FeatureId feature) {
  builder_.want_feature(state, builder_.sequence(prompt), feature);
  return {};
}

std::vector<std::string> PlanningSource::texts(StateId state, const Prompt& prompt, const dsl::metric::Rate& rate,
                                               std::uint64_t seed) {
  builder_.want_generation(generation(state, builder_.ask(prompt, {}, rate.samples), rate, seed));
  return {};
}

std::vector<std::int64_t> PlanningSource::firing(StateId state, const Prompt& prompt) {
  builder_.want_firing(state, builder_.ask(prompt));
  return {};
}

double PlanningSource::cosine(dsl::FeatureId f, dsl::FeatureId g) {
  builder_.want_built(f);
  builder_.want_built(g);
  return 0;
}

std::vector<runtime::SplicedLoss> PlanningSource::spliced(StateId state, const std::string& autoencoder,
                                                          const runtime::BoundPrompts& prompts) {
  runtime::SpliceKey key{state, {}, autoencoder};
  for (const auto& prompt : prompts) key.sequences.push_back(builder_.sequence(prompt));
  builder_.want_splice(key);
  return {};
}

const runtime::EncodedPrompts* PlanningSource::encoded(StateId state, const std::string& autoencoder,
                                                       const runtime::BoundPrompts& prompts) {
  runtime::EncodingKey key{state, {}, autoencoder};
  for (const auto& prompt : prompts) key.sequences.push_back(builder_.sequence(prompt));
  builder_.want_encoding(key);
  return nullptr;
}

const runtime::CircuitRuns* PlanningSource::circuit(const runtime::CircuitKey& key) {
  builder_.want_circuit(key);
  return nullptr;
}

// ---- reading -------------------------------------------------------------------------------------

ReadingSource::ReadingSource(const runtime::Plan& plan, const runtime::Evidence& evidence,
                             const std::vector<runtime::Direction>& features)
    : plan_(plan), evidence_(evidence), features_(features) {
  for (SequenceId id = 0; id < plan.sequences.size(); ++id) ids_.emplace(plan.sequences[id], id);
}

SequenceId ReadingSource::find(const Prompt& prompt, std::span<const std::int64_t> continuation) const {
  runtime::Sequence sequence{prompt.tokens, static_cast<std::int64_t>(prompt.tokens.size()), prompt.text};
  sequence.tokens.insert(sequence.tokens.end(), continuation.begin(), continuation.end());
  return ids_.at(sequence);
}

void ReadingSource::note(StateId state, const runtime::SentenceTraces& traces) {
  auto& sums = changed_[state];
  sums.resize(plan_.states[state].sentences.size() + plan_.states[state].replacements.size(), 0);
  finite_ = finite_ && traces.finite;
  for (std::size_t i = 0; i < traces.changed.size(); ++i) sums[i] += traces.changed[i];
}

const runtime::SequenceEvidence& ReadingSource::seen(StateId state, SequenceId sequence) {
  const auto& evidence = evidence_.at(state, sequence);
  note(state, evidence);
  return evidence;
}

bool ReadingSource::changed(StateId state, std::size_t index) const {
  if (evidence_.state(state).fold_changed[index]) return true;
  const auto found = changed_.find(state);
  return found != changed_.end() && found->second[index] > 0;
}

ContinuationScore ReadingSource::continuation(StateId state, const Prompt& prompt,
                                              std::span<const std::int64_t> tokens) {
  const auto& evidence = seen(state, find(prompt, fed(tokens)));
  ContinuationScore score{0, true};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto& after = evidence.logits.at(last_position(prompt) + static_cast<std::int64_t>(i));
    score.log_probability += after.log_probability(tokens[i]);
    score.all_likeliest = score.all_likeliest && after.argmax == tokens[i];
  }
  return score;
}

NextToken ReadingSource::next(StateId state, const Prompt& prompt, std::int64_t token, bool) {
  const auto& about = seen(state, find(prompt)).logits.at(last_position(prompt)).tokens.at(token);
  return {about.logit, about.rank};
}

std::vector<double> ReadingSource::text(StateId state, const Prompt& prompt) {
  const auto& evidence = seen(state, find(prompt));
  std::vector<double> losses;
  for (std::size_t i = 1; i < prompt.tokens.size(); ++i) {
    losses.push_back(-evidence.logits.at(static_cast<std::int64_t>(i) - 1).log_probability(prompt.tokens[i]));
  }
  return losses;
}

std::vector<double> ReadingSource::kl(StateId state, const Prompt& prompt) {
  if (state == 0) return std::vector<double>(prompt.tokens.size(), 0.0);
  return seen(state, find(prompt)).kl;
}

Activations ReadingSource::activations(StateId state, const Prompt& prompt, dsl::FeatureId feature) {
  const SequenceId id = find(prompt);
  return {seen(state, id).features.at(feature), evidence_.at(0, id).ordinary.at(feature)};
}

std::span<const float> ReadingSource::readings(StateId state, const Prompt& prompt, dsl::FeatureId feature) {
  return seen(state, find(prompt)).features.at(feature);
}

std::vector<std::string> ReadingSource::texts(StateId state, const Prompt& prompt, const dsl::metric::Rate& rate,
                                              std::uint64_t seed) {
  std::vector<std::string> texts;
  for (const auto& written : evidence_.texts(generation(state, find(prompt), rate, seed))) {
    note(state, written);
    texts.push_back(written.text);
  }
  return texts;
}

std::vector<std::int64_t> ReadingSource::firing(StateId state, const Prompt& prompt) {
  return seen(state, find(prompt)).fired;
}

double ReadingSource::cosine(dsl::FeatureId f, dsl::FeatureId g) {
  return features_[f].d.dot(features_[g].d).item<double>();
}

std::vector<runtime::SplicedLoss> ReadingSource::spliced(StateId state, const std::string& autoencoder,
                                                         const runtime::BoundPrompts& prompts) {
  runtime::SpliceKey key{state, {}, autoencoder};
  for (const auto& prompt : prompts) key.sequences.push_back(find(prompt));
  const auto losses = evidence_.spliced(key);
  for (const auto& loss : losses) finite_ = finite_ && std::isfinite(loss.reconstructed) && std::isfinite(loss.ablated);
  return losses;
}

const runtime::CircuitEvidence* PlanningSource::found(dsl::CircuitId circuit, const runtime::CircuitAsked& asked) {
  builder_.want_circuit(circuit, asked);
  return nullptr;
}

const runtime::CircuitEvidence* ReadingSource::found(dsl::CircuitId circuit, const runtime::CircuitAsked&) {
  return &evidence_.circuit(circuit);
}

const runtime::EncodedPrompts* ReadingSource::encoded(StateId state, const std::string& autoencoder,
                                                      const runtime::BoundPrompts& prompts) {
  runtime::EncodingKey key{state, {}, autoencoder};
  for (const auto& prompt : prompts) key.sequences.push_back(find(prompt));
  const auto& read = evidence_.encoded(key);
  finite_ = finite_ && read.mean_x.isfinite().all().item<bool>() && read.mean_f.isfinite().all().item<bool>();
  return &read;
}

const runtime::CircuitRuns* ReadingSource::circuit(const runtime::CircuitKey& key) {
  if (key.as_found()) return &evidence_.circuit(key.circuit);
  const auto& seen = evidence_.circuit(key);
  note(key.state, seen);
  return &seen.runs;
}

}  // namespace proviso::audit
