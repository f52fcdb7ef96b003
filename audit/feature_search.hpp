#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "audit/candidate_feature.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/source.hpp"
#include "runtime/autoencoders/activations.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/session.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::audit {

/// What features are searched for: those that are higher on `positive` than on `negative` prompts.
struct FeatureSearch {
  std::vector<dsl::Prompt> positive, negative;
  std::string positive_file, negative_file;  ///< as a rule file would name them
  bool chat = false;                         ///< prompts are user turns in the model's chat template
  std::vector<std::string> autoencoders;     ///< folders
  /// `mlp_post[L]`: its neurons; `z[L] head H`: what the head writes; all others: directions there.
  std::vector<dsl::Site> sites;
  dsl::TokenChoice::Kind token = dsl::TokenChoice::Kind::last;  ///< or all
  runtime::TextRows texts;               ///< where the features found are read, too; may be empty
  std::string measure = "kl(positive)";  ///< a metric of the language; its prompts are `positive` and `negative`
  std::int64_t top = 3;                  ///< shown of each kind
  std::int64_t controls = 16;
  std::int64_t contexts = 5, window = 12, tokens = 8;  ///< shown of each feature
};

struct FeatureSearchModel {
  model::Transformer& transformer;
  std::shared_ptr<const model::Tokenizer> tokenizer;
  runtime::SessionOptions session;  ///< its seed cuts the prompts, too
  std::set<std::string> passes_off;
};

/// Searches, and measures what was found: the search, and each feature with how well it tells the two apart on prompts
/// that neither built nor chose it (DeLong's intervals, which hold for all features shown together), what taking it out
/// does to the measure beside random directions, where it is active and what it writes. Diagnostics are of `measure`
/// and of prompts that the model cannot be given; `sources` takes the texts that they stand in. Throws `InputError`:
/// too few prompts, a text on both sides, nothing to search.
dsl::Outcome<nlohmann::ordered_json> find_features(const FeatureSearch& search, const FeatureSearchModel& model,
                                                   dsl::SourceSet& sources);

}  // namespace proviso::audit
