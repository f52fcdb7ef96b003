#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cli/rule_files.hpp"
#include "runtime/bound_rules.hpp"
#include "runtime/model/model_card.hpp"
#include "runtime/model/transformer.hpp"
#include "runtime/session.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::cli {

/// A model's names and shapes, and its tokenizer: all that needs no weights.
struct ModelFiles {
  model::ModelCard card;
  std::shared_ptr<const model::Tokenizer> tokenizer;
};
std::unique_ptr<ModelFiles> open_model(const std::string& path);

/// The prompts of a file, in any form that rule files read. Throws `InputError` where there is none.
std::vector<dsl::Prompt> read_prompts(const std::string& path);
/// The same as tokens. Throws `InputError` where there is none.
std::vector<std::vector<std::int64_t>> read_prompt_tokens(const std::string& path, const ModelFiles& files);

/// The sites that these texts name, each once, in the order of a forward pass. Throws `InputError` where one is no
/// site, or the model has none such.
std::set<dsl::Site> sites_of(const std::vector<std::string>& texts, const model::ModelCard& card);

/// The weights, with the device, dtype and threads that the options ask for.
std::unique_ptr<model::Transformer> load_weights(const Invocation& invocation, const ModelFiles& files);

/// The threads in use, once weights are loaded.
int threads_in_use();

/// Rule files checked against a model. Diagnostics go to `out`; `bound` is empty where they stop the command.
struct BoundFiles {
  std::unique_ptr<RuleFiles> files;
  std::shared_ptr<const ModelFiles> model;
  std::optional<runtime::BoundRules> bound;
};
std::unique_ptr<BoundFiles> bind_rules(const Invocation& invocation, const std::vector<std::string>& paths,
                                       const std::string& model_path);

/// Chooses the sites that `select best` leaves to the model for these features, before a plan is final; asks for
/// weights only where there is one. False: something is wrong, which has been said.
bool choose_sites(const Invocation& invocation, BoundFiles& opened, const std::set<dsl::FeatureId>& wanted,
                  const std::function<model::Transformer&()>& weights);

/// A model that several runs of a command share: each part is read when it is first needed.
class SharedModel {
 public:
  SharedModel(const Invocation& invocation, std::string path) : invocation_(invocation), path_(std::move(path)) {}
  const std::shared_ptr<const ModelFiles>& files();
  model::Transformer& weights();

 private:
  const Invocation& invocation_;
  std::string path_;
  std::shared_ptr<const ModelFiles> files_;
  std::unique_ptr<model::Transformer> weights_;
};
/// The rule files are read before the model is.
std::unique_ptr<BoundFiles> bind_rules(const Invocation& invocation, const std::vector<std::string>& paths,
                                       SharedModel& model);

/// The plan passes that `--no-pass` names; throws `InputError` with the nearest name where there is no such pass.
std::set<std::string> passes_off(const Invocation& invocation);

/// What the common options say to a session; what edits cost is not measured.
runtime::SessionOptions session_options(const Invocation& invocation);

/// The edits solved one after another; throws `InputError` naming one that cannot be made. `session` is prepared.
const std::vector<runtime::SolvedEdit>& solved(runtime::Session& session, const dsl::RuleSet& rules,
                                               const std::vector<dsl::EditId>& edits);

/// Text for second moments, and text that no edit sees: both shipped.
std::string shipped_corpus();
std::string shipped_held_out();
std::string shipped_facts();

/// Adds the required `--model M`.
void add_model_option(CLI::App& command, std::string& model);
/// Adds the rule files as arguments.
void add_rule_files(CLI::App& command, std::vector<std::string>& files);

}  // namespace proviso::cli
