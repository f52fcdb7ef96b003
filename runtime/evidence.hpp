#pragma once

// What carrying out a plan saw. Metrics are computed from this and from nothing else.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/autoencoders/encoded_prompts.hpp"
#include "runtime/autoencoders/splice.hpp"
#include "runtime/circuits/find_circuit.hpp"
#include "runtime/hooks.hpp"
#include "runtime/plan.hpp"

namespace proviso::runtime {

/// What a model predicts after one position.
struct PositionEvidence {
  double log_normalizer = 0;  ///< log Σ exp(logit), nats
  std::int64_t argmax = 0;    ///< ties to the lower id
  struct Token {
    double logit = 0;
    std::int64_t rank = 0;  ///< from 1, ties to the lower id; 0 where it was not asked for
  };
  std::map<std::int64_t, Token> tokens;
  std::vector<std::int64_t> top;  ///< the likeliest, where they were asked for

  double log_probability(std::int64_t id) const { return tokens.at(id).logit - log_normalizer; }
};

/// How the sentences of a state (in its order) bore on one sequence.
struct SentenceTraces {
  std::vector<std::int64_t> changed;  ///< vectors that the sentence was part of changing
  std::vector<std::int64_t> fired;    ///< positions from 1 where its condition held; unconditional ones: all
  std::map<dsl::Site, std::vector<float>> change_norms;  ///< ‖Δx‖ by position, of an effect's change
  bool finite = true;  ///< false where a logit or an activation that was read is NaN or infinite
};

struct SequenceEvidence : SentenceTraces {
  std::map<std::int64_t, PositionEvidence> logits;        ///< by position
  std::map<dsl::FeatureId, std::vector<float>> features;  ///< activations by position
  std::map<dsl::FeatureId, Mask> ordinary;                ///< positions that count: neither 0 nor a secondary sink
  std::map<dsl::Site, std::vector<float>> norms;          ///< of the residual stream, until `ordinary` is known
  at::Tensor final_states;                                // [length, width]
  std::vector<double> kl;                                 ///< KL(as loaded ‖ this state) after each position, nats
};

struct GeneratedText : SentenceTraces {
  std::vector<std::int64_t> tokens;  ///< without the end of sequence
  std::string text;
};

/// A circuit's edges measured in a state, and what its sentences did to the pairs unpatched.
struct CircuitSeen : SentenceTraces {
  CircuitRuns runs;
};

struct StateEvidence {
  std::vector<bool> edit_changed;                       ///< by edit of the state: whether a byte changed
  std::vector<bool> fold_changed;                       ///< by sentence: whether its weight edits changed a byte
  std::vector<std::map<dsl::Site, Activity>> activity;  ///< by sentence
};

class Evidence {
 public:
  const SequenceEvidence& at(StateId state, SequenceId sequence) const { return sequences_.at({state, sequence}); }
  /// By prompt of the set.
  const std::vector<SplicedLoss>& spliced(const SpliceKey& key) const { return spliced_.at(key); }
  const EncodedPrompts& encoded(const EncodingKey& key) const { return encoded_.at(key); }
  const std::vector<GeneratedText>& texts(const GenerationKey& key) const { return texts_.at(key); }
  const StateEvidence& state(StateId state) const { return states_.at(state); }
  const CircuitEvidence& circuit(dsl::CircuitId id) const { return circuits_.at(id); }
  /// Of a circuit measured otherwise than it was found.
  const CircuitSeen& circuit(const CircuitKey& key) const { return circuit_runs_.at(key); }
  bool has_state(StateId state) const { return states_.contains(state); }

  std::int64_t sequences = 0;  ///< computed, generated ones included
  std::int64_t tokens = 0;     ///< fed to the model

 private:
  friend class StateRun;
  friend class Session;
  std::map<std::pair<StateId, SequenceId>, SequenceEvidence> sequences_;
  std::map<GenerationKey, std::vector<GeneratedText>> texts_;
  std::map<SpliceKey, std::vector<SplicedLoss>> spliced_;
  std::map<EncodingKey, EncodedPrompts> encoded_;
  std::map<StateId, StateEvidence> states_;
  std::map<dsl::CircuitId, CircuitEvidence> circuits_;
  std::map<CircuitKey, CircuitSeen> circuit_runs_;
};

}  // namespace proviso::runtime
