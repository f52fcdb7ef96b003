#pragma once

// The inside of `bind`: one class, whose parts lie in bind_*.cpp, one file a kind of declaration.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dsl/check.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/rule_set.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::runtime {

/// `anger`, as diagnostics write names.
inline std::string quoted(const std::string& text) { return "`" + text + "`"; }

class Binder {
 public:
  Binder(std::shared_ptr<const dsl::RuleSet> rules, const model::ModelCard& card,
         std::shared_ptr<const model::Tokenizer> tokenizer, const std::string& cache_directory, std::uint64_t seed,
         const dsl::Unsound& unsound = {})
      : rules_(*rules), card_(card), cache_directory_(cache_directory), bad_(unsound) {
    bound_.seed = seed;
    bound_.rules = std::move(rules);
    bound_.card = &card;
    bound_.tokenizer = std::move(tokenizer);
  }

  dsl::Outcome<BoundRules> run();

 private:
  using Texts = std::vector<std::string>;

  // ---- bind.cpp: the whole, and what a file needs of a model ----
  void error(dsl::Code code, dsl::Span span, std::string message, std::vector<std::string> help = {});
  void requirements();
  /// Binds a declaration and notes it among the `bad` where that finds an error, or where it was there before.
  template <class Bind>
  void each_declared(std::size_t count, std::set<std::size_t>& bad, Bind bind);
  void checks();
  /// Whether something is wrong with what a declaration or an expectation is made of or measured on.
  bool needs_bad(const dsl::EditDecl& edit) const;
  bool needs_bad(const dsl::CircuitDecl& circuit) const;
  bool needs_bad(const dsl::Expectation& expectation, const std::vector<dsl::EditId>& edits) const;
  bool needs_bad(const dsl::Attack& attack) const;
  bool any_bad(const std::vector<dsl::PromptsId>& sets) const;

  // ---- bind_prompts.cpp: texts as tokens, and what attacks make of them ----
  void prompts(const dsl::PromptsDecl& declaration);
  /// The tokens that the model is given for a text of a set.
  void encode(const std::optional<dsl::Chat>& chat, const std::string& text, BoundPrompt& bound) const;
  std::optional<BoundPrompt> tokenise(const dsl::PromptsDecl& declaration, const dsl::Prompt& prompt, dsl::Span span);
  void context(std::size_t tokens, dsl::Span span, const std::string& text = "this text");
  void single_token(const std::string& text, dsl::Span span);
  /// Makes the attacks of a check on all that one of its expectations is measured on, for every seed that it asks for.
  void attack(dsl::CheckId check, const dsl::Expectation& expectation);
  void attack(const AttackedKey& key, const BoundPrompts& prompts, const std::vector<std::string>& texts,
              const std::optional<dsl::Chat>& chat);
  /// The texts that an attack draws from for the prompt at a place.
  Texts texts_beside(const dsl::Attack& attack, std::size_t prompt) const;
  /// Whether there are as many translations as prompts; says so where not.
  bool parallel(const dsl::Attack& attack, std::size_t prompts);
  /// A search must know what to make likely or unlikely on every prompt.
  void aimed(const dsl::Attack& attack, const BoundPrompts& prompts, const Texts& texts);
  /// What a search for a suffix starts from; empty where there is none, which is said.
  std::vector<std::int64_t> first_suffix(const dsl::Attack& attack, const std::string& text,
                                         const std::optional<dsl::Chat>& chat, std::uint64_t seed);
  void once(dsl::Code code, dsl::Span span, const std::string& message, std::vector<std::string> help);
  /// The sets that an expectation is measured on, as written.
  /// The pairs of a circuit that its measure still suits, once its sets are attacked.
  void attack(const AttackedCircuitKey& key);
  static std::vector<dsl::PromptsId> measured_sets(const dsl::Expectation& expectation);
  template <class Item>
  std::vector<Item> read_file(const dsl::PromptFile& file,
                              dsl::Outcome<std::vector<Item>> (*read)(const dsl::PromptFile&, std::string_view)) {
    try {
      const auto mapped = model::MappedFile::open(file.path);
      auto outcome = read(file, mapped->text());
      diagnostics_.insert(diagnostics_.end(), outcome.diagnostics.begin(), outcome.diagnostics.end());
      if (outcome.value) return std::move(*outcome.value);
    } catch (const model::InputError& failure) {
      error(dsl::Code::unreadable_file, file.span, failure.what(), {"name a file that exists and can be read"});
    }
    return {};
  }

