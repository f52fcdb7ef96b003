#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "dsl/check.hpp"
#include "dsl/metric_traits.hpp"
#include "runtime/autoencoders/latent_benchmarks.hpp"
#include "runtime/binder.hpp"

namespace proviso::runtime {

using dsl::Code;

void Binder::expectation(const dsl::Expectation& expectation, const std::vector<dsl::EditId>& edits,
                         std::optional<dsl::CheckId> attacked) {
  written_sets_ = measured_sets(expectation);
  sets_.clear();
  for (const dsl::PromptsId set : written_sets_) sets_.push_back(&bound_.prompts[set]);
  for (const auto& [key, under_attack] : bound_.attacked) {
    const bool measured = std::find(written_sets_.begin(), written_sets_.end(), key.id) != written_sets_.end();
    if (attacked == key.check && !key.facts && measured) sets_.push_back(&under_attack.prompts);
  }
  metric(expectation.metric);
  ablations(expectation);
  true_targets(expectation.metric, edits);
}

void Binder::metric(const dsl::Metric& metric) {
  std::visit(
      [&](const auto& node) {
        using Node = std::decay_t<decltype(node)>;
        if constexpr (std::is_same_v<Node, dsl::metric::Rank>) {
          single_token(node.text, node.text_span);
        } else if constexpr (std::is_same_v<Node, dsl::metric::LogitDiff>) {
          single_token(node.a, node.a_span);
          single_token(node.b, node.b_span);
        } else if constexpr (std::is_same_v<Node, dsl::metric::Probability>) {
          const auto ids = bound_.tokenizer->encode(node.text);
          if (ids.empty()) error(Code::empty_prompt, node.text_span, "the continuation has no tokens");
          each_measured([&](const BoundPrompt& prompt) { context(prompt.tokens.size() + ids.size(), metric.span); });
        } else if constexpr (std::is_same_v<Node, dsl::metric::Accuracy> ||
                             std::is_same_v<Node, dsl::metric::Specificity>) {
          const BoundPrompt* without = nullptr;
          each_measured([&](const BoundPrompt& prompt) {
            if (prompt.answers.empty() && without == nullptr) without = &prompt;
          });
          if (without != nullptr) {
            error(Code::no_answer, metric.span, "\"" + without->text + "\" names no expected continuation",
                  {"write it: \"" + without->text + "\" -> \" …\""});
          }
        } else if constexpr (std::is_same_v<Node, dsl::metric::Rate>) {
          each_measured([&](const BoundPrompt& prompt) {
            context(prompt.tokens.size() + static_cast<std::size_t>(node.tokens), metric.span);
          });
        } else if constexpr (std::is_same_v<Node, dsl::metric::Mean> || std::is_same_v<Node, dsl::metric::Max> ||
                             std::is_same_v<Node, dsl::metric::FiringRate>) {
          training(node.feature, metric.span, Code::measured_on_training);
        } else if constexpr (std::is_same_v<Node, dsl::metric::Cosine>) {
          angle(node, metric.span);
        } else if constexpr (std::is_same_v<Node, dsl::metric::LossRecovered>) {
          autoencoder(node.folder, node.span);
        } else if constexpr (std::is_same_v<Node, dsl::metric::SparseProbing> ||
                             std::is_same_v<Node, dsl::metric::Absorption> || std::is_same_v<Node, dsl::metric::Tpp> ||
                             std::is_same_v<Node, dsl::metric::Scr>) {
          constexpr bool kAblated = !std::is_same_v<Node, dsl::metric::SparseProbing>;
          latents(autoencoder(node.folder, node.span), node.k, kAblated, metric);
        } else if constexpr (std::is_same_v<Node, dsl::metric::Auroc>) {
          training(node.feature, metric.span, Code::auroc_on_training);
        } else if constexpr (std::is_same_v<Node, dsl::metric::Effect>) {
          if (const auto* sentence = std::get_if<dsl::Intervention>(&node.change)) intervention(*sentence);
          if (const auto* patched = std::get_if<dsl::Patch>(&node.change)) patch(*patched, node.direct);
          this->metric(*node.on);
        }
      },
      metric.node);
}

void Binder::patch(const dsl::Patch& patch, bool direct) {
  const std::size_t before = diagnostics_.size();
  for (const auto& spec : patch.sites) site(spec);
  if (patch.condition) condition(*patch.condition, {}, /*holds=*/true);  // it reads no feature
  const bool of_heads =
      std::ranges::any_of(patch.sites, [](const auto& spec) { return spec.kind == dsl::SiteKind::z; });
  if (direct && of_heads && card_.norms_writers()) {
    error(
        Code::patch_path, patch.span,
        "what heads write in " + card_.name + " passes a norm before it joins the stream, so they have no direct path",
        {"patch what attention adds: attn_out"});
  }
  if (diagnostics_.size() != before || patch.source == dsl::Patch::Source::zero) return;
  if (patch.source == dsl::Patch::Source::resample) {
    if (has_givers(2)) return;
    error(Code::empty_contrast, patch.span,
          "`resample` takes from another prompt, and a set that this is measured on has no two of more than one token",
          {"measure it on more prompts, or patch from zero or from mean(P)"});
    return;
  }
  if (bad_.prompts.contains(patch.from)) return;
  const BoundPrompts& donors = bound_.prompts[patch.from];
  if (patch.source == dsl::Patch::Source::mean) {
    if (std::ranges::any_of(donors, [](const auto& prompt) { return prompt.tokens.size() > 1; })) return;
    error(Code::empty_contrast, patch.span, "a mean needs a prompt of more than one token: position 0 has none to give",
          {"patch from the mean of longer prompts, or from zero"});
    return;
  }
  std::map<std::vector<std::int64_t>, const BoundPrompt*> given;
  for (const BoundPrompts* set : sets_) {
    if (set->size() != donors.size()) {
      error(Code::unequal_pairs, patch.span,
            "there are " + std::to_string(set->size()) + " prompts and " + std::to_string(donors.size()) +
                " to patch them from, which are paired in order",
            {"give every prompt its counterpart"});
      return;
    }
    for (std::size_t i = 0; i < donors.size(); ++i) {
      const auto own = (*set)[i].tokens.size(), other = donors[i].tokens.size();
      const auto& donor = *given.emplace((*set)[i].tokens, &donors[i]).first->second;
      if (donor.tokens != donors[i].tokens) {
        error(Code::unequal_pairs, patch.span,
              "\"" + (*set)[i].text + "\" is there twice, to be patched from \"" + donor.text + "\" and from \"" +
                  donors[i].text + "\"",
              {"give every prompt one counterpart: measure another one on prompts of its own"});
        return;
      }
      if (own == other) continue;
      error(Code::unequal_lengths, patch.span,
            "\"" + (*set)[i].text + "\" and \"" + donors[i].text + "\" have " + std::to_string(own) + " and " +
                std::to_string(other) + " tokens in this model, and activations are patched token by token",
            {"replace the word that is split by one of as many tokens as its counterpart"});
      return;
    }
  }
}

void Binder::latents(const AutoencoderCard* card, std::int64_t k, bool ablated, const dsl::Metric& metric) {
  if (card && k > card->d_sae) {
    error(Code::out_of_range, metric.span,
          "`k` is " + std::to_string(k) + ", and the autoencoder has " + std::to_string(card->d_sae) + " latents",
          {"sparse measures take few: k: 1"});
  }
  if (card && ablated && card->is_transcoder()) {
    error(Code::latent_measure, metric.span,
          "a transcoder's latents add nothing to what it reads, so nothing is known of a probe there without them",
          {"measure sparse_probing, or name an autoencoder of the stream"});
  }
  for (const BoundPrompts* set : sets_) {
    std::set<std::int64_t> clusters;
    for (const auto& prompt : *set) clusters.insert(prompt.cluster);
    if (std::ssize(clusters) >= kBenchmarkFolds || set->empty()) continue;
    error(Code::latent_measure, metric.span,
          "a set of this measure has " + std::to_string(clusters.size()) +
              (clusters.size() == 1 ? " cluster" : " clusters") +
              " of prompts, too few to train a probe on some and judge it on others",
          {"give each set " + std::to_string(kBenchmarkFolds) + " or more"});
    return;
  }
}

void Binder::ablations(const dsl::Expectation& expectation) {
  for (const dsl::Ablation ablation : expectation.across.ablations) {
    if (ablation == dsl::Ablation::zero) continue;
    const bool another = ablation == dsl::Ablation::resample;
    if (has_givers(another ? 2 : 1)) continue;
    error(Code::sweep_misfit, expectation.metric.span,
          another ? "`ablation(resample)` takes a feature's value from another prompt, and a set that this is "
                    "measured on has no two of more than one token"
                  : "`ablation(mean)` needs a prompt of more than one token in each set that this is measured on",
          {another ? "measure it on more prompts, or across ablation(zero, mean)"
                   : "measure it on longer prompts, or across ablation(zero)"});
    return;
  }
}

bool Binder::has_givers(std::size_t least) const {
  return std::ranges::all_of(sets_, [&](const BoundPrompts* set) {
    std::set<std::vector<std::int64_t>> giving;  // position 0 has nothing to give
    for (const auto& prompt : *set) {
      if (prompt.tokens.size() > 1) giving.insert(prompt.tokens);
    }
    return set->empty() || giving.size() >= least;
  });
}

std::int64_t Binder::direction_width(dsl::FeatureId id) const {
  const auto* card = autoencoder_of(id);
  return card ? card->d_out : card_.site_width(bound_.feature_sites[id]);
}

void Binder::angle(const dsl::metric::Cosine& cosine, dsl::Span span) {
  const auto f = direction_width(cosine.f), g = direction_width(cosine.g);
  if (f == g) return;
  error(Code::width_mismatch, span,
        "the directions of " + quoted(bound_.feature_name(cosine.f)) + " and " + quoted(bound_.feature_name(cosine.g)) +
            " have " + std::to_string(f) + " and " + std::to_string(g) + " elements",
        {"only directions of one width make an angle"});
}

void Binder::training(dsl::FeatureId id, dsl::Span span, Code code) {
  const auto& feature = rules_.features[id];
  for (const dsl::PromptsId built : dsl::built_from(feature)) {
    std::set<std::vector<std::int64_t>> seen;
    for (const auto& prompt : bound_.prompts[built]) seen.insert(prompt.tokens);
    for (const dsl::PromptsId measured : written_sets_) {
      if (dsl::share_texts(rules_, built, measured)) return;  // `check` has said so
      const auto& prompts = bound_.prompts[measured];
      const auto known = [&](const BoundPrompt& prompt) { return seen.contains(prompt.tokens); };
      if (std::none_of(prompts.begin(), prompts.end(), known)) continue;
      diagnostics_.push_back(dsl::built_from_these(code, span, feature, rules_.prompts[measured]));
      return;
    }
  }
}

}  // namespace proviso::runtime
