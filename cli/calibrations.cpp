#include "cli/calibrations.hpp"

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <set>
#include <sstream>

#include "runtime/bind.hpp"
#include "runtime/features/choose_sites.hpp"

namespace proviso::cli {

namespace {

std::string sentence(const runtime::Direction& feature, const std::string& model) {
  std::ostringstream text;
  text << std::setprecision(4) << "In " << model << ": ";
  if (feature.latent) {
    text << "one unit adds a vector of length " << feature.latent->length;
    return text.str();
  }
  if (feature.basis.defined()) {
    text << "a subspace of " << feature.basis.size(0) << " dimensions";
    for (const auto& [name, value] : feature.measures) text << "; " << name << " " << value;
    return text.str();
  }
  text << "0 stands for d·x = " << feature.b << ", and 1 for " << feature.b + feature.c;
  if (feature.built_on > 0) text << "; built on " << feature.built_on << " prompts";
  for (const auto& [name, value] : feature.measures) text << "; " << name << " " << value;
  return text.str();
}

/// Where the model has decided the site.
std::string site_sentence(const runtime::BoundRules& bound, dsl::FeatureId feature) {
  const auto selection = bound.selections.find(feature);
  if (selection == bound.selections.end()) return "";
  return "; read at " + dsl::to_string(bound.feature_sites[feature]) + ", the best of " +
         std::to_string(selection->second.candidates.size()) + " by " + runtime::selection_method(selection->second);
}

std::string first_error(const std::vector<dsl::Diagnostic>& diagnostics) {
  const auto found = std::ranges::find(diagnostics, dsl::Severity::error, &dsl::Diagnostic::severity);
  return found == diagnostics.end() ? "" : found->message;
}

}  // namespace

Calibrations::~Calibrations() {
  give_up_ = true;
  under_way_.reset();  // waits for its next step
}

std::string Calibrations::told(const std::shared_ptr<const dsl::RuleSet>& rules, const std::string& feature) {
  if (rules != rules_) {
    rules_ = rules;
    known_.clear();
  }
  if (under_way_ && under_way_->text.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
    auto text = under_way_->text.get();
    if (under_way_->rules == rules_) known_[under_way_->feature] = std::move(text);
    under_way_.reset();
  }
  const auto declared = std::ranges::find(rules->features, feature, &dsl::FeatureDecl::name);
  if (declared == rules->features.end()) return "";
  const auto id = static_cast<dsl::FeatureId>(declared - rules->features.begin());
  if (const auto known = known_.find(id); known != known_.end()) return known->second;
  if (!under_way_) {
    under_way_ = UnderWay{rules, id, std::async(std::launch::async, [this, rules, id] { return measured(rules, id); })};
  }
  return "In " + files_.card.name + ": being measured; look again in a moment";
}

std::string Calibrations::measured(std::shared_ptr<const dsl::RuleSet> rules, dsl::FeatureId feature) {
  try {
    auto bound = runtime::bind(std::move(rules), files_.card, files_.tokenizer, invocation_.options.cache);
    if (!bound.value) return "These rules do not fit " + files_.card.name + ": " + first_error(bound.diagnostics);
    const auto go_on = [this](auto...) {
      if (give_up_) throw GivenUp();
    };
    go_on();
    if (!weights_) weights_ = load_weights(invocation_, files_);
    std::set<dsl::FeatureId> wanted{feature};
    for (const dsl::FeatureId member : dsl::members_of(bound.value->rules->features[feature])) wanted.insert(member);
    bound = runtime::choose_sites(std::move(*bound.value), *weights_, wanted, invocation_.options.cache, go_on);
    if (!bound.value) return first_error(bound.diagnostics);
    auto options = session_options(invocation_);
    options.progress = go_on;
    runtime::Session session(*weights_, *bound.value, options);
    if (const auto diagnostics = session.build({feature}); dsl::has_errors(diagnostics))
      return first_error(diagnostics);
    return sentence(session.features()[feature], files_.card.name) + site_sentence(*bound.value, feature);
  } catch (const GivenUp&) {
    return "";
  } catch (const std::exception& failure) {
    return failure.what();
  }
}

}  // namespace proviso::cli
