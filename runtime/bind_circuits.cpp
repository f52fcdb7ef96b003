#include <cmath>

#include "dsl/number_text.hpp"
#include "runtime/binder.hpp"
#include "runtime/circuits/circuit_graph.hpp"

namespace proviso::runtime {

using dsl::Code;

void Binder::circuit(const dsl::CircuitDecl& declaration) {
  using Kind = dsl::CircuitMeasure::Kind;
  const auto& measure = declaration.measure;
  BoundCircuit bound;
  bound.probability = measure.kind == Kind::probability;
  const std::size_t before = diagnostics_.size();
  if (measure.kind != Kind::answer_diff) single_token(measure.a, measure.span);
  if (measure.kind == Kind::logit_diff) single_token(measure.b, measure.span);
  if (diagnostics_.size() != before) return;
  for (const auto& sets : declaration.pairs) {
    const auto &clean = bound_.prompts[sets.clean], &corrupt = bound_.prompts[sets.corrupt];
    if (clean.empty() || clean.size() != corrupt.size()) {
      error(Code::unequal_pairs, sets.span,
            "there are " + std::to_string(clean.size()) + " clean prompts and " + std::to_string(corrupt.size()) +
                " corrupt ones, which are paired in order",
            {"give every clean prompt its corrupt one, and at least one pair"});
      continue;
    }
    const std::int64_t clusters = std::ssize(bound.pairs);
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
      bound.pairs.push_back(std::move(pair));
    }
  }
  bound.kept = kept(declaration);
  bound_.circuits.push_back(std::move(bound));
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

std::int64_t Binder::kept(const dsl::CircuitDecl& declaration) {
  const CircuitGraph graph(card_.config);
  const bool nodes = declaration.keep.nodes;
  const std::int64_t all = nodes ? graph.nodes() : graph.edges();
  const std::string what = nodes ? " nodes" : " edges";
  const auto& method = declaration.method;
  if (method.method == dsl::CircuitMethod::exact && all > method.budget) {
    error(Code::too_many_edges, method.span,
          card_.name + " has " + std::to_string(all) + what +
              ", and `exact`, which patches them one by one, has a budget of " + std::to_string(method.budget),
          {"use eap_ig(steps: 5), or give it the time: exact(budget: " + std::to_string(all) + ")"});
  }
  const auto& keep = declaration.keep;
  const double wanted = keep.share ? std::round(keep.amount * static_cast<double>(all)) : keep.amount;
  if (wanted >= 1 && wanted <= static_cast<double>(all)) return static_cast<std::int64_t>(wanted);
  error(Code::out_of_range, keep.span,
        "this would keep " + dsl::number_text(wanted) + what + ", and " + card_.name + " has " + std::to_string(all) +
            (nodes ? " heads and MLPs" : ""),
        {"keep fewer than all of them, and at least one: keep " + std::string(nodes ? "10%" : "1%") + what});
  return 0;
}

}  // namespace proviso::runtime
