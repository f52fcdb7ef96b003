#include <algorithm>
#include <set>

#include "dsl/check.hpp"
#include "dsl/condition_logic.hpp"
#include "runtime/binder.hpp"
#include "runtime/condition.hpp"
#include "runtime/formats/safetensors.hpp"

namespace proviso::runtime {

using dsl::Code;
using model::InputError;

void Binder::site(const dsl::SiteSpec& spec) {
  if (const std::string why = card_.missing_site(spec.kind); !why.empty()) {
    error(Code::missing_site, spec.span, why, {"name resid_pre, which every part of the layer reads, or resid_post"});
    return;
  }
  const auto range = [&](const dsl::IndexSet& set, std::int64_t count, const char* what) {
    for (const auto& part : set.ranges) {
      if (part.last < count) continue;
      error(Code::index_out_of_range, spec.span,
            std::string(what) + " " + std::to_string(part.last) + " does not exist: " + card_.name + " has " +
                std::to_string(count) + " " + what + "s at " + std::string(dsl::site_name(spec.kind)),
            {"the last " + std::string(what) + " is " + std::to_string(count - 1)});
      return;
    }
  };
  if (dsl::site_has_layer(spec.kind)) range(spec.layers, card_.config.layers, "layer");
  if (spec.heads) range(*spec.heads, card_.site_heads(spec.kind), "head");
}

void Binder::feature(const dsl::FeatureDecl& declaration) {
  std::vector<dsl::Site> sites;
  if (declaration.site) {
    site(*declaration.site);
    sites = bound_.expand({*declaration.site});
  }
  if (const auto* latent = std::get_if<dsl::Latent>(&declaration.constructor)) {
    const auto* card = autoencoder(latent->folder, latent->folder_span);
    if (card && !sites.empty() && sites.front() != card->site) {
      error(Code::latent_site, declaration.site->span,
            "the autoencoder of feature " + quoted(declaration.name) + " reads " + dsl::to_string(card->site) +
                ", and not " + dsl::to_string(sites.front()),
            {"leave `at` out, or name an autoencoder of that site"});
    }
    if (card) sites = {card->site};
    if (card && latent->index >= card->d_sae) {
      error(Code::index_out_of_range, latent->span,
            "latent " + std::to_string(latent->index) + " does not exist: the autoencoder has " +
                std::to_string(card->d_sae),
            {"the last is " + std::to_string(card->d_sae - 1)});
    }
  }
  if (sites.empty()) return;
  if (!declaration.choice) {
    bound_.feature_sites.back() = sites.front();
    return;
  }
  std::sort(sites.begin(), sites.end());
  sites.erase(std::unique(sites.begin(), sites.end()), sites.end());
  bound_.selections[bound_.feature_sites.size() - 1].candidates = sites;
  bound_.feature_sites.back() = sites.back();
}

const AutoencoderCard* Binder::autoencoder(const std::string& folder, dsl::Span span) {
  if (const auto known = bound_.autoencoders.find(folder); known != bound_.autoencoders.end()) return &known->second;
  if (refused_autoencoders_.contains(folder)) return nullptr;
  const std::size_t before = diagnostics_.size();
  try {
    auto card = read_autoencoder_card(folder);
    if (const auto why = misfit(card, card_); !why.empty()) error(Code::latent_site, span, why);
    if (diagnostics_.size() == before) return &bound_.autoencoders.emplace(folder, std::move(card)).first->second;
  } catch (const InputError& failure) {
    error(Code::unreadable_file, span, failure.what(),
          {"name a folder of SAELens, with cfg.json and sae_weights.safetensors"});
  }
  refused_autoencoders_.insert(folder);
  return nullptr;
}

namespace {

bool same_texts(const BoundPrompts& p, const BoundPrompts& q) {
  std::vector<std::string> of_p, of_q;
  for (const auto& prompt : p) of_p.push_back(prompt.text);
  for (const auto& prompt : q) of_q.push_back(prompt.text);
  std::sort(of_p.begin(), of_p.end());
  std::sort(of_q.begin(), of_q.end());
  return of_p == of_q;
}

/// Whether a comparison holds only at positions beyond `last`.
bool is_beyond(const dsl::PositionIs& position, std::int64_t last) {
  switch (position.op) {
    case dsl::Compare::greater:
      return position.value >= last;
    case dsl::Compare::greater_equal:
    case dsl::Compare::equal:
      return position.value > last;
    case dsl::Compare::less:
    case dsl::Compare::less_equal:
    case dsl::Compare::not_equal:
      return false;
  }
  return false;
}

}  // namespace

void Binder::construction(const dsl::FeatureDecl& declaration) {
  const auto id = static_cast<dsl::FeatureId>(&declaration - rules_.features.data());
  const std::int64_t width = card_.site_width(bound_.feature_sites[id]);
  if (const auto* neuron = std::get_if<dsl::Neuron>(&declaration.constructor)) {
    if (neuron->index >= width) {
      error(Code::index_out_of_range, neuron->span,
            "neuron " + std::to_string(neuron->index) + " does not exist: " + card_.name + " has " +
                std::to_string(width) + " at " + dsl::to_string(bound_.feature_sites[id]),
            {"the last neuron is " + std::to_string(width - 1)});
    }
  } else if (const auto* unembed = std::get_if<dsl::Unembed>(&declaration.constructor)) {
    single_token(unembed->plus, unembed->plus_span);
    if (unembed->minus) single_token(*unembed->minus, unembed->minus_span);
    if (width != card_.config.width) {
      error(Code::width_mismatch, declaration.site->span,
            "an `unembed` direction has the stream's width, " + std::to_string(card_.config.width) + "; " +
                dsl::to_string(*declaration.site) + " has " + std::to_string(width),
            {"build it at a site of the stream: final_norm, or resid_post[L]"});
    }
  } else if (const auto* stored = std::get_if<dsl::StoredDirection>(&declaration.constructor)) {
    stored_direction(*stored, width);
  } else if (const auto* component = std::get_if<dsl::Component>(&declaration.constructor)) {
    if (bad_.prompts.contains(component->prompts)) return;
    contrast_tokens(declaration, component->prompts);
    const std::int64_t most = std::min(std::ssize(bound_.prompts[component->prompts]) - 1, width);
    if (component->index > most && most >= 0) {
      error(Code::out_of_range, component->span,
            "component " + std::to_string(component->index) +
                " does not exist: " + std::to_string(bound_.prompts[component->prompts].size()) +
                " prompts vary along " + std::to_string(most) + " directions at most",
            {"give more prompts, or name an earlier component"});
    }
  } else if (!std::holds_alternative<dsl::Latent>(declaration.constructor) &&
             !std::holds_alternative<dsl::Subspace>(declaration.constructor)) {
    const auto built_from = [&](const dsl::TwoSided& of) {
      if (bad_.prompts.contains(of.p) || bad_.prompts.contains(of.q)) return;
      const std::size_t before = diagnostics_.size();
      contrast_tokens(declaration, of.p);
      contrast_tokens(declaration, of.q);
      if (of.p != of.q && same_texts(bound_.prompts[of.p], bound_.prompts[of.q])) {
        error(Code::same_sides, declaration.span, "both sides are the same prompts, so their difference is zero");
      }
      if (of.zero.kind == dsl::ZeroPoint::Kind::mean_of && !bad_.prompts.contains(of.zero.prompts))
        contrast_tokens(declaration, of.zero.prompts);
      if (of.whiten.kind == dsl::Whitening::Kind::covariance_of && !bad_.prompts.contains(of.whiten.prompts) &&
          bound_.prompts[of.whiten.prompts].empty()) {
        error(Code::empty_contrast, declaration.span, "a covariance over a set without prompts has no value");
      }
      if (declaration.choice && diagnostics_.size() == before) choice(declaration, of);
    };
    if (const auto* contrast = std::get_if<dsl::Contrast>(&declaration.constructor)) {
      built_from(*contrast);
    } else {
      built_from(std::get<dsl::Probe>(declaration.constructor));
    }
  }
}

/// What the choice of a site is made on: a pair of its own, or folds of the prompts that build the feature.
void Binder::choice(const dsl::FeatureDecl& declaration, const dsl::TwoSided& of) {
  const auto id = static_cast<dsl::FeatureId>(&declaration - rules_.features.data());
  if (const auto& on = declaration.choice->on) {
    for (const dsl::PromptsId set : {on->first, on->second}) {
      if (bad_.prompts.contains(set)) return;
      contrast_tokens(declaration, set);
      for (const dsl::PromptsId built : {of.p, of.q}) {
        std::set<std::vector<std::int64_t>> seen;
        for (const auto& prompt : bound_.prompts[built]) seen.insert(prompt.tokens);
        const auto& held = bound_.prompts[set];
        const auto shared =
            std::ranges::find_if(held, [&](const auto& prompt) { return seen.contains(prompt.tokens); });
        if (shared == held.end()) continue;
        error(Code::site_choice, declaration.choice->span,
              "\"" + shared->text + "\" builds the feature, so a choice on it would not be held out",
              {"choose on other prompts, or leave `on (…)` out: then the prompts that build it are cut into folds"});
        return;
      }
    }
    return;
  }
  constexpr std::int64_t kFewest = 4, kMostFolds = 5;
  std::int64_t folds = kMostFolds;
  for (const dsl::PromptsId set : {of.p, of.q}) {
    std::set<std::int64_t> clusters;
    for (const auto& prompt : bound_.prompts[set]) clusters.insert(prompt.cluster);
    folds = std::min(folds, std::ssize(clusters));
  }
  bound_.selections.at(id).folds = folds;
  if (folds >= kFewest) return;
  error(Code::site_choice, declaration.choice->span,
        "a side of feature " + quoted(declaration.name) + " has " + std::to_string(folds) +
            (folds == 1 ? " cluster" : " clusters") + " of prompts, too few to be cut into folds",
        {"give each side " + std::to_string(kFewest) +
         " or more, or choose on prompts of their own: select best on (P, Q)"});
}

void Binder::contrast_tokens(const dsl::FeatureDecl& declaration, dsl::PromptsId set) {
  if (bound_.prompts[set].empty()) {
    error(Code::empty_contrast, declaration.span,
          "feature " + quoted(declaration.name) + " is built from prompts of which there are none",
          {"give each side at least one prompt"});
    return;
  }
  for (const auto& prompt : bound_.prompts[set]) {
    const auto length = static_cast<std::int64_t>(prompt.tokens.size());
    const auto& token = declaration.token;
    std::int64_t position = length - 1;
    if (token.kind == dsl::TokenChoice::Kind::index) {
      position = token.index < 0 ? length + token.index : token.index;
      if (position < 0 || position >= length) {
        error(Code::prompt_too_short, declaration.span,
              "feature " + quoted(declaration.name) + " reads token " + std::to_string(token.index) + ", and \"" +
                  prompt.text + "\" has " + std::to_string(length),
              {"lengthen the prompt, or read `token last`"});
        return;
      }
    }
    if (position == 0) {
      error(Code::reads_sink, declaration.span,
            "feature " + quoted(declaration.name) + " reads position 0 of \"" + prompt.text +
                "\", the attention sink, which says little of the text",
            {"write prompts of two tokens or more, and read a later token"});
      return;
    }
  }
}

void Binder::stored_direction(const dsl::StoredDirection& stored, std::int64_t width) {
  try {
    const auto file = model::read_safetensors(stored.path);
    std::vector<std::string> names;
    for (const auto& tensor : file.tensors) {
      names.push_back(tensor.name);
      if (tensor.name != stored.tensor) continue;
      if (tensor.elements() != width) {
        error(Code::width_mismatch, stored.span,
              quoted(stored.tensor) + " has " + std::to_string(tensor.elements()) + " elements, and the site has " +
                  std::to_string(width));
      }
      return;
    }
    const auto near = dsl::nearest_name(stored.tensor, names);
    error(Code::unknown_tensor, stored.span, stored.path + " holds no tensor " + quoted(stored.tensor),
          {near ? "did you mean " + quoted(*near) + "?" : "it holds " + std::to_string(names.size()) + " tensors"});
  } catch (const InputError& failure) {
    error(Code::unreadable_file, stored.span, failure.what());
  }
}

void Binder::intervention(const dsl::Intervention& sentence) {
  const std::size_t errors_before = diagnostics_.size();
  for (const auto& spec : sentence.sites) site(spec);
  const auto is_bad = [&](dsl::FeatureId id) { return bad_.features.contains(id); };
  const auto read = sentence.condition ? dsl::features_read(*sentence.condition) : std::vector<dsl::FeatureId>{};
  const auto members = dsl::members_of(rules_.features[sentence.feature]);
  if (diagnostics_.size() != errors_before || is_bad(sentence.feature) || std::ranges::any_of(read, is_bad) ||
      std::ranges::any_of(members, is_bad))
    return;
  const std::int64_t width = direction_width(sentence.feature);
  const auto sites = bound_.sites_of(sentence);
  for (const auto& where : sites) {
    if (card_.site_width(where) == width) continue;
    error(Code::width_mismatch, sentence.span,
          "feature " + quoted(bound_.feature_name(sentence.feature)) + " has " + std::to_string(width) +
              " elements, and " + dsl::to_string(where) + " has " + std::to_string(card_.site_width(where)),
          {"name sites of the same width, or build the feature there"});
    return;
  }
  for (const dsl::FeatureId member : members) {
    if (direction_width(member) == width) continue;
    error(Code::width_mismatch, sentence.span,
          "feature " + quoted(bound_.feature_name(member)) + " has " + std::to_string(direction_width(member)) +
              " elements, and " + dsl::to_string(sites.front()) + " has " + std::to_string(width),
          {"only directions of one width span a subspace"});
    return;
  }
  if (!sentence.condition) return;
  const bool at_choice = sentence.sites.empty() && bound_.selections.contains(sentence.feature);
  acting_ = at_choice ? std::optional(sentence.feature) : std::nullopt;
  condition(*sentence.condition, at_choice ? bound_.possible_sites(sentence.feature) : sites, /*holds=*/true);
}

void Binder::condition(const dsl::Condition& condition, const std::vector<dsl::Site>& sites, bool holds) {
  std::visit(
      [&](const auto& node) {
        using Node = std::decay_t<decltype(node)>;
        if constexpr (std::is_same_v<Node, dsl::TokenIn>) {
          for (std::size_t i = 0; i < node.texts.size(); ++i) single_token(node.texts[i], node.spans[i]);
        } else if constexpr (std::is_same_v<Node, dsl::PositionIs>) {
          if (is_beyond({holds ? node.op : dsl::complement(node.op), node.value}, card_.config.context - 1)) {
            error(Code::never_holds, condition.span,
                  "this never holds: the model's context holds " + std::to_string(card_.config.context) +
                      " tokens, so the last position is " + std::to_string(card_.config.context - 1));
          }
        } else if constexpr (std::is_same_v<Node, dsl::Comparison>) {
          for (const auto* operand : {&node.left, &node.right}) {
            if (const auto* read = std::get_if<dsl::FeatureId>(operand)) read_order(*read, condition.span, sites);
            if (const auto* quantile = std::get_if<dsl::Quantile>(operand)) {
              if (bound_.prompts[quantile->prompts].empty() && !bad_.prompts.contains(quantile->prompts)) {
                error(Code::empty_contrast, condition.span, "a quantile over a set without prompts has no value");
              }
            }
          }
        } else if constexpr (std::is_same_v<Node, dsl::Any> || std::is_same_v<Node, dsl::Last> ||
                             std::is_same_v<Node, dsl::Not>) {
          this->condition(*node.of, sites, std::is_same_v<Node, dsl::Not> ? !holds : holds);
        } else if constexpr (std::is_same_v<Node, dsl::And> || std::is_same_v<Node, dsl::Or>) {
          for (const auto& part : node.of) this->condition(*part, sites, holds);
        }
      },
      condition.node);
}

void Binder::read_order(dsl::FeatureId feature, dsl::Span span, const std::vector<dsl::Site>& sites) {
  if (acting_ == feature) return;  // read and acting at one site, whichever is chosen
  for (const auto& where : sites) {
    for (const dsl::Site& read : bound_.possible_sites(feature)) {
      if (!dsl::reached_before(where, read)) continue;
      const std::string name = quoted(bound_.feature_name(feature));
      const bool open = bound_.selections.contains(feature) || acting_;
      error(Code::read_after_intervention, span,
            "feature " + name + (open ? " may be read at " : " is read at ") + dsl::to_string(read) +
                ", after this intervention at " + dsl::to_string(where),
            {open ? "choose among sites whose order is clear: all that it is read at up to those that it acts at"
                  : "move the intervention to " + dsl::to_string(read) + " or later, or read " +
                        bound_.feature_name(feature) + " at " + dsl::to_string(where) + " or earlier"});
      return;
    }
  }
}

const AutoencoderCard* Binder::autoencoder_of(dsl::FeatureId feature) const {
  const auto* latent = std::get_if<dsl::Latent>(&rules_.features[feature].constructor);
  return latent ? &bound_.autoencoders.at(latent->folder) : nullptr;
}

}  // namespace proviso::runtime
