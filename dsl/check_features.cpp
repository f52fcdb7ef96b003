// Features: what each constructor needs, and the one site where a feature is read.

#include <algorithm>
#include <iterator>
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
  const bool built = define_constructor(node.constructor, feature);
  sound &= built;
  if (node.select) sound &= define_choice(*node.select, node, feature);
  if (node.site) {
    feature.site = *node.site;
    sound &= check_feature_site(feature, node.constructor.name);
  } else if (built && std::holds_alternative<Subspace>(feature.constructor)) {
    sound &= take_members_site(feature, node.constructor);
  } else {
    sound &= node.constructor.name.text == "latent";  // of others, `parse` has said it
  }
  if (sound && std::holds_alternative<Subspace>(feature.constructor)) sound = check_members(feature, node.constructor);
  rule_set_.features[work.id] = std::move(feature);
  if (sound) sound_features_.insert(work.id);
}

bool Checker::define_constructor(const ast::Call& call, FeatureDecl& feature) {
  const std::string& name = call.name.text;
#define PROVISO_CONSTRUCTOR(Type, named) \
  if (name == #named) return define_##named(call, feature);
#include "dsl/constructors.def"
  const std::vector<std::string> names(std::begin(kConstructorNames), std::end(kConstructorNames));
  std::string all;
  for (std::size_t i = 0; i < names.size(); ++i)
    all += (i == 0 ? "" : i + 1 < names.size() ? ", " : " and ") + names[i];
  auto fixes = spelling_fix(call.name.span, name, names);
  report(Code::unknown_constructor, call.name.span, "no feature is built by `" + name + "`",
         {fixes.empty() ? "features are built by " + all : "did you mean `" + fixes.front().replacement + "`?"})
      .fixes = std::move(fixes);
  return false;
}

bool Checker::define_contrast(const ast::Call& call, FeatureDecl& feature) {
  return define_two_sided<Contrast>(call, feature);
}
bool Checker::define_probe(const ast::Call& call, FeatureDecl& feature) {
  return define_two_sided<Probe>(call, feature);
}

template <class Kind>
bool Checker::define_two_sided(const ast::Call& call, FeatureDecl& feature) {
  const auto given = arguments(call, {{"the prompts that have it"},
                                      {"the prompts that lack it"},
                                      {"zero", true, false},
                                      {"sink", true, false},
                                      {"whiten", true, false}});
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
  if (given->at(4) != nullptr) sound &= define_whitening(*given->at(4), contrast.whiten);
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

/// `whiten: sides`, `whiten: covariance(PROMPTS)`
bool Checker::define_whitening(const ast::Argument& argument, Whitening& whiten) {
  if (const auto* name = std::get_if<ast::Name>(&argument.value); name != nullptr && name->text == "sides") {
    whiten.kind = Whitening::Kind::sides;
    return true;
  }
  const auto* call = std::get_if<ast::Call>(&argument.value);
  if (call == nullptr || call->name.text != "covariance") {
    wrong_argument(argument, "`sides` or `covariance(PROMPTS)`");
    return false;
  }
  const auto given = arguments(*call, {{"the prompts whose positions say how activations vary"}});
  const auto set = given ? prompts(*given->at(0)) : std::nullopt;
  if (!set) return false;
  whiten = {Whitening::Kind::covariance_of, *set};
  if (!empty_sets_.contains(*set)) return true;
  report(Code::empty_contrast, given->at(0)->span, "there is no prompt to take the covariance over");
  return false;
}

/// `component(P, 1)`
bool Checker::define_component(const ast::Call& call, FeatureDecl& feature) {
  const auto given = arguments(
      call,
      {{"the prompts whose activations vary along it"}, {"the component's number, from 1"}, {"sink", true, false}});
  if (!given) return false;
  Component component;
  const auto set = prompts(*given->at(0));
  const auto index = whole(*given->at(1), "a component's number", {.low = 1});
  component.span = given->at(1)->span;
  if (given->at(2) != nullptr) component.keep_sink = word(*given->at(2), {"keep"}).has_value();
  if (!set || !index || (given->at(2) != nullptr && !component.keep_sink)) return false;
  component.prompts = *set;
  component.index = *index;
  feature.constructor = component;
  if (!empty_sets_.contains(*set)) return true;
  report(Code::empty_contrast, given->at(0)->span, "there is no prompt to build the feature from");
  return false;
}

/// `subspace(f, g)`: what its features are is looked at once they are all defined.
bool Checker::define_subspace(const ast::Call& call, FeatureDecl& feature) {
  Subspace subspace;
  bool sound = true;
  for (const ast::Argument& argument : call.arguments) {
    if (argument.label) {
      report(Code::unknown_argument, argument.label->span, "`subspace` has no named parameters");
      sound = false;
      continue;
    }
    const auto member = this->feature(argument);
    if (!member) {
      sound = false;
      continue;
    }
    if (std::find(subspace.members.begin(), subspace.members.end(), *member) != subspace.members.end()) {
      report(Code::subspace_members, argument.span,
             "`" + rule_set_.features[*member].name + "` stands twice in one subspace", {"name it once"});
      sound = false;
    }
    subspace.members.push_back(*member);
  }
  if (sound && subspace.members.size() < 2) {
    report(Code::subspace_members, call.span, "a subspace is spanned by two features or more",
           {"name them: subspace(f, g); one alone is a feature already"});
    sound = false;
  }
  if (sound) feature.constructor = std::move(subspace);
  return sound;
}

/// Members are directions, of the width of the subspace's site.
bool Checker::check_members(const FeatureDecl& feature, const ast::Call& call) {
  const auto& members = std::get<Subspace>(feature.constructor).members;
  bool sound = true;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const FeatureDecl* member = sound_feature(members[i]);
    if (member == nullptr) return false;  // which has been said
    const Span span = call.arguments[i].span;
    if (std::holds_alternative<Latent>(member->constructor) || std::holds_alternative<Subspace>(member->constructor)) {
      const bool latent = std::holds_alternative<Latent>(member->constructor);
      report(Code::subspace_members, span,
             "`" + member->name + "` is " +
                 (latent ? "a latent, whose activation is its encoder's and no direction's" : "a subspace itself"),
             {latent ? "suppress it in a sentence of its own" : "name the features that span it"});
      sound = false;
    } else if (width_name(*member->site) != width_name(*feature.site)) {
      report(Code::width_mismatch, span,
             "feature `" + member->name + "` has the width of " + width_name(*member->site) + ", and " +
                 to_string(*feature.site) + " that of " + width_name(*feature.site),
             {"only directions of one width span a subspace"});
      sound = false;
    }
  }
  return sound;
}

/// Without `at`, a subspace acts where all its features are read.
bool Checker::take_members_site(FeatureDecl& feature, const ast::Call& call) {
  const auto& members = std::get<Subspace>(feature.constructor).members;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const FeatureDecl* member = sound_feature(members[i]);
    if (member == nullptr) return false;
    if (!member->site) {
      feature.site = SiteSpec{};  // a latent, which `check_members` refuses
      return true;
    }
    if (i == 0) feature.site = *member->site;
    const bool same = overlap(*feature.site, *member->site) && covers(*feature.site, *member->site) &&
                      covers(*member->site, *feature.site);
    if (same && !member->choice) continue;
    report(Code::one_site, call.arguments[i].span,
           member->choice ? "where `" + member->name + "` is read is chosen on the model, so the subspace needs a site"
                          : "`" + member->name + "` is read at " + to_string(*member->site) + ", and `" +
                                rule_set_.features[members[0]].name + "` at " + to_string(*feature.site),
           {"say where the subspace acts: subspace(…) at resid_post[12]"});
    return false;
  }
  return true;
}

