// Metrics: their arguments, and what they can be measured on.

#include <algorithm>
#include <cctype>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/condition_logic.hpp"
#include "dsl/format.hpp"
#include "dsl/metric_traits.hpp"
#include "dsl/site_reach.hpp"

namespace proviso::dsl {
namespace {

template <class Node>
Metric made(const ast::Call& call, Node node) {
  return {std::move(node), canonical_text(call), call.span};
}

}  // namespace

std::optional<Metric> Checker::metric(const ast::Call& call) {
  using Read = std::optional<Metric> (Checker::*)(const ast::Call&);
  static const std::map<std::string, Read> kMetrics = {
      {"probability", &Checker::continuation},
      {"rank", &Checker::continuation},
      {"logit_diff", &Checker::logit_diff},
      {"accuracy", &Checker::over_prompts},
      {"rate", &Checker::rate},
      {"perplexity", &Checker::over_prompts},
      {"perplexity_rise", &Checker::over_prompts},
      {"kl", &Checker::over_prompts},
      {"mean", &Checker::over_positions},
      {"max", &Checker::over_positions},
      {"firing_rate", &Checker::firing_rate},
      {"auroc", &Checker::auroc},
      {"cosine", &Checker::cosine},
      {"effect", &Checker::effect},
      {"efficacy", &Checker::of_edit},
      {"paraphrase", &Checker::of_edit},
      {"specificity", &Checker::of_edit},
      {"loss_recovered", &Checker::loss_recovered},
      {"sparse_probing", &Checker::of_two_sides},
      {"absorption", &Checker::of_two_sides},
      {"tpp", &Checker::of_classes},
      {"scr", &Checker::of_classes},
      {"faithfulness", &Checker::of_circuit},
      {"completeness", &Checker::of_circuit},
      {"minimality", &Checker::of_circuit},
      {"stability", &Checker::of_circuit},
      {"overlap", &Checker::of_circuits},
  };

  const std::string& name = call.name.text;
  if (const auto found = kMetrics.find(name); found != kMetrics.end()) return (this->*found->second)(call);
  std::vector<std::string> names;
  for (const auto& [known, read] : kMetrics) names.push_back(known);
  auto fixes = spelling_fix(call.name.span, name, names);
  std::vector<std::string> help;
  if (!fixes.empty()) {
    help.push_back("did you mean `" + fixes.front().replacement + "`?");
  } else {
    std::sort(names.begin(), names.end());
    std::string all;
    for (const std::string& each : names) all += (all.empty() ? "" : ", ") + each;
    help.push_back("the metrics are " + all);
  }
  report(Code::unknown_metric, call.name.span, "no metric is called `" + name + "`", std::move(help)).fixes =
      std::move(fixes);
  return std::nullopt;
}

// ---- of what the model says ------------------------------------------------------------------

/// `probability(TEXT, after: P)`, `rank(TEXT, after: P)`
std::optional<Metric> Checker::continuation(const ast::Call& call) {
  const auto given = arguments(call, {{"the text of a continuation"}, {"after", true}});
  if (!given) return std::nullopt;
  const auto continued = text(*given->at(0), "the continuation");
  const auto after = prompts(*given->at(1));
  if (!continued || !after) return std::nullopt;
  if (call.name.text == "rank") return made(call, metric::Rank{*continued, *after, given->at(0)->span});
  return made(call, metric::Probability{*continued, *after, given->at(0)->span});
}

std::optional<Metric> Checker::logit_diff(const ast::Call& call) {
  const auto given = arguments(call, {{"the text of a token"}, {"the text of another token"}, {"after", true}});
  if (!given) return std::nullopt;
  const auto a = text(*given->at(0), "this token");
  const auto b = text(*given->at(1), "this token");
  const auto after = prompts(*given->at(2));
  if (!a || !b || !after) return std::nullopt;
  if (*a == *b) {
    report(Code::same_sides, given->at(1)->span, "a token's logit less itself is zero", {"name two different tokens"});
    return std::nullopt;
  }
  return made(call, metric::LogitDiff{*a, *b, *after, given->at(0)->span, given->at(1)->span});
}

/// `accuracy(P)`, `perplexity(P)`, `perplexity_rise(P)`, `kl(P)`
std::optional<Metric> Checker::over_prompts(const ast::Call& call) {
  const auto given = arguments(call, {{"a set of prompts"}});
  const auto set = given ? prompts(*given->at(0)) : std::nullopt;
  if (!set) return std::nullopt;
  const std::string& name = call.name.text;
  if (name == "perplexity") return made(call, metric::Perplexity{*set});
  if (name == "perplexity_rise") return made(call, metric::PerplexityRise{*set});
  if (name == "kl") return made(call, metric::Kl{*set});
  if (!require_answers(*set, given->at(0)->span, name)) return std::nullopt;
  return made(call, metric::Accuracy{*set});
}

/// `loss_recovered("sae", P)`
std::optional<Metric> Checker::loss_recovered(const ast::Call& call) {
  const auto given = arguments(call, {{"the folder of a sparse autoencoder"}, {"a set of prompts"}});
  if (!given) return std::nullopt;
  const auto folder = autoencoder(*given->at(0));
  const auto set = prompts(*given->at(1));
  if (!folder || !set) return std::nullopt;
  return made(call, metric::LossRecovered{*folder, *set, given->at(0)->span});
}

/// `sparse_probing("sae", P, Q, k: 1)`, `absorption("sae", P, Q, k: 1)`
std::optional<Metric> Checker::of_two_sides(const ast::Call& call) {
  const auto given = arguments(call, {{"the folder of a sparse autoencoder"},
                                      {"the prompts that have it"},
                                      {"the prompts that lack it"},
                                      {"k", true, false}});
  if (!given) return std::nullopt;
  const auto folder = autoencoder(*given->at(0));
  const auto p = prompts(*given->at(1));
  const auto q = prompts(*given->at(2));
  std::int64_t k = 1;
  if (given->at(3) != nullptr) {
    const auto count = whole(*given->at(3), "`k`", {.low = 1});
    if (!count) return std::nullopt;
    k = *count;
  }
  if (!folder || !p || !q) return std::nullopt;
  if (*p == *q) {
    report(Code::same_sides, given->at(2)->span, "both sides are the same prompts, which nothing can tell apart");
    return std::nullopt;
  }
  if (call.name.text == "absorption") return made(call, metric::Absorption{*folder, *p, *q, k, given->at(0)->span});
  return made(call, metric::SparseProbing{*folder, *p, *q, k, given->at(0)->span});
}

/// `tpp("sae", P, Q, R, k: 10)`, `scr("sae", P, Q, R, S, k: 10)`
std::optional<Metric> Checker::of_classes(const ast::Call& call) {
  const bool scr = call.name.text == "scr";
  constexpr std::size_t kMostClasses = 32;
  // How many sets there are is known from the call alone.
  ast::Call named = call;
  std::vector<ast::Argument> classes;
  std::erase_if(named.arguments, [&](const ast::Argument& argument) {
    const bool is_class = !argument.label && &argument - named.arguments.data() > 0;
    if (is_class) classes.push_back(argument);
    return is_class;
  });
  const auto given = arguments(named, {{"the folder of a sparse autoencoder"}, {"k", true, false}});
  if (!given) return std::nullopt;
  const std::size_t fewest = scr ? 4 : 3;
  if (classes.size() < fewest || classes.size() > (scr ? fewest : kMostClasses)) {
    report(
        classes.size() < fewest ? Code::missing_argument : Code::surplus_argument, call.span,
        scr ? "`scr` needs four sets of prompts: what is wanted with and without what is spurious, then what is not "
              "wanted with and without it"
            : "`tpp` needs three sets of prompts or more, a class each (" + std::to_string(kMostClasses) + " at most)",
        {scr ? "scr(\"sae\", nurse_she, nurse_he, doctor_she, doctor_he)"
             : "tpp(\"sae\", sport, science, politics); of two classes, measure sparse_probing"});
    return std::nullopt;
  }
  const auto folder = autoencoder(*given->at(0));
  std::int64_t k = 10;
  bool sound = folder.has_value();
  if (given->at(1) != nullptr) {
    const auto count = whole(*given->at(1), "`k`", {.low = 1});
    sound &= count.has_value();
    k = count.value_or(k);
  }
  std::vector<PromptsId> sets;
  for (const ast::Argument& argument : classes) {
    const auto set = prompts(argument);
    if (!set) return std::nullopt;
    if (std::find(sets.begin(), sets.end(), *set) != sets.end()) {
      report(Code::same_sides, argument.span, "two classes are the same prompts, which nothing can tell apart");
      return std::nullopt;
    }
    sets.push_back(*set);
  }
  if (!sound) return std::nullopt;
  if (scr) return made(call, metric::Scr{*folder, std::move(sets), k, given->at(0)->span});
  return made(call, metric::Tpp{*folder, std::move(sets), k, given->at(0)->span});
}

std::optional<Metric> Checker::rate(const ast::Call& call) {
  const auto given = arguments(call, {{"a set of prompts"},
                                      {"generates", true},
                                      {"tokens", true, false},
                                      {"samples", true, false},
                                      {"temperature", true, false}});
  if (!given) return std::nullopt;
  const auto set = prompts(*given->at(0));
  const auto* pattern = std::get_if<ast::Regex>(&given->at(1)->value);
  if (pattern == nullptr) {
    Diagnostic& wrong = wrong_argument(*given->at(1), "a regular expression (/…/)");
    const auto* words = std::get_if<ast::String>(&given->at(1)->value);
    const auto is_plain = [](unsigned char c) { return std::isalnum(c) != 0 || c == ' '; };
    if (words != nullptr && !words->value.empty() && std::all_of(words->value.begin(), words->value.end(), is_plain)) {
      wrong.fixes.push_back({words->span, "/" + words->value + "/"});
    }
  }
  const auto generates = pattern != nullptr ? regex(*pattern) : std::nullopt;
  bool sound = set && generates;

  metric::Rate result;
  const auto settle = [&](const auto& value, auto& into) {
    if (value) into = *value;
    sound &= value.has_value();
  };
  if (given->at(2) != nullptr) settle(whole(*given->at(2), "`tokens`", {.low = 1, .high = 1e6}), result.tokens);
  if (given->at(3) != nullptr) settle(whole(*given->at(3), "`samples`", {.low = 1, .high = 1000}), result.samples);
  if (given->at(4) != nullptr) settle(number(*given->at(4), "`temperature`", {.low = 0}), result.temperature);
  if (sound && result.samples > 1 && result.temperature == 0) {
    report(Code::greedy_samples, given->at(3)->span, "greedy generation gives every sample the same text",
           {"add temperature: 1, or leave `samples` out"});
    sound = false;
  }
  if (!sound) return std::nullopt;
  result.prompts = *set;
  result.regex = *generates;
  return made(call, std::move(result));
}

// ---- of features -----------------------------------------------------------------------------

/// `mean(F, on: P)`, `max(F, on: P)`
std::optional<Metric> Checker::over_positions(const ast::Call& call) {
  const auto given = arguments(call, {{"a feature"}, {"on", true}});
  if (!given) return std::nullopt;
  const auto measured = read_feature(feature(*given->at(0)), given->at(0)->span);
  const auto on = prompts(*given->at(1));
  if (!measured || !on) return std::nullopt;
  check_training(*measured, {*on}, call.span, Code::measured_on_training);
  if (call.name.text == "mean") return made(call, metric::Mean{*measured, *on});
  return made(call, metric::Max{*measured, *on});
}

std::optional<FeatureId> Checker::read_feature(std::optional<FeatureId> id, Span span) {
  if (!id || !std::holds_alternative<Subspace>(rule_set_.features[*id].constructor)) return id;
  report(Code::subspace_activation, span,
         "subspace `" + rule_set_.features[*id].name + "` has no activation of its own to be read",
         {"read one of the features that span it"});
  return std::nullopt;
}

std::optional<Metric> Checker::firing_rate(const ast::Call& call) {
  const auto given = arguments(call, {{"a comparison of a feature, as `anger > 0.5`"}, {"on", true}});
  if (!given) return std::nullopt;
  const auto on = prompts(*given->at(1));
  const auto* fires = std::get_if<ast::Comparison>(&given->at(0)->value);
  const bool single = fires != nullptr && fires->links.size() == 1;
  const bool mirrors = single && std::holds_alternative<ast::Number>(fires->left);  // `0.5 < anger`
  const auto* name = single ? std::get_if<ast::Name>(mirrors ? &fires->links.front().right : &fires->left) : nullptr;
  const auto* threshold =
      single ? std::get_if<ast::Number>(mirrors ? &fires->left : &fires->links.front().right) : nullptr;
  if (name == nullptr || threshold == nullptr) {
    wrong_argument(*given->at(0), "one comparison of a feature with a number, as `anger > 0.5`,");
    return std::nullopt;
  }
  const Compare op = mirrors ? mirrored(fires->links.front().op) : fires->links.front().op;
  if (op == Compare::equal || op == Compare::not_equal) {
    report(Code::feature_equality, fires->span,
           "features are compared by < <= > >=: an activation never equals a number exactly");
    return std::nullopt;
  }
  const auto measured = read_feature(find_id(SymbolKind::feature, *name), name->span);
  if (!measured || !on) return std::nullopt;
  check_training(*measured, {*on}, call.span, Code::measured_on_training);
  return made(call, metric::FiringRate{*measured, op, threshold->value, *on});
}

std::optional<Metric> Checker::auroc(const ast::Call& call) {
  const auto given =
      arguments(call, {{"a feature"}, {"the prompts that should score high"}, {"the prompts that should score low"}});
  if (!given) return std::nullopt;
  const auto measured = read_feature(feature(*given->at(0)), given->at(0)->span);
  const auto p = prompts(*given->at(1));
  const auto q = prompts(*given->at(2));
  if (!measured || !p || !q) return std::nullopt;
  check_training(*measured, {*p, *q}, call.span, Code::auroc_on_training);
  if (*p == *q) {
    report(Code::same_sides, given->at(2)->span, "both sides are the same prompts, which nothing can tell apart");
    return std::nullopt;
  }
  return made(call, metric::Auroc{*measured, *p, *q});
}

std::optional<Metric> Checker::cosine(const ast::Call& call) {
  const auto given = arguments(call, {{"a feature"}, {"another feature"}});
  if (!given) return std::nullopt;
  const auto f = read_feature(feature(*given->at(0)), given->at(0)->span);
  const auto g = read_feature(feature(*given->at(1)), given->at(1)->span);
  if (!f || !g) return std::nullopt;
  const FeatureDecl *one = sound_feature(*f), *other = sound_feature(*g);
  const bool known = one != nullptr && other != nullptr && one->site && other->site;
  if (known && width_name(*one->site) != width_name(*other->site)) {
    report(Code::width_mismatch, given->at(1)->span,
           "feature `" + other->name + "` has the width of " + width_name(*other->site) + ", and `" + one->name +
               "` that of " + width_name(*one->site),
           {"only directions of one width make an angle"});
    return std::nullopt;
  }
  return made(call, metric::Cosine{*f, *g});
}

void Checker::check_training(FeatureId id, std::initializer_list<PromptsId> sets, Span span, Code code) {
  const FeatureDecl* feature = sound_feature(id);
  if (feature == nullptr) return;
  for (const PromptsId built : built_from(*feature)) {
    for (const PromptsId measured : sets) {
      if (!share_texts(rule_set_, built, measured)) continue;
      diagnostics_.push_back(built_from_these(code, span, *feature, rule_set_.prompts[measured]));
      return;
    }
  }
}

Diagnostic built_from_these(Code code, Span span, const FeatureDecl& feature, const PromptsDecl& measured) {
  return make_diagnostic(code, span,
                         "feature `" + feature.name + "` was built from " +
                             (measured.name.empty() ? "prompts measured here" : "texts of `" + measured.name + "`"),
                         {"measure it on prompts that it has not seen"});
}

// ---- of changes ------------------------------------------------------------------------------

std::optional<Change> Checker::change(const ast::Argument& argument) {
  if (const auto* node = std::get_if<ast::Patch>(&argument.value)) {
    auto read = patch(*node);
    return read ? std::optional<Change>(std::move(*read)) : std::nullopt;
  }
  if (const auto* node = std::get_if<ast::Intervention>(&argument.value)) {
    if (node->circuit) {
      auto read = circuit_suppression(*node);
      return read ? std::optional<Change>(std::move(*read)) : std::nullopt;
    }
    auto read = intervention(*node);
    return read ? std::optional<Change>(std::move(*read)) : std::nullopt;
  }
  if (const auto* node = std::get_if<ast::RuleRef>(&argument.value)) {
    const auto id = find_id(SymbolKind::rule, node->rule);
    return id ? std::optional<Change>(ChangeRule{*id}) : std::nullopt;
  }
  if (const auto* node = std::get_if<ast::EditRef>(&argument.value)) {
    const auto id = find_id(SymbolKind::edit, node->edit);
    return id ? std::optional<Change>(ChangeEdit{*id}) : std::nullopt;
  }
  wrong_argument(argument, "a change (an intervention, a patch, `rule R` or `edit E`)");
  return std::nullopt;
}

std::optional<Metric> Checker::effect(const ast::Call& call) {
  const auto given = arguments(call, {{"a change (an intervention, a patch, `rule R` or `edit E`)"},
                                      {"on", true},
                                      {"control", true, false},
                                      {"path", true, false}});
  if (!given) return std::nullopt;
  metric::Effect effect;
  auto changed = change(*given->at(0));
  std::optional<Metric> on;
  if (const auto* inner = std::get_if<ast::Call>(&given->at(1)->value)) {
    on = metric(*inner);
  } else {
    wrong_argument(*given->at(1), "a metric, as `rate(P, generates: /…/)`,");
  }
  bool sound = changed && on;
  if (on &&
      (std::holds_alternative<metric::Cosine>(on->node) || std::holds_alternative<metric::Effect>(on->node) ||
       std::holds_alternative<metric::Efficacy>(on->node) || std::holds_alternative<metric::Paraphrase>(on->node) ||
       std::holds_alternative<metric::Specificity>(on->node) ||
       std::holds_alternative<metric::LossRecovered>(on->node) ||
       std::holds_alternative<metric::SparseProbing>(on->node) ||
       std::holds_alternative<metric::Absorption>(on->node) || std::holds_alternative<metric::Tpp>(on->node) ||
       std::holds_alternative<metric::Scr>(on->node) || std::holds_alternative<metric::Faithfulness>(on->node) ||
       std::holds_alternative<metric::Completeness>(on->node) || std::holds_alternative<metric::Minimality>(on->node) ||
       std::holds_alternative<metric::Stability>(on->node) || std::holds_alternative<metric::Overlap>(on->node))) {
    const std::string& name = std::get<ast::Call>(given->at(1)->value).name.text;
    report(Code::effect_metric, given->at(1)->span, "no effect can be measured on `" + name + "`",
           {name == "cosine" ? "the directions of features do not change with the model's activations"
                             : "measure one on a metric of the model's behaviour, as rate or logit_diff"});
    sound = false;
  }
  if (given->at(2) != nullptr) {
    const auto controls = whole(*given->at(2), "`control`", {.low = 2, .high = 10'000});
    if (controls) effect.controls = *controls;
    sound &= controls.has_value();
  }
  if (given->at(3) != nullptr) sound &= effect_path(*given->at(3), effect, changed);
  if (!sound) return std::nullopt;
  effect.change = std::move(*changed);
  effect.on = std::make_shared<const Metric>(std::move(*on));
  return made(call, std::move(effect));
}

/// `path: direct`: only what is added to the stream has a path of its own to the logits.
bool Checker::effect_path(const ast::Argument& argument, metric::Effect& effect, const std::optional<Change>& change) {
  const auto path = word(argument, {"total", "direct"});
  if (!path) return false;
  effect.direct = *path == "direct";
  if (!effect.direct || !change) return true;
  const auto* patch = std::get_if<Patch>(&*change);
  const auto adds = [](const SiteSpec& site) {
    return site.kind == SiteKind::embed || site.kind == SiteKind::attn_out || site.kind == SiteKind::mlp_out ||
           site.kind == SiteKind::z;
  };
  if (patch != nullptr && !patch->feature && std::all_of(patch->sites.begin(), patch->sites.end(), adds)) return true;
  report(Code::patch_path, argument.span, "only what is added to the stream has a direct path to the logits",
         {"patch what heads and MLPs write: patch z[9] head 3, attn_out[*], mlp_out[*] or embed"});
  return false;
}

std::optional<Patch> Checker::patch(const ast::Patch& node) {
  Patch result;
  result.text = canonical_text(node);
  result.span = node.span;
  bool sound = true;
  if (const auto* call = std::get_if<ast::Call>(&node.source)) {
    if (call->name.text != "mean") {
      report(Code::unknown_argument, call->name.span, "nothing is patched from `" + call->name.text + "`",
             {"patch from a prompt set, from zero, from mean(P), or from resample"});
      return std::nullopt;
    }
    const auto given = arguments(*call, {{"a set of prompts"}});
    const auto set = given ? prompts(*given->at(0)) : std::nullopt;
    if (!set) return std::nullopt;
    result.source = Patch::Source::mean;
    result.from = *set;
  } else if (const auto* list = std::get_if<ast::PromptList>(&node.source)) {
    result.from = anonymous(*list);
  } else {
    const auto& name = std::get<ast::Name>(node.source);
    const bool declared = module_->scope.contains({SymbolKind::prompts, name.text});
    if (!declared && (name.text == "zero" || name.text == "resample")) {
      result.source = name.text == "zero" ? Patch::Source::zero : Patch::Source::resample;
    } else {
      const auto set = prompts(name);
      if (!set) return std::nullopt;
      result.from = *set;
    }
  }
  if (node.feature) {
    const auto id = find_id(SymbolKind::feature, *node.feature);
    if (!id || sound_feature(*id) == nullptr) return std::nullopt;
    result.feature = *id;
  }
  if (result.source == Patch::Source::resample && perturbed(node.span)) sound = false;
  result.sites.assign(node.sites.begin(), node.sites.end());
  for (const ast::Site& site : node.sites) {
    if (site.kind != SiteKind::pattern && site.kind != SiteKind::logits) continue;
    report(Code::site_without_features, site.span, "nothing is patched at " + to_string(site),
           {site.kind == SiteKind::logits ? "measure the logits, and patch what they are made of"
                                          : "patch q and k, which patterns are made of, or z"});
    sound = false;
  }
  if (node.condition) {
    result.condition = condition(**node.condition);
    sound &= result.condition != nullptr;
    if (result.condition) check_holding(*result.condition);
    if (result.condition && !features_read(*result.condition).empty()) {
      report(Code::patch_condition, (*node.condition)->span,
             "a patch acts at tokens and positions, and this condition reads a feature",
             {"say which positions: when position >= 4"});
      sound = false;
    }
  }
  if (!sound) return std::nullopt;
  return result;
}

/// `efficacy`, `paraphrase(P)`, `specificity(P)`: of the edit whose expectation this is, or of those a check is under.
std::optional<Metric> Checker::of_edit(const ast::Call& call) {
  const std::string& name = call.name.text;
  if (edit_ == nullptr && (check_ == nullptr || check_->under_edits.empty())) {
    report(Code::edit_metric_outside, call.name.span,
           "`" + name + "` is of an edit's facts, and no edit is in force here",
           {"write it among the edit's own statements: edit E { fact …  using …  expect " + name +
                (name == "efficacy" ? "" : "(P)") + " >= 90% }",
            "or name the edit in the check: under edit E"});
    return std::nullopt;
  }
  std::optional<PromptsId> set;
  if (name == "efficacy") {
    if (!arguments(call, {})) return std::nullopt;
  } else {
    const auto given = arguments(call, {{"a set of prompts"}});
    set = given ? prompts(*given->at(0)) : std::nullopt;
    if (!set) return std::nullopt;
    if (name == "specificity" && !require_answers(*set, given->at(0)->span, name)) return std::nullopt;
  }

  bool writes_facts = false;
  std::optional<Span> without_target;
  const auto look = [&](const auto& fact) {
    writes_facts = true;
    if (!fact.from) without_target = fact.span;
  };
  if (edit_ != nullptr) {
    for (const auto& change : edit_->changes) {
      if (const auto* fact = std::get_if<ast::Fact>(&change)) look(*fact);
      writes_facts |= std::holds_alternative<ast::FactsFrom>(change);
    }
  } else {
    for (const EditId edit : check_->under_edits) {
      for (const auto& change : rule_set_.edits[edit].changes) {
        if (const auto* fact = std::get_if<Fact>(&change)) look(*fact);
        writes_facts |= std::holds_alternative<FactFile>(change);
      }
    }
  }
  if (!writes_facts) {
    report(Code::edit_without_facts, call.name.span, "`" + name + "` is of facts, and no edit in force here writes one",
           {"measure behaviour instead: expect accuracy(P) >= 90%, kl(P) <= 0.1, perplexity_rise(P) <= 2%"});
    return std::nullopt;
  }
  if (without_target) {
    report(Code::no_true_target, call.name.span,
           "`" + name + "` weighs the new continuation against the old one, and the fact at " +
               place_text(sources_, *without_target) + " names no old one",
           {"add `from \" …\"` to the fact, or measure accuracy on the prompt and its new continuation"});
    return std::nullopt;
  }
  if (name == "efficacy") return made(call, metric::Efficacy{});
  if (name == "paraphrase") return made(call, metric::Paraphrase{*set});
  return made(call, metric::Specificity{*set});
}

}  // namespace proviso::dsl
