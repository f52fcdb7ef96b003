#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/autoencoders/autoencoder_card.hpp"
#include "runtime/model/model_card.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::runtime {

struct BoundPrompt {
  std::string text;  ///< as the model is given it: through the chat template where asked
  std::vector<std::int64_t> tokens;
  std::vector<std::vector<std::int64_t>> answers;  ///< expected continuations, tokenised apart
  std::vector<std::string> answer_texts;
  std::int64_t cluster = 0;  ///< prompts of one template or document share it
};

using BoundPrompts = std::vector<BoundPrompt>;

struct BoundFact {
  dsl::Fact fact;
  BoundPrompt prompt;                  ///< the template with the subject in it
  std::vector<std::int64_t> from, to;  ///< tokens; `from` is empty where the fact names none
};

/// Which prompts a check's attacks were made on, and with which seed: a set of prompts, or the facts of an edit.
struct AttackedKey {
  dsl::CheckId check = 0;
  std::uint64_t seed = 0;  ///< added to the run's
  bool facts = false;
  std::size_t id = 0;  ///< PromptsId or EditId
  auto operator<=>(const AttackedKey&) const = default;
};

/// What `suffix_search` starts from on one prompt, and ends with once the model has been searched.
struct SuffixedPrompt {
  std::string text;                  ///< what the suffix follows, before any chat template
  std::vector<std::int64_t> suffix;  ///< tokens; drawn until the search is done
};

/// The negative log-likelihood of what a search works on, in nats, of one prompt: before it, and with what it found.
struct SearchOutcome {
  double before = 0, after = 0;
};

/// Prompts under attack, in the order of those written. Clusters are theirs, and so are answers but where a translation
/// has its own.
struct AttackedPrompts {
  BoundPrompts prompts;
  std::vector<std::int64_t> changed;                        ///< how many each attack of the chain changed
  std::vector<SuffixedPrompt> suffixed;                     ///< by prompt, under `suffix_search`
  std::map<std::size_t, std::vector<SearchOutcome>> found;  ///< by place in the chain: by prompt, once searched for
};

/// A feature whose site is chosen on the model: `select best`.
struct SiteSelection {
  std::vector<dsl::Site> candidates;  ///< canonical, in the order of a forward pass
  std::int64_t folds = 0;             ///< that the building prompts are cut into; 0: a pair of its own is held out
  bool chosen = false;                ///< until then the feature's site is the last candidate
  struct Score {
    dsl::Site site;
    double auroc = 0;       ///< of the held-out activations
    double separation = 0;  ///< their means' difference over the pooled standard deviation
    std::string left_out;   ///< why there is none; "" where there is
  };
  std::vector<Score> scores;  ///< of every candidate, once chosen
  std::int64_t held_out = 0;  ///< prompts that were scored
};

struct Perturbation;
/// A circuit under the attacks of a check.
struct AttackedCircuitKey {
  dsl::CheckId check = 0;
  std::uint64_t seed = 0;  ///< added to the run's
  dsl::CircuitId circuit = 0;
  auto operator<=>(const AttackedCircuitKey&) const = default;
};

/// Two prompts of equally many tokens, and the tokens whose logits are a circuit's measure after the last.
struct BoundPair {
  BoundPrompt clean, corrupt;
  std::int64_t raised = 0;
  std::int64_t lowered = 0;  ///< nothing is subtracted where the measure is a probability
  std::size_t line = 0;      ///< the `clean … corrupt …` that it comes from
};
struct BoundCircuit {
  std::vector<BoundPair> pairs;           ///< that it is found on
  std::vector<BoundPair> held;            ///< that it is measured on; empty: the same
  bool probability = false;               ///< of `raised`; otherwise its logit less that of `lowered`
  std::int64_t kept = 0;                  ///< how many edges, or nodes where the declaration keeps those
  std::int64_t of = 0;                    ///< how many of those there are in all
  std::vector<std::string> autoencoders;  ///< folders of those whose latents are its nodes, as a pass reaches them

  const std::vector<BoundPair>& measured() const { return held.empty() ? pairs : held; }
};

/// A rule set on a model: every prompt is tokens, every site and layer exists, every word that must be one
/// token is one. Nothing that follows can fail because of what the user wrote, but for what only running
/// the model can tell (a chosen token that is a secondary sink, a contrast without difference).
struct BoundRules {
  std::shared_ptr<const dsl::RuleSet> rules;
  const model::ModelCard* card = nullptr;
  std::shared_ptr<const model::Tokenizer> tokenizer;
  std::vector<BoundPrompts> prompts;                           // by PromptsId
  std::vector<dsl::Site> feature_sites;                        // by FeatureId; canonical
  std::map<dsl::FeatureId, SiteSelection> selections;          // of features whose site the model decides
  std::int64_t selection_sequences = 0, selection_tokens = 0;  ///< computed to choose sites
  std::vector<std::vector<BoundFact>> facts;                   // by EditId, in written order
  std::map<std::string, AutoencoderCard> autoencoders;         // by folder: those that the rules name
  std::vector<BoundCircuit> circuits;                          // by CircuitId
  std::uint64_t seed = 0;                                      ///< the run's, which random attacks are made with
  std::map<AttackedKey, AttackedPrompts> attacked;
  /// By check and seed: what `perturb` adds, once the model has been searched.
  std::map<std::pair<dsl::CheckId, std::uint64_t>, std::shared_ptr<const Perturbation>> perturbations;
  /// Without the pairs whose prompts have become unequally long, or the same.
  std::map<AttackedCircuitKey, BoundCircuit> attacked_circuits;

  /// The circuit as declared, or under the attacks of a check.
  const BoundCircuit& circuit(dsl::CircuitId id, const std::optional<dsl::CheckId>& attacks,
                              std::uint64_t attack_seed) const {
    return attacks ? attacked_circuits.at({*attacks, attack_seed, id}) : circuits[id];
  }

  /// The sites that a feature may be read at: its own, or all candidates while none is chosen.
  std::vector<dsl::Site> possible_sites(dsl::FeatureId id) const;
  const std::string& feature_name(dsl::FeatureId id) const { return rules->features[id].name; }
  /// Canonical sites of a sentence: those it names, or its feature's own; of a transcoder's latent where that writes.
  std::vector<dsl::Site> sites_of(const dsl::Intervention& sentence) const;
  std::vector<dsl::Site> expand(const std::vector<dsl::SiteSpec>& specs) const;
  std::int64_t token_id(const std::string& text) const;  ///< of a text that is one token
};

}  // namespace proviso::runtime