/// `select best`, `select best on (P, Q)`
bool Checker::define_choice(const ast::Select& node, const ast::Feature& declaration, FeatureDecl& feature) {
  SiteChoice choice{{}, node.span};
  feature.choice = choice;  // several sites are meant, whatever is wrong with the choice
  const std::string& constructor = declaration.constructor.name.text;
  if (constructor != "contrast" && constructor != "probe") {
    report(Code::site_choice, node.span,
           "the best site is the one that tells two sides apart best, and `" + constructor + "` is built from no two",
           {"name one site, or build the feature by contrast(P, Q) or probe(P, Q)"});
    return false;
  }
  if (node.on) {
    const auto p = prompts(node.on->first);
    const auto q = prompts(node.on->second);
    if (!p || !q) return false;
    for (const auto& [set, written] : {std::pair{*p, &node.on->first}, std::pair{*q, &node.on->second}}) {
      if (empty_sets_.contains(set)) {
        report(Code::empty_contrast, ast::span_of(*written), "there is no prompt to choose the site on");
        return false;
      }
      for (const PromptsId built : built_from(feature)) {
        if (!share_texts(rule_set_, built, set)) continue;
        report(Code::site_choice, ast::span_of(*written),
               "the feature is built from texts of this set, so a choice on it would not be held out",
               {"choose on other prompts, or leave `on (…)` out: then the prompts that build it are cut into folds"});
        return false;
      }
    }
    if (*p == *q) {
      report(Code::same_sides, ast::span_of(node.on->second),
             "both sides are the same prompts, which nothing can tell apart");
      return false;
    }
    choice.on = {*p, *q};
  }
  feature.choice = choice;
  return true;
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
  const bool one_layer = !site_has_layer(site.kind) || one(site.layers);
  const bool one_head = !site.heads || one(*site.heads);
  if (feature.choice && one_layer && one_head) {
    report(Code::site_choice, feature.choice->span, to_string(site) + " is one site, so there is none to choose",
           {"leave `select best` out, or name several: resid_post[8..20]"});
    return false;
  }
  if (!feature.choice && !one_layer) {
    std::vector<std::string> help{
        "declare a feature for each layer, or keep one and act elsewhere: suppress F at mlp_out[*]"};
    if (constructor.text == "contrast" || constructor.text == "probe")
      help.push_back("or have the best layer chosen on held-out prompts: at " + to_string(site) + " select best");
    report(Code::one_site, site.span, "a feature is read at one site, in one layer", std::move(help));
    return false;
  }
  if (!feature.choice && !one_head) {
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
  std::vector<PromptsId> sets;
  const auto sides = [&](const TwoSided& of) {
    sets = {of.p, of.q};
    if (of.zero.kind == ZeroPoint::Kind::mean_of) sets.push_back(of.zero.prompts);
    if (of.whiten.kind == Whitening::Kind::covariance_of) sets.push_back(of.whiten.prompts);
  };
  if (const auto* contrast = std::get_if<Contrast>(&feature.constructor)) sides(*contrast);
  if (const auto* probe = std::get_if<Probe>(&feature.constructor)) sides(*probe);
  if (const auto* component = std::get_if<Component>(&feature.constructor)) sets = {component->prompts};
  if (feature.choice && feature.choice->on) {
    sets.push_back(feature.choice->on->first);
    sets.push_back(feature.choice->on->second);
  }
  return sets;
}

}  // namespace proviso::dsl