  // ---- bind_features.cpp: sites, features and interventions ----
  void site(const dsl::SiteSpec& spec);
  void feature(const dsl::FeatureDecl& declaration);
  /// The headers of an autoencoder that suits the model; null where something is wrong, which has been said.
  const AutoencoderCard* autoencoder(const std::string& folder, dsl::Span span);
  void construction(const dsl::FeatureDecl& declaration);
  void choice(const dsl::FeatureDecl& declaration, const dsl::TwoSided& of);
  void contrast_tokens(const dsl::FeatureDecl& declaration, dsl::PromptsId set);
  void stored_direction(const dsl::StoredDirection& stored, std::int64_t width);
  void intervention(const dsl::Intervention& sentence);
  /// The sites, and that donors stand beside the prompts that the expectation is measured on.
  void patch(const dsl::Patch& patch, bool direct);
  /// `holds`: whether the sentence acts where it holds, and not where it does not.
  void condition(const dsl::Condition& condition, const std::vector<dsl::Site>& sites, bool holds);
  void read_order(dsl::FeatureId feature, dsl::Span span, const std::vector<dsl::Site>& sites);
  const AutoencoderCard* autoencoder_of(dsl::FeatureId feature) const;

  // ---- bind_edits.cpp: changes of weights ----
  void edit(const dsl::EditDecl& declaration);
  /// What weighs the new continuation against the old one needs both; of facts in files that is known only now.
  void true_targets(const dsl::Metric& metric, const std::vector<dsl::EditId>& edits);
  void fact(const dsl::Fact& fact);
  void remove(const dsl::Remove& remove);
  void erase(const dsl::Erase& erase);

  // ---- bind_circuits.cpp: pairs, measures and how much is kept ----
  void circuit(const dsl::CircuitDecl& declaration);
  bool paired(const BoundPair& pair, dsl::Span span);
  /// The measure of a pair whose prompts say their own continuations.
  bool answers(BoundPair& pair, dsl::Span span);
  /// That a circuit measured under a rule is measured exactly.
  void in_circuits(const dsl::Expectation& expectation, const std::vector<dsl::RuleId>& rules);
  /// Why a sentence has no one meaning where edges are patched, or "".
  std::string unclear_in_circuits(const dsl::Intervention& sentence) const;
  /// How many edges or nodes are kept.
  void kept(const dsl::CircuitDecl& declaration, BoundCircuit& bound);
  /// The autoencoders whose latents are a circuit's nodes: each of a site of its own, with an error term there.
  void circuit_autoencoders(const dsl::CircuitDecl& declaration, BoundCircuit& bound);

  // ---- bind_metrics.cpp: what expectations are measured on ----
  void expectation(const dsl::Expectation& expectation, const std::vector<dsl::EditId>& edits,
                   std::optional<dsl::CheckId> attacked);
  void metric(const dsl::Metric& metric);
  /// Measures of single latents: `ablated` where latents are taken out of what the autoencoder reads.
  void latents(const AutoencoderCard* card, std::int64_t k, bool ablated, const dsl::Metric& metric);
  /// The width of a feature's direction: of a latent its decoder row's.
  std::int64_t direction_width(dsl::FeatureId id) const;
  /// What an effect's change is set to must be there in each set that it is measured on.
  void ablations(const dsl::Expectation& expectation);
  /// Each set measured, where it has any prompts, has so many different ones of more than one token.
  bool has_givers(std::size_t least) const;
  void angle(const dsl::metric::Cosine& cosine, dsl::Span span);
  void training(dsl::FeatureId id, dsl::Span span, dsl::Code code);
  template <class Each>
  void each_measured(Each each) const {
    for (const BoundPrompts* set : sets_) std::for_each(set->begin(), set->end(), each);
  }

  const dsl::RuleSet& rules_;
  const model::ModelCard& card_;
  const std::string& cache_directory_;
  std::int64_t facts_ = 0;
  std::set<std::string> refused_autoencoders_;
  dsl::Unsound bad_;                          // what something is wrong with, which has been said
  std::optional<dsl::FeatureId> acting_;      // whose sentence is being bound, where the model decides its site
  std::vector<Texts> written_;                // by PromptsId: before any chat template
  std::vector<dsl::PromptsId> written_sets_;  // that the expectation being bound is measured on …
  std::vector<const BoundPrompts*> sets_;     // … and those with what attacks make of them
  BoundRules bound_;
  std::vector<dsl::Diagnostic> diagnostics_;
};

}  // namespace proviso::runtime
