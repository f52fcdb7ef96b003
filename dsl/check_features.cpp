// Features: what each constructor needs, and the one site where a feature is read.

#include <algorithm>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/site_reach.hpp"

namespace proviso::dsl {

void Checker::define_feature(const Work<ast::Feature>& work) {
  module_ = work.module;
  const ast::Feature& node = work.node();
  FeatureDecl feature = rule_set_.features[work.id];
  bool sound = true;
  if (node.token) {
    feature.token = node.token->choice;
    if (feature.token.kind == TokenChoice::Kind::index && feature.token.index == 0) {
      report(Code::reads_sink, node.token->span, "token 0 is the attention sink, where no feature is read",
             {"name a later token, or `token last`"});
      sound = false;
    }
  }
  sound &= define_constructor(node.constructor, feature);
  if (node.site) {
    feature.site = *node.site;
    sound &= check_feature_site(feature, node.constructor.name);
  } else {
    sound &= node.constructor.name.text == "latent";  // of others, `parse` has said it
  }
  rule_set_.features[work.id] = std::move(feature);
  if (sound) sound_features_.insert(work.id);
}

bool Checker::define_constructor(const ast::Call& call, FeatureDecl& feature) {
  const std::string& name = call.name.text;
  if (name == "contrast") return define_contrast<Contrast>(call, feature);
  if (name == "probe") return define_contrast<Probe>(call, feature);
  if (name == "direction") return define_direction(call, feature);
  if (name == "unembed") return define_unembed(call, feature);
  if (name == "neuron") return define_neuron(call, feature);
  if (name == "latent") return define_latent(call, feature);
  auto fixes = spelling_fix(call.name.span, name, {"contrast", "probe", "direction", "unembed", "neuron", "latent"});
  report(Code::unknown_constructor, call.name.span, "no feature is built by `" + name + "`",
         {fixes.empty() ? "features are built by contrast, probe, direction, unembed, neuron and latent"
                        : "did you mean `" + fixes.front().replacement + "`?"})
      .fixes = std::move(fixes);
  return false;
}

template <class Kind>
bool Checker::define_contrast(const ast::Call& call, FeatureDecl& feature) {
  const auto given = arguments(
      call, {{"the prompts that have it"}, {"the prompts that lack it"}, {"zero", true, false}, {"sink", true, false}});
  if (!given) return false;
  const auto p = prompts(*given->at(0));
  const auto q = prompts(*given->at(1));
  Kind contrast;
  bool sound = p && q;
  if (given->at(2) != nullptr) sound &= define_zero(*given->at(2), contrast.zero);
  if (given->at(3) != nullptr) {
    contrast.keep_sink = word(*given->at(3), {"keep"}).has_value();
    sound &= contrast.keep_sink;
  }
  if (!p || !q) return false;
  contrast.p = *p;
  contrast.q = *q;
  for (const std::size_t side : {0, 1}) {
    if (!empty_sets_.contains(side == 0 ? *p : *q)) continue;
    report(Code::empty_contrast, given->at(side)->span, "there is no prompt to build the feature from");
    sound = false;
  }
  if (*p == *q) {
    report(Code::same_sides, given->at(1)->span, "both sides are the same prompts, so their difference is zero",
           {"compare with prompts that lack what the feature should mean"});
    sound = false;
  }
  feature.constructor = contrast;
  return sound;
}

/// `zero: midpoint`, `zero: origin`, `zero: mean(PROMPTS)`
bool Checker::define_zero(const ast::Argument& argument, ZeroPoint& zero) {
  const auto* call = std::get_if<ast::Call>(&argument.value);
  if (call == nullptr || call->name.text != "mean") {
    const auto* name = std::get_if<ast::Name>(&argument.value);
    if (name != nullptr && name->text == "midpoint") {
      zero.kind = ZeroPoint::Kind::midpoint;
    } else if (name != nullptr && name->text == "origin") {
      zero.kind = ZeroPoint::Kind::origin;
    } else {
      wrong_argument(argument, "`midpoint`, `origin` or `mean(PROMPTS)`");
      return false;
    }
    return true;
  }
  const auto given = arguments(*call, {{"the prompts where the feature should be 0"}});
  const auto set = given ? prompts(*given->at(0)) : std::nullopt;
  if (!set) return false;
  zero = {ZeroPoint::Kind::mean_of, *set};
  if (!empty_sets_.contains(*set)) return true;
  report(Code::empty_contrast, given->at(0)->span, "there is no prompt to take the mean over");
  return false;
}

bool Checker::define_direction(const ast::Call& call, FeatureDecl& feature) {
  const auto given = arguments(
      call, {{"the path of a safetensors file"}, {"tensor", true}, {"offset", true, false}, {"scale", true, false}});
  if (!given) return false;
  StoredDirection direction;
  direction.span = given->at(0)->span;
  const auto tensor = text(*given->at(1), "the tensor's name");
  const auto* file = std::get_if<ast::String>(&given->at(0)->value);
  if (file == nullptr) wrong_argument(*given->at(0), "the path of a safetensors file, as a text,");
  const auto opened = file != nullptr ? path(*file) : std::nullopt;
  const auto calibration = [&](const ast::Argument* argument, const std::string& what, Limits limits, double& into) {
    if (argument == nullptr) return true;
    const auto value = number(*argument, what, limits);
    if (value) into = *value;
    return value.has_value();
  };
  const bool calibrated =
      calibration(given->at(2), "`offset`", {}, direction.offset) &&
      calibration(given->at(3), "`scale`", {.low = std::numeric_limits<double>::min()}, direction.scale);
  if (!tensor || !opened || !calibrated) return false;
  direction.path = *opened;
  direction.tensor = *tensor;
  feature.constructor = std::move(direction);
  return true;
}

bool Checker::define_unembed(const ast::Call& call, FeatureDecl& feature) {
  const auto given = arguments(call, {{"the text of a token"}});
  if (!given) return false;
  const ast::Argument& argument = *given->at(0);
  Unembed unembed;
  unembed.plus_span = argument.span;
  if (const auto* difference = std::get_if<ast::TokenDifference>(&argument.value)) {
    const auto plus = non_empty(difference->plus, "this token");
    const auto minus = non_empty(difference->minus, "this token");
    if (!plus || !minus) return false;
    if (*plus == *minus) {
      report(Code::same_sides, difference->span, "a token's direction less itself is zero",
             {"name two different tokens"});
      return false;
    }
    unembed.plus = *plus;
    unembed.plus_span = difference->plus.span;
    unembed.minus = *minus;
    unembed.minus_span = difference->minus.span;
  } else if (const auto token = text(argument, "this token")) {
    unembed.plus = *token;
  } else {
    return false;
  }
  feature.constructor = std::move(unembed);
  return true;
}

bool Checker::define_neuron(const ast::Call& call, FeatureDecl& feature) {
  const auto given = arguments(call, {{"the neuron's index"}});
  if (!given) return false;
  const auto index = whole(*given->at(0), "a neuron's index", {.low = 0});
  if (!index) return false;
  feature.constructor = Neuron{*index, given->at(0)->span};
  return true;
}

bool Checker::define_latent(const ast::Call& call, FeatureDecl& feature) {
  const auto given = arguments(call, {{"the latent's index"}, {"sae", true}});
  if (!given) return false;
  const auto index = whole(*given->at(0), "a latent's index", {.low = 0});
  const auto folder = autoencoder(*given->at(1));
  if (!index || !folder) return false;
  feature.constructor = Latent{*index, *folder, given->at(0)->span, given->at(1)->span};
  return true;
}

std::optional<std::string> Checker::autoencoder(const ast::Argument& argument) {
  const auto* folder = std::get_if<ast::String>(&argument.value);
  if (folder == nullptr) {
    wrong_argument(argument, "the folder of a sparse autoencoder, as a text,");
    return std::nullopt;
  }
  return path(*folder);
}

bool Checker::check_feature_site(const FeatureDecl& feature, const ast::Name& constructor) {
  const SiteSpec& site = *feature.site;
  if (site.kind == SiteKind::logits || site.kind == SiteKind::pattern) {
    report(Code::site_without_features, site.span, "no feature is read at " + std::string(site_name(site.kind)),
           {site.kind == SiteKind::logits
                ? "a token's logit is read before the unembedding: unembed(\" word\") at final_norm"
                : "the pattern's width changes with the text; read what the heads write: z[L] head H"});
    return false;
  }
  const auto one = [](const IndexSet& set) {
    return !set.all && set.ranges.size() == 1 && set.ranges[0].first == set.ranges[0].last;
  };
  if (site_has_layer(site.kind) && !one(site.layers)) {
    report(Code::one_site, site.span, "a feature is read at one site, in one layer",
           {"declare a feature for each layer, or keep one and act elsewhere: suppress F at mlp_out[*]"});
    return false;
  }
  if (site.heads && !one(*site.heads)) {
    report(Code::one_site, site.span, "a feature is read at one head, or at all of them together",
           {"leave `head` out to read all heads, concatenated"});
    return false;
  }
  if (constructor.text == "neuron" && site.kind != SiteKind::mlp_post) {
    report(Code::neuron_site, site.span,
           "neurons are read at mlp_post[L], not at " + std::string(site_name(site.kind)));
    return false;
  }
  if (constructor.text == "unembed" && site_width(site.kind) != SiteWidth::stream) {
    report(Code::width_mismatch, site.span,
           "a token's direction has the width of the stream, and " + to_string(site) + " has another",
           {"read it at final_norm, resid_post[L], mlp_out[L] or attn_out[L]"});
    return false;
  }
  return true;
}

std::vector<PromptsId> built_from(const FeatureDecl& feature) {
  const auto sides = [](const auto& contrast) -> std::vector<PromptsId> {
    std::vector<PromptsId> sets{contrast.p, contrast.q};
    if (contrast.zero.kind == ZeroPoint::Kind::mean_of) sets.push_back(contrast.zero.prompts);
    return sets;
  };
  if (const auto* contrast = std::get_if<Contrast>(&feature.constructor)) return sides(*contrast);
  if (const auto* probe = std::get_if<Probe>(&feature.constructor)) return sides(*probe);
  return {};
}

}  // namespace proviso::dsl
