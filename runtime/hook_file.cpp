#include "runtime/hook_file.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "dsl/number_text.hpp"
#include "editing/ledger.hpp"
#include "runtime/formats/safetensors.hpp"

namespace proviso::runtime {

namespace {

std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }

/// A name as a rule file may declare it: "pack.anger" is not one.
std::string plain(std::string name) {
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

class HookText {
 public:
  HookText(const BoundRules& bound, const ConditionSet::QuantileValue& quantile) : bound_(bound), quantile_(quantile) {}

  std::string sentence(const PlannedSentence& planned) {
    const auto& s = planned.sentence;
    std::string text = std::string(dsl::operation_name(s.operation)) + " " + feature(s.feature);
    const bool names_target = s.operation == dsl::Operation::clamp || s.operation == dsl::Operation::cap;
    text += (names_target ? " to " : " by ") + dsl::number_text(s.amount) + " at ";
    for (std::size_t i = 0; i < planned.hooks.size(); ++i) text += (i ? ", " : "") + dsl::to_string(planned.hooks[i]);
    return s.condition ? text + " when " + condition(*s.condition) : text;
  }

  const std::set<dsl::FeatureId>& features() const { return features_; }

 private:
  std::string feature(dsl::FeatureId id) {
    features_.insert(id);
    return plain(bound_.feature_name(id));
  }

  std::string operand(const dsl::Operand& operand) {
    if (const auto* id = std::get_if<dsl::FeatureId>(&operand)) return feature(*id);
    if (const auto* number = std::get_if<double>(&operand)) return dsl::number_text(*number);
    return dsl::number_text(quantile_(std::get<dsl::Quantile>(operand)));
  }

  std::string joined(const std::vector<dsl::ConditionPtr>& parts, const char* word) {
    std::string text;
    for (const auto& part : parts) text += (text.empty() ? "" : word) + ("(" + condition(*part) + ")");
    return text;
  }

  std::string condition(const dsl::Condition& condition) {
    return std::visit([this](const auto& node) { return write(node); }, condition.node);
  }
  std::string write(const dsl::Comparison& c) {
    return operand(c.left) + " " + std::string(dsl::compare_text(c.op)) + " " + operand(c.right);
  }
  std::string write(const dsl::PromptMatches& m) {
    std::string text = "prompt matches /";
    for (std::size_t i = 0; i < m.regex.size(); ++i) {
      if (m.regex[i] == '\\' && i + 1 < m.regex.size()) {
        text += m.regex.substr(i++, 2);
      } else {
        text += m.regex[i] == '/' ? "\\/" : std::string(1, m.regex[i]);
      }
    }
    return text + "/";
  }
  std::string write(const dsl::TokenIn& t) {
    std::string text;
    for (const auto& token : t.texts) text += (text.empty() ? "" : ", ") + quoted(token);
    return "token in [" + text + "]";
  }
  std::string write(const dsl::PositionIs& p) {
    return "position " + std::string(dsl::compare_text(p.op)) + " " + std::to_string(p.value);
  }
  std::string write(const dsl::Generated&) { return "generated"; }
  std::string write(const dsl::Any& a) { return "any (" + condition(*a.of) + ")"; }
  std::string write(const dsl::Last& l) { return "last (" + condition(*l.of) + ")"; }
  std::string write(const dsl::Not& n) { return "not (" + condition(*n.of) + ")"; }
  std::string write(const dsl::And& a) { return joined(a.of, " and "); }
  std::string write(const dsl::Or& o) { return joined(o.of, " or "); }

  const BoundRules& bound_;
  const ConditionSet::QuantileValue& quantile_;
  std::set<dsl::FeatureId> features_;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> hook_file(const std::vector<PlannedSentence>& sentences,
                                                           const std::vector<Direction>& features,
                                                           const BoundRules& bound,
                                                           const ConditionSet::QuantileValue& quantile) {
  HookText text(bound, quantile);
  std::vector<std::pair<std::string, std::string>> rules;  // name, sentences
  for (const auto& sentence : sentences) {
    if (sentence.hooks.empty()) continue;
    const std::string name = plain(sentence.rule);
    if (rules.empty() || rules.back().first != name) rules.emplace_back(name, "");
    rules.back().second += "  " + text.sentence(sentence) + "\n";
  }
  if (rules.empty()) return {};

  std::string file =
      "# Rules that weights cannot hold, in force only where this file is given: proviso run --rules.\n\n";
  std::vector<at::Tensor> vectors;
  std::vector<model::TensorToWrite> tensors;
  for (dsl::FeatureId id : text.features()) {
    const Direction& direction = features[id];
    if (direction.latent) {
      throw model::InputError("feature `" + bound.feature_name(id) +
                              "` is a latent, and hooks kept beside a model hold no autoencoder\n  help: keep the rule "
                              "file with the model, and name both: proviso run --rules");
    }
    const std::string name = plain(bound.feature_name(id));
    file += "feature " + name + " = direction(\"" + editing::kHookVectors + "\", tensor: " + quoted(name) +
            ", offset: " + dsl::number_text(direction.b) + ", scale: " + dsl::number_text(direction.c) + ") at " +
            dsl::to_string(direction.site) + "\n";
    vectors.push_back(direction.d.to(at::kFloat).contiguous());
    tensors.push_back({name, model::ElementType::f32, vectors.back().sizes().vec(),
                       std::as_bytes(std::span(vectors.back().const_data_ptr<float>(),
                                               static_cast<std::size_t>(vectors.back().numel())))});
  }
  for (const auto& [name, lines] : rules) file += "\nrule " + name + " {\n" + lines + "}\n";
  return {{editing::kHookRules, file}, {editing::kHookVectors, model::safetensors_bytes(tensors)}};
}

}  // namespace proviso::runtime
