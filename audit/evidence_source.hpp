#pragma once

// Metrics ask and read in the same words: while a plan is made an EvidenceSource notes what is asked for and
// answers with blanks; after it has been carried out another one answers with what was seen.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/evidence.hpp"
#include "runtime/plan.hpp"

namespace proviso::audit {

/// A continuation given a prompt.
struct ContinuationScore {
  double log_probability = 0;  ///< of all its tokens, nats
  bool all_likeliest = false;  ///< every token is the argmax given those before
};

struct NextToken {
  double logit = 0;
  std::int64_t rank = 0;  ///< from 1
};

/// A feature on one prompt, by position; `counts` leaves out position 0 and what are secondary sinks of the model as
/// loaded, so that every state is measured on the same positions.
struct Activations {
  std::span<const float> values;
  std::span<const std::uint8_t> counts;
};

class EvidenceSource {
 public:
  virtual ~EvidenceSource() = default;

  using Prompt = runtime::BoundPrompt;
  virtual ContinuationScore continuation(runtime::StateId state, const Prompt& prompt,
                                         std::span<const std::int64_t> tokens) = 0;
  virtual NextToken next(runtime::StateId state, const Prompt& prompt, std::int64_t token, bool rank) = 0;
  /// Negative log-likelihood of every token but the first, nats; empty for a text of one token.
  virtual std::vector<double> text(runtime::StateId state, const Prompt& prompt) = 0;
  /// KL(as loaded ‖ state) after each position, nats.
  virtual std::vector<double> kl(runtime::StateId state, const Prompt& prompt) = 0;
  virtual Activations activations(runtime::StateId state, const Prompt& prompt, dsl::FeatureId feature) = 0;
  /// The same at every position, secondary sinks among them: what conditions see. Empty while a plan is made.
  virtual std::span<const float> readings(runtime::StateId state, const Prompt& prompt, dsl::FeatureId feature) = 0;
  /// `seed` is added to the run's, where texts are sampled.
  virtual std::vector<std::string> texts(runtime::StateId state, const Prompt& prompt, const dsl::metric::Rate& rate,
                                         std::uint64_t seed) = 0;
  /// Positions at which each sentence of the state held, by sentence.
  virtual std::vector<std::int64_t> firing(runtime::StateId state, const Prompt& prompt) = 0;
  virtual double cosine(dsl::FeatureId f, dsl::FeatureId g) = 0;
  /// With an autoencoder's site spliced, by prompt; empty while a plan is made.
  virtual std::vector<runtime::SplicedLoss> spliced(runtime::StateId state, const std::string& autoencoder,
                                                    const runtime::BoundPrompts& prompts) = 0;
  /// What an autoencoder reads of prompts; null while a plan is made.
  virtual const runtime::EncodedPrompts* encoded(runtime::StateId state, const std::string& autoencoder,
                                                 const runtime::BoundPrompts& prompts) = 0;
  /// What a circuit's edges carry; null while a plan is made.
  virtual const runtime::CircuitRuns* circuit(const runtime::CircuitKey& key) = 0;
  /// A circuit as it was found, on the model as loaded; null while a plan is made.
  virtual const runtime::CircuitEvidence* found(dsl::CircuitId circuit, const runtime::CircuitAsked& asked) = 0;
};

/// Notes what is asked for in a plan.
class PlanningSource : public EvidenceSource {
 public:
  explicit PlanningSource(runtime::PlanBuilder& builder) : builder_(builder) {}

  ContinuationScore continuation(runtime::StateId, const Prompt&, std::span<const std::int64_t>) override;
  NextToken next(runtime::StateId, const Prompt&, std::int64_t token, bool rank) override;
  std::vector<double> text(runtime::StateId, const Prompt&) override;
  std::vector<double> kl(runtime::StateId, const Prompt&) override;
  Activations activations(runtime::StateId, const Prompt&, dsl::FeatureId) override;
  std::span<const float> readings(runtime::StateId, const Prompt&, dsl::FeatureId) override;
  std::vector<std::string> texts(runtime::StateId, const Prompt&, const dsl::metric::Rate&,
                                 std::uint64_t seed) override;
  std::vector<std::int64_t> firing(runtime::StateId, const Prompt&) override;
  double cosine(dsl::FeatureId f, dsl::FeatureId g) override;
  std::vector<runtime::SplicedLoss> spliced(runtime::StateId, const std::string& autoencoder,
                                            const runtime::BoundPrompts&) override;
  const runtime::EncodedPrompts* encoded(runtime::StateId, const std::string& autoencoder,
                                         const runtime::BoundPrompts&) override;
  const runtime::CircuitRuns* circuit(const runtime::CircuitKey& key) override;
  const runtime::CircuitEvidence* found(dsl::CircuitId circuit, const runtime::CircuitAsked& asked) override;

 private:
  runtime::PlanBuilder& builder_;
};

/// Answers from what was seen, and notes how many vectors the sentences of each state changed in what was
/// read since `forget`: a rule that changed none has shown nothing.
class ReadingSource : public EvidenceSource {
 public:
  ReadingSource(const runtime::Plan& plan, const runtime::Evidence& evidence,
                const std::vector<runtime::Direction>& features);

  ContinuationScore continuation(runtime::StateId, const Prompt&, std::span<const std::int64_t>) override;
  NextToken next(runtime::StateId, const Prompt&, std::int64_t token, bool rank) override;
  std::vector<double> text(runtime::StateId, const Prompt&) override;
  std::vector<double> kl(runtime::StateId, const Prompt&) override;
  Activations activations(runtime::StateId, const Prompt&, dsl::FeatureId) override;
  std::span<const float> readings(runtime::StateId, const Prompt&, dsl::FeatureId) override;
  std::vector<std::string> texts(runtime::StateId, const Prompt&, const dsl::metric::Rate&,
                                 std::uint64_t seed) override;
  std::vector<std::int64_t> firing(runtime::StateId, const Prompt&) override;
  double cosine(dsl::FeatureId f, dsl::FeatureId g) override;
  std::vector<runtime::SplicedLoss> spliced(runtime::StateId, const std::string& autoencoder,
                                            const runtime::BoundPrompts&) override;
  const runtime::EncodedPrompts* encoded(runtime::StateId, const std::string& autoencoder,
                                         const runtime::BoundPrompts&) override;
  const runtime::CircuitRuns* circuit(const runtime::CircuitKey& key) override;
  const runtime::CircuitEvidence* found(dsl::CircuitId circuit, const runtime::CircuitAsked& asked) override;

  void forget() {
    changed_.clear();
    finite_ = true;
  }
  /// Whether all that was read since `forget` is a number.
  bool finite() const { return finite_; }
  /// Vectors changed by the state's sentence `index`, over what was read; a fold that changed a byte counts.
  bool changed(runtime::StateId state, std::size_t index) const;

 private:
  runtime::SequenceId find(const Prompt& prompt, std::span<const std::int64_t> continuation = {}) const;
  const runtime::SequenceEvidence& seen(runtime::StateId state, runtime::SequenceId sequence);
  void note(runtime::StateId state, const runtime::SentenceTraces& traces);

  const runtime::Plan& plan_;
  const runtime::Evidence& evidence_;
  const std::vector<runtime::Direction>& features_;
  std::map<runtime::Sequence, runtime::SequenceId> ids_;
  std::map<runtime::StateId, std::vector<std::int64_t>> changed_;
  bool finite_ = true;
};

/// The tokens that are fed for a continuation: all but its last, whose successor nobody asks about.
std::span<const std::int64_t> fed(std::span<const std::int64_t> continuation);

}  // namespace proviso::audit
