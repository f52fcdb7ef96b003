#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "dsl/check.hpp"
#include "dsl/render.hpp"
#include "runtime/bind.hpp"
#include "runtime/session.hpp"
#include "tests/support/random_model.hpp"

namespace proviso::test {

/// A rule file's text on a tiny random model; both must be free of errors.
struct RulesOnModel {
  explicit RulesOnModel(const std::string& text, const nlohmann::json& json = tiny_llama_json(),
                        const std::vector<std::pair<std::string, std::string>>& files_beside = {},
                        std::uint64_t seed = 0)
      : model(json) {
    for (const auto& [name, bytes] : files_beside) write_bytes(model.folder / name, bytes);
    const auto file = sources.add(model.folder / "rules.proviso", text);
    auto checked = dsl::check_sources(sources, {file});
    if (!checked.value) throw std::runtime_error(dsl::render_text(checked.diagnostics, sources));
    rules = std::make_shared<const dsl::RuleSet>(std::move(*checked.value));
    auto outcome = runtime::bind(rules, model.transformer->card(), model.tokenizer, "", seed);
    if (!outcome.value) throw std::runtime_error(dsl::render_text(outcome.diagnostics, sources));
    bound = std::move(*outcome.value);
  }

  /// Carries a plan out with features built for it.
  runtime::Evidence carry_out(const runtime::Plan& plan) {
    runtime::Session session(*model.transformer, bound, {});
    const auto found = session.build(plan.features);
    if (!found.empty()) throw std::runtime_error(dsl::render_text(found, sources));
    return session.carry_out(plan);
  }

  RandomModel model;
  dsl::SourceSet sources;
  std::shared_ptr<const dsl::RuleSet> rules;
  runtime::BoundRules bound;
};

/// Names and bytes of all weights, with the biases that a fold may add.
inline std::string weights_of(const model::Transformer& transformer) {
  std::string bytes = transformer.tied() ? "tied " : "untied ";
  for (const auto& name : transformer.names()) bytes += name + bytes_of(transformer.get(name));
  for (std::int64_t layer = 0; layer < transformer.config().layers; ++layer) {
    for (const auto kind : {dsl::SiteKind::attn_out, dsl::SiteKind::mlp_out}) {
      const auto bias = transformer.get(transformer.writer({kind, layer, -1})->bias);
      bytes += bias.defined() ? bytes_of(bias) : "no bias";
    }
  }
  return bytes;
}

}  // namespace proviso::test
