#include <algorithm>
#include <cmath>

#include "dsl/metric_traits.hpp"
#include "dsl/number_text.hpp"
#include "runtime/binder.hpp"
#include "runtime/circuits/circuit_graph.hpp"
#include "runtime/condition.hpp"

namespace proviso::runtime {

using dsl::Code;

void Binder::circuit(const dsl::CircuitDecl& declaration) {
  using Kind = dsl::CircuitMeasure::Kind;
  const auto& measure = declaration.measure;
  BoundCircuit bound;
  bound.probability = measure.kind == Kind::probability;
  const std::size_t before = diagnostics_.size();
  const bool of_latents = declaration.method.of_latents();
  if (card_.norms_writers() && !of_latents) {
    error(Code::circuit_family, measure.span,
          card_.name +
              " has no graph of this kind: what its attention and MLP write passes a norm before it joins the stream",
          {"measure the effect of interventions at `z`, `attn_out` or `mlp_out`"});
  }
  circuit_autoencoders(declaration, bound);
  if (measure.kind != Kind::answer_diff) single_token(measure.a, measure.a_span);
  if (measure.kind == Kind::logit_diff) single_token(measure.b, measure.b_span);
  if (diagnostics_.size() != before) return;
  for (std::size_t line = 0; line < declaration.pairs.size(); ++line) {
    const auto& sets = declaration.pairs[line];
    const auto &clean = bound_.prompts[sets.clean], &corrupt = bound_.prompts[sets.corrupt];
    if (clean.empty() || clean.size() != corrupt.size()) {
      error(Code::unequal_pairs, sets.span,
            "there are " + std::to_string(clean.size()) + " clean prompts and " + std::to_string(corrupt.size()) +
                " corrupt ones, which are paired in order",
            {"give every clean prompt its corrupt one, and at least one pair"});
      continue;
    }
    auto& into = sets.held ? bound.held : bound.pairs;
    const std::int64_t clusters = std::ssize(bound.pairs) + std::ssize(bound.held);
    for (std::size_t i = 0; i < clean.size(); ++i) {
      BoundPair pair{clean[i], corrupt[i]};
      pair.clean.cluster += clusters;  // those of another set are other ones
      if (!paired(pair, sets.span)) continue;
      if (measure.kind == Kind::answer_diff) {
        if (!answers(pair, measure.span)) continue;
      } else {
        pair.raised = bound_.token_id(measure.a);
        if (measure.kind == Kind::logit_diff) pair.lowered = bound_.token_id(measure.b);
      }
      pair.line = line;
      into.push_back(std::move(pair));
    }
  }
  for (const auto& held : bound.held) {
    const auto found_on = std::find_if(bound.pairs.begin(), bound.pairs.end(), [&](const BoundPair& pair) {
      return pair.clean.tokens == held.clean.tokens && pair.corrupt.tokens == held.corrupt.tokens;
    });
    if (found_on == bound.pairs.end()) continue;
    error(Code::held_pair, declaration.pairs[held.line].span,
          "the circuit is found on this very pair: \"" + held.clean.text + "\"",
          {"hold out pairs that it is not found on"});
    break;
  }
  kept(declaration, bound);
  bound_.circuits.back() = std::move(bound);
}

void Binder::circuit_autoencoders(const dsl::CircuitDecl& declaration, BoundCircuit& bound) {
  std::vector<std::pair<dsl::Site, std::string>> placed;
  for (const auto& named : declaration.method.autoencoders) {
    const AutoencoderCard* card = autoencoder(named.folder, named.span);
    if (card == nullptr) continue;
    if (card->is_transcoder()) {
      error(Code::circuit_of_latents, named.span,
            "a transcoder's latents add nothing to what it reads, so it leaves no error term there",
            {"name an autoencoder of the stream, of attn_out or of mlp_out"});
      continue;
    }
    const auto same = [&](const auto& other) {
      return dsl::whole(other.first) == dsl::whole(card->site) &&
             (other.first == card->site || other.first.head < 0 || card->site.head < 0);
    };
    if (std::any_of(placed.begin(), placed.end(), same)) {
      error(Code::circuit_of_latents, named.span,
            "another autoencoder of this circuit reads " + dsl::to_string(card->site) +
                ", too, and what is there would be counted twice",
            {"name one autoencoder for each site"});
      continue;
    }
    placed.emplace_back(card->site, named.folder);
  }
  std::sort(placed.begin(), placed.end());
  for (auto& [site, folder] : placed) bound.autoencoders.push_back(std::move(folder));
}

void Binder::in_circuits(const dsl::Expectation& expectation, const std::vector<dsl::RuleId>& rules) {
  const auto measured = dsl::measured_circuit(expectation.metric);
  if (!measured) return;
  const bool one_stream = rules_.circuits[*measured].method.of_latents();  // sentences act on it as ever
  for (const dsl::RuleId rule : rules) {
    for (const auto& suppression : rules_.rules[rule].circuits) {
      const auto& circuit = rules_.circuits[suppression.circuit];
      if (circuit.keep.nodes) continue;
      error(Code::rule_in_circuit, expectation.metric.span,
            "no circuit can be measured under " + quoted(rules_.rules[rule].name) + ": " + quoted(suppression.text) +
                " takes edges out, and each reader has edges of its own while a circuit is measured",
            {"suppress a circuit of nodes, or measure the behaviour itself under the rule"});
    }
    if (one_stream) continue;
    for (const auto& sentence : rules_.rules[rule].interventions) {
      const std::string why = unclear_in_circuits(sentence);
      if (why.empty()) continue;
      error(Code::rule_in_circuit, expectation.metric.span,
            "no circuit can be measured under " + quoted(rules_.rules[rule].name) + ": " + quoted(sentence.text) + " " +
                why,
            {"measure it under a rule whose sentences are unconditional, under an edit, or on the model as loaded"});
    }
  }
}

std::string Binder::unclear_in_circuits(const dsl::Intervention& sentence) const {
  using dsl::SiteKind;
  if (bad_.features.contains(sentence.feature)) return "";
  // Where what several nodes wrote is summed: each reader has a sum of its own.
  const auto shared = [](const dsl::Site& site) {
    return site.kind == SiteKind::attn_out || site.kind == SiteKind::resid_mid || site.kind == SiteKind::resid_post;
  };
  const auto of_heads = [](const dsl::Site& site) { return dsl::site_has_heads(site.kind); };
  const bool shared_keys = card_.config.kv_heads != card_.config.heads;
  const auto unclear = [&](const dsl::Site& site) -> std::string {
    const std::string where = dsl::to_string(site);
    if (of_heads(site) && site.head < 0) return where + ", which holds several heads' activations";
    if (shared_keys && (site.kind == SiteKind::k || site.kind == SiteKind::v))
      return where + ", where every query head has keys and values of its own while edges are patched";
    return "";
  };
  const std::vector<dsl::FeatureId> read =
      sentence.condition ? features_read(*sentence.condition) : std::vector<dsl::FeatureId>{};
  for (const dsl::FeatureId feature : read) {
    if (bad_.features.contains(feature)) continue;
    const dsl::Site& site = bound_.feature_sites[feature];
    if (shared(site) || site.kind == SiteKind::embed)
      return "reads " + bound_.feature_name(feature) + " at " + dsl::to_string(site) +
             ", and each part of the model reads a stream of its own while edges are patched";
    if (const std::string why = unclear(site); !why.empty()) return "reads " + why;
  }
  const bool latent = autoencoder_of(sentence.feature) != nullptr;
  for (const dsl::Site& site : bound_.sites_of(sentence)) {
    if (const std::string why = unclear(site); !why.empty()) return "acts at " + why;
    if (!shared(site)) continue;
    if (latent || sentence.operation == dsl::Operation::cap)
      return "acts at " + dsl::to_string(site) + ", where what it does to a sum is no sum of what it does to its parts";
    if (!read.empty() || (sentence.condition && reads_text(*sentence.condition)))
      return "acts at " + dsl::to_string(site) + " under a condition that may hold on one prompt of a pair only";
  }
  return "";
}

bool Binder::paired(const BoundPair& pair, dsl::Span span) {
  const std::string texts = "\"" + pair.clean.text + "\" and \"" + pair.corrupt.text + "\"";
  if (pair.clean.tokens == pair.corrupt.tokens) {
    error(Code::same_sides, span, texts + " are the same tokens, so nothing is corrupted",
          {"name prompts that differ in what the circuit is to carry"});
    return false;
  }
  if (pair.clean.tokens.size() == pair.corrupt.tokens.size()) return true;
  error(Code::unequal_lengths, span,
        texts + " have " + std::to_string(pair.clean.tokens.size()) + " and " +
            std::to_string(pair.corrupt.tokens.size()) +
            " tokens in this model, and a circuit is patched token by "
            "token",
        {"replace the word that is split by one of as many tokens as its counterpart"});
  return false;
}

bool Binder::answers(BoundPair& pair, dsl::Span span) {
  for (const auto* prompt : {&pair.clean, &pair.corrupt}) {
    if (prompt->answers.empty()) {
      error(Code::no_answer, span, "\"" + prompt->text + "\" names no expected continuation",
            {"write it: \"" + prompt->text + "\" -> \" …\", or name the tokens: logit_diff(\" a\", \" b\")"});
      return false;
    }
    if (prompt->answers.front().size() != 1) {
      single_token(prompt->answer_texts.front(), span);
      return false;
    }
  }
  pair.raised = pair.clean.answers.front().front();
  pair.lowered = pair.corrupt.answers.front().front();
  if (pair.raised != pair.lowered) return true;
  error(Code::same_sides, span,
        "\"" + pair.clean.text + "\" and \"" + pair.corrupt.text + "\" expect the same continuation",
        {"corrupt what the continuation depends on, or measure probability(\" …\")"});
  return false;
}

void Binder::kept(const dsl::CircuitDecl& declaration, BoundCircuit& bound) {
  const CircuitGraph graph(card_.config);
  const auto& method = declaration.method;
  const bool nodes = declaration.keep.nodes;
  bound.of = nodes ? graph.nodes() : graph.edges();
  if (method.of_latents()) {
    if (bound.autoencoders.size() < method.autoencoders.size()) return;  // which has been said
    bound.of = 0;
    for (const auto& folder : bound.autoencoders) bound.of += bound_.autoencoders.at(folder).d_sae + 1;
  }
  const std::string owner = method.of_latents() ? "the circuit's autoencoders have " : card_.name + " has ";
  const std::string what = nodes ? " nodes" : " edges", all = std::to_string(bound.of);
  if (method.method == dsl::CircuitMethod::exact && bound.of > method.budget) {
    error(Code::too_many_edges, method.span,
          owner + all + what + ", and `exact`, which patches them one by one, has a budget of " +
              std::to_string(method.budget),
          {"use eap_ig(steps: 5), or give it the time: exact(budget: " + all + ")"});
  }
  const auto& keep = declaration.keep;
  const double wanted = keep.share ? std::round(keep.amount * static_cast<double>(bound.of)) : keep.amount;
  if (wanted >= 1 && wanted <= static_cast<double>(bound.of)) {
    bound.kept = static_cast<std::int64_t>(wanted);
    return;
  }
  error(Code::out_of_range, keep.span,
        "this would keep " + dsl::number_text(wanted) + what + ", and " + owner + all +
            (method.of_latents() ? " latents and error terms"
             : nodes             ? " heads and MLPs"
                                 : ""),
        {"keep fewer than all of them, and at least one: keep " + std::string(nodes ? "10%" : "1%") + what});
}

}  // namespace proviso::runtime
