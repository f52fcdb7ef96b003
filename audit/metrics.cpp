#include "audit/metrics.hpp"

#include <re2/re2.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "audit/circuits.hpp"
#include "dsl/metric_traits.hpp"
#include "runtime/autoencoders/latent_benchmarks.hpp"

namespace proviso::audit {

namespace {

using dsl::PromptsId;
using runtime::BoundPrompt;
namespace metric = dsl::metric;

constexpr std::int64_t kFewestPromptsToCallConstant = 8;

runtime::AttackedKey attacked_key(const Subject& subject, PromptsId written) {
  return {*subject.attacks, subject.seed, false, subject.paraphrases.value_or(written)};
}

double mean_nll(const ContinuationScore& score, std::size_t tokens) {
  return -score.log_probability / static_cast<double>(tokens);
}

class Measurer {
 public:
  Measurer(const Subject& subject, const runtime::BoundRules& bound, EvidenceSource& source)
      : subject_(subject), state_(subject.state), bound_(bound), source_(source) {}

  Values run(const dsl::Metric& metric) {
    if (subject_.attacks) out_.attacked.resize(bound_.rules->checks[*subject_.attacks].under_attacks.size(), 0);
    std::visit([this](const auto& node) { measure(node); }, metric.node);
    return std::move(out_);
  }

 private:
  PromptsId written(PromptsId id) const { return subject_.paraphrases.value_or(id); }

  const runtime::BoundPrompts& prompts(PromptsId id) {
    const auto& set = subject_.attacks ? attacked(attacked_key(subject_, id)) : bound_.prompts[written(id)];
    if (set.empty()) out_.empty_set = true;
    return set;
  }

  const runtime::BoundPrompts& attacked(const runtime::AttackedKey& key) {
    const auto& attacked = bound_.attacked.at(key);
    if (seen_.insert(key).second) {
      out_.attacked_sets.push_back(key);
      for (std::size_t i = 0; i < attacked.changed.size(); ++i) out_.attacked[i] += attacked.changed[i];
    }
    return attacked.prompts;
  }

  void add(const BoundPrompt& prompt, double value, double weight = 1, std::string output = "") {
    out_.values.push_back({&prompt, {value, prompt.cluster, weight}, std::move(output)});
  }

  void measure(const metric::Probability& m) {
    const auto tokens = bound_.tokenizer->encode(m.text);
    for (const auto& prompt : prompts(m.after))
      add(prompt, std::exp(source_.continuation(state_, prompt, tokens).log_probability));
  }

  void measure(const metric::Rank& m) {
    for (const auto& prompt : prompts(m.after)) {
      add(prompt, static_cast<double>(source_.next(state_, prompt, bound_.token_id(m.text), true).rank));
    }
  }

  void measure(const metric::LogitDiff& m) {
    for (const auto& prompt : prompts(m.after)) {
      const double a = source_.next(state_, prompt, bound_.token_id(m.a), false).logit;
      const double b = source_.next(state_, prompt, bound_.token_id(m.b), false).logit;
      add(prompt, a - b);
    }
  }

  void measure(const metric::Accuracy& m) {
    out_.kind = Values::Kind::share;
    for (const auto& prompt : prompts(m.prompts)) {
      bool right = false;
      for (const auto& answer : prompt.answers)
        right = source_.continuation(state_, prompt, answer).all_likeliest || right;
      add(prompt, right);
    }
  }

  void measure(const metric::Rate& m) {
    out_.kind = Values::Kind::share;
    const re2::RE2 pattern(m.regex, re2::RE2::Quiet);
    for (const auto& prompt : prompts(m.prompts)) {
      const auto texts = source_.texts(state_, prompt, m, subject_.seed);
      std::int64_t matching = 0;
      std::string shown;
      for (const auto& text : texts) {
        const bool matches = re2::RE2::PartialMatch(text, pattern);
        matching += matches;
        if (shown.empty() || matches) shown = text;
      }
      add(prompt, static_cast<double>(matching) / static_cast<double>(std::max<std::size_t>(1, texts.size())), 1,
          shown);
    }
  }

  void texts(PromptsId id, runtime::StateId state, std::vector<PromptValue>& into) {
    for (const auto& prompt : prompts(id)) {
      const auto losses = source_.text(state, prompt);
      if (prompt.tokens.size() < 2) continue;  // nothing is predicted
      const double total = std::accumulate(losses.begin(), losses.end(), 0.0);
      into.push_back({&prompt, {total, prompt.cluster, static_cast<double>(prompt.tokens.size() - 1)}, ""});
    }
    if (into.empty()) out_.empty_set = true;
  }

  void measure(const metric::Perplexity& m) {
    out_.kind = Values::Kind::perplexity;
    texts(m.prompts, state_, out_.values);
  }

  void measure(const metric::PerplexityRise& m) {
    out_.kind = Values::Kind::perplexity_rise;
    out_.with_itself = state_ == 0;
    texts(m.prompts, state_, out_.values);
    texts(m.prompts, 0, out_.others);
  }

  void measure(const metric::Kl& m) {
    out_.with_itself = state_ == 0;
    for (const auto& prompt : prompts(m.prompts)) {
      const auto kl = source_.kl(state_, prompt);
      const auto positions = static_cast<double>(prompt.tokens.size());
      add(prompt, std::accumulate(kl.begin(), kl.end(), 0.0) / positions, positions);
    }
  }

  /// Reads a feature on every prompt of a set; `reduce` makes one number of the positions that count. Prompts
  /// without such a position are left out.
  template <class Reduce>
  void feature(dsl::FeatureId id, PromptsId set, std::vector<PromptValue>& into, Reduce reduce) {
    for (const auto& prompt : prompts(set)) {
      const auto activations = source_.activations(state_, prompt, id);
      std::vector<double> counted;
      for (std::size_t i = 0; i < activations.values.size(); ++i) {
        if (!activations.counts[i]) continue;
        counted.push_back(activations.values[i]);
        least_ = std::min(least_, counted.back());
        most_ = std::max(most_, counted.back());
      }
      ++feature_prompts_;
      if (counted.empty()) continue;
      const auto [value, weight] = reduce(counted);
      into.push_back({&prompt, {value, prompt.cluster, weight}, ""});
    }
    out_.one_value = feature_prompts_ >= kFewestPromptsToCallConstant && least_ == most_;
    if (into.empty()) out_.empty_set = true;
  }

  static double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  }

  void measure(const metric::Mean& m) {
    feature(m.feature, m.on, out_.values, [](const auto& values) { return std::pair{mean(values), 1.0}; });
  }

  void measure(const metric::Max& m) {
    out_.kind = Values::Kind::maximum;
    feature(m.feature, m.on, out_.values, [](const auto& values) {
      return std::pair{*std::max_element(values.begin(), values.end()), 1.0};
    });
  }

  void measure(const metric::FiringRate& m) {
    out_.kind = Values::Kind::share;
    feature(m.feature, m.on, out_.values, [&](const auto& values) {
      const auto fires = std::count_if(values.begin(), values.end(), [&](double value) {
        switch (m.op) {
          case dsl::Compare::less:
            return value < m.threshold;
          case dsl::Compare::less_equal:
            return value <= m.threshold;
          case dsl::Compare::greater:
            return value > m.threshold;
          case dsl::Compare::greater_equal:
            return value >= m.threshold;
          case dsl::Compare::equal:
            return value == m.threshold;
          case dsl::Compare::not_equal:
            return value != m.threshold;
        }
        return false;
      });
      const auto positions = static_cast<double>(values.size());
      return std::pair{static_cast<double>(fires) / positions, positions};
    });
  }

  void measure(const metric::Auroc& m) {
    out_.kind = Values::Kind::auroc;
    side(m.feature, m.p, out_.values);
    side(m.feature, m.q, out_.others);
  }

  /// The feature at its constructor's token, one value a prompt; a prompt where that token is a sink is left out.
  void side(dsl::FeatureId id, PromptsId set, std::vector<PromptValue>& into) {
    const auto& token = bound_.rules->features[id].token;
    if (token.kind == dsl::TokenChoice::Kind::all) {
      feature(id, set, into, [](const auto& values) { return std::pair{mean(values), 1.0}; });
      return;
    }
    for (const auto& prompt : prompts(set)) {
      const auto activations = source_.activations(state_, prompt, id);
      const auto length = static_cast<std::int64_t>(activations.values.size());
      const std::int64_t position = token.kind == dsl::TokenChoice::Kind::last ? length - 1
                                    : token.index < 0                          ? length + token.index
                                                                               : token.index;
      ++feature_prompts_;
      if (position < 0 || position >= length || !activations.counts[static_cast<std::size_t>(position)]) continue;
      const double value = activations.values[static_cast<std::size_t>(position)];
      least_ = std::min(least_, value);
      most_ = std::max(most_, value);
      into.push_back({&prompt, {value, prompt.cluster, 1}, ""});
    }
    out_.one_value = feature_prompts_ >= kFewestPromptsToCallConstant && least_ == most_;
    if (into.empty()) out_.empty_set = true;
  }

  void measure(const metric::Cosine& m) {
    out_.kind = Values::Kind::number;
    out_.values.push_back({nullptr, {source_.cosine(m.f, m.g), 0, 1}, ""});
  }

  void measure(const metric::LossRecovered& m) {
    out_.kind = Values::Kind::recovered;
    const auto& set = prompts(m.prompts);
    const auto spliced = set.empty() ? std::vector<runtime::SplicedLoss>{} : source_.spliced(state_, m.folder, set);
    for (std::size_t i = 0; i < set.size(); ++i) {
      const auto losses = source_.text(state_, set[i]);
      if (set[i].tokens.size() < 2 || spliced.empty()) continue;
      const double clean = std::accumulate(losses.begin(), losses.end(), 0.0);
      add(set[i], spliced[i].ablated - spliced[i].reconstructed);
      out_.others.push_back({&set[i], {spliced[i].ablated - clean, set[i].cluster, 1}, ""});
    }
    if (out_.values.empty()) out_.empty_set = true;
  }

  // ---- single latents ----------------------------------------------------------------------------

  /// Reads sets of prompts by an autoencoder and hands them to `judge` with what they came from.
  template <class Judge>
  void latents(const std::string& folder, const std::vector<PromptsId>& sets, Judge judge) {
    std::vector<runtime::LabelledPrompts> labelled;
    std::vector<const runtime::BoundPrompts*> of;
    bool blank = false;
    for (const PromptsId id : sets) {
      const auto& set = prompts(id);
      std::vector<std::int64_t> clusters;
      for (const auto& prompt : set) clusters.push_back(prompt.cluster);
      labelled.push_back({set.empty() ? nullptr : source_.encoded(state_, folder, set), std::move(clusters)});
      of.push_back(&set);
      blank = blank || labelled.back().encoded == nullptr;
    }
    if (blank) return;  // while a plan is made, or a set is empty
    for (const runtime::BenchmarkValue& value : judge(labelled)) {
      const BoundPrompt* prompt = &(*of[value.set])[value.prompt];
      out_.values.push_back({prompt, {value.value, prompt->cluster, 1}, ""});
      if (out_.kind == Values::Kind::recovered) out_.others.push_back({prompt, {value.whole, prompt->cluster, 1}, ""});
    }
    if (out_.values.empty()) out_.empty_set = true;
  }

  void measure(const metric::SparseProbing& m) {
    out_.kind = Values::Kind::share;
    latents(m.folder, {m.p, m.q}, [&](const auto& sets) { return runtime::sparse_probing(sets, m.k); });
  }
  void measure(const metric::Absorption& m) {
    out_.kind = Values::Kind::share;
    latents(m.folder, {m.p, m.q}, [&](const auto& sets) { return runtime::absorption(sets, m.k); });
  }
  void measure(const metric::Tpp& m) {
    latents(m.folder, m.sets, [&](const auto& sets) { return runtime::tpp(sets, m.k); });
  }
  void measure(const metric::Scr& m) {
    out_.kind = Values::Kind::recovered;
    latents(m.folder, m.sets, [&](const auto& sets) { return runtime::scr(sets, m.k); });
  }

  void measure(const metric::Effect&) { out_.broken = "an effect of an effect"; }

  // ---- edits -------------------------------------------------------------------------------------

  std::vector<const runtime::BoundFact*> facts() const {
    std::vector<const runtime::BoundFact*> facts;
    for (dsl::EditId edit : subject_.edits) {
      for (const auto& fact : bound_.facts[edit]) facts.push_back(&fact);
    }
    return facts;
  }

  bool prefers(const BoundPrompt& prompt, std::span<const std::int64_t> better, std::span<const std::int64_t> worse) {
    const double first = mean_nll(source_.continuation(state_, prompt, better), better.size());
    return first < mean_nll(source_.continuation(state_, prompt, worse), worse.size());
  }

  void measure(const metric::Efficacy&) {
    out_.kind = Values::Kind::share;
    for (dsl::EditId edit : subject_.edits) {
      const auto* under_attack = subject_.attacks ? &attacked({*subject_.attacks, subject_.seed, true, edit}) : nullptr;
      const auto& facts = bound_.facts[edit];
      for (std::size_t i = 0; i < facts.size(); ++i) {
        const BoundPrompt& prompt = under_attack ? (*under_attack)[i] : facts[i].prompt;
        add(prompt, prefers(prompt, facts[i].to, facts[i].from));
      }
    }
    if (out_.values.empty()) out_.empty_set = true;
  }

  void measure(const metric::Paraphrase& m) {
    out_.kind = Values::Kind::share;
    const auto all = facts();
    const auto& set = prompts(m.prompts);
    for (std::size_t i = 0; i < set.size(); ++i) {
      const BoundPrompt& prompt = set[i];
      const std::string& text = bound_.prompts[written(m.prompts)][i].text;  // an attack may hide the subject
      // The only fact, or the one with the longest subject that the prompt names.
      const runtime::BoundFact* about = all.size() == 1 ? all.front() : nullptr;
      for (const auto* fact : all) {
        if (all.size() == 1 || text.find(fact->fact.subject) == std::string::npos) continue;
        if (!about || fact->fact.subject.size() > about->fact.subject.size()) about = fact;
      }
      if (!about) {
        out_.broken = "\"" + text + "\" names no subject of the facts edited";
        return;
      }
      add(prompt, prefers(prompt, about->to, about->from));
    }
  }

  void measure(const metric::Specificity& m) {
    out_.kind = Values::Kind::share;
    const auto all = facts();
    for (const auto& prompt : prompts(m.prompts)) {
      bool holds = false;
      for (const auto& answer : prompt.answers) {
        bool beats_all = true;
        for (const auto* fact : all) beats_all = prefers(prompt, answer, fact->to) && beats_all;
        holds = beats_all || holds;
      }
      add(prompt, holds);
    }
  }

  void measure(const metric::Faithfulness& m) { recovered(m.circuit, &runtime::CircuitRuns::circuit); }
  void measure(const metric::Completeness& m) { recovered(m.circuit, &runtime::CircuitRuns::without); }

  /// A number of the circuits as they were found, which samples no prompts here.
  void of_found(const std::vector<dsl::CircuitId>& circuits, const runtime::CircuitAsked& asked, auto read) {
    out_.kind = Values::Kind::number;
    std::vector<const runtime::CircuitEvidence*> found;
    for (const dsl::CircuitId id : circuits) found.push_back(source_.found(id, asked));
    if (found.front() == nullptr) return;
    out_.values.push_back({nullptr, {read(found), 0, 1}, ""});
  }
  void measure(const metric::Minimality& m) {
    of_found({m.circuit}, {true, false}, [](const auto& found) { return found.front()->minimality->needed; });
  }
  void measure(const metric::Stability& m) {
    of_found({m.circuit}, {false, true}, [](const auto& found) { return found.front()->stability->overlap; });
  }
  void measure(const metric::Overlap& m) {
    of_found({m.first, m.second}, {}, [](const auto& found) { return runtime::overlap(*found[0], *found[1]).share(); });
  }

  /// How much of clean less corrupt these m recover.
  void recovered(dsl::CircuitId id, std::vector<double> runtime::CircuitRuns::*m) {
    out_.kind = Values::Kind::recovered;
    const std::uint64_t attack_seed = subject_.attacks ? subject_.seed : 0;
    const auto& circuit = bound_.circuit(id, subject_.attacks, attack_seed);
    if (subject_.attacks) {
      for (const auto& sets : bound_.rules->circuits[id].pairs) {
        if (sets.held == bound_.circuits[id].held.empty()) continue;  // not measured
        attacked(attacked_key(subject_, sets.clean));
        attacked(attacked_key(subject_, sets.corrupt));
      }
      out_.pairs_left_out = std::ssize(bound_.circuits[id].measured()) - std::ssize(circuit.measured());
    }
    const auto* runs = source_.circuit({id, state_, subject_.ablation, subject_.attacks, attack_seed});
    const auto& pairs = circuit.measured();
    out_.empty_set = pairs.empty();
    if (!runs || pairs.empty()) return;
    const auto parts = above_edgeless(pairs, *runs, runs->*m);
    const auto wholes = above_edgeless(pairs, *runs, runs->clean);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      out_.values.push_back({&pairs[i].clean, parts[i], ""});
      out_.others.push_back({&pairs[i].clean, wholes[i], ""});
    }
  }

  const Subject& subject_;
  const runtime::StateId state_;
  const runtime::BoundRules& bound_;
  EvidenceSource& source_;
  Values out_;
  std::set<runtime::AttackedKey> seen_;
  double least_ = std::numeric_limits<double>::infinity(), most_ = -std::numeric_limits<double>::infinity();
  std::int64_t feature_prompts_ = 0;
};

std::vector<Sample> samples(const std::vector<PromptValue>& values) {
  std::vector<Sample> samples;
  for (const auto& value : values) samples.push_back(value.sample);
  return samples;
}

Estimate without_interval(double value, std::size_t n, std::string why) {
  Estimate estimate;
  estimate.value = value;
  estimate.n = static_cast<std::int64_t>(n);
  estimate.why_no_interval = std::move(why);
  return estimate;
}

}  // namespace

std::vector<const runtime::BoundPrompts*> measured_prompts(const dsl::Metric& metric, const Subject& subject,
                                                           const runtime::BoundRules& bound) {
  std::vector<const runtime::BoundPrompts*> sets;
  for (const PromptsId id : dsl::prompt_sets(metric)) {
    sets.push_back(subject.attacks ? &bound.attacked.at(attacked_key(subject, id)).prompts
                                   : &bound.prompts[subject.paraphrases.value_or(id)]);
  }
  return sets;
}

Values measure(const dsl::Metric& metric, const Subject& subject, const runtime::BoundRules& bound,
               EvidenceSource& source) {
  return Measurer(subject, bound, source).run(metric);
}

Estimate estimate(const Values& values, double confidence, std::uint64_t seed) {
  const auto own = samples(values.values);
  switch (values.kind) {
    case Values::Kind::share:
      return wilson(own, confidence);
    case Values::Kind::mean:
      return bootstrap_t_mean(own, confidence, seed);
    case Values::Kind::perplexity:
      return exp_ratio(own, confidence, seed);
    case Values::Kind::perplexity_rise:
      return exp_ratio_rise(samples(values.others), own, confidence, seed);
    case Values::Kind::auroc:
      return delong_auroc(own, samples(values.others), confidence);
    case Values::Kind::recovered:
      return ratio_of_means(own, samples(values.others), confidence, seed);
    case Values::Kind::maximum: {
      double most = std::nan("");
      for (const auto& sample : own) most = std::isnan(most) ? sample.value : std::max(most, sample.value);
      return without_interval(most, own.size(), "a maximum has no interval");
    }
    case Values::Kind::number:
      return without_interval(own.empty() ? std::nan("") : own.front().value, own.size(), "a metric without sampling");
  }
  return {};
}

Estimate estimate_difference(const Values& before, const Values& after, bool relative, double confidence,
                             std::uint64_t seed) {
  const auto first = samples(before.values), second = samples(after.values);
  if (first.size() == second.size()) {
    if (after.kind == Values::Kind::perplexity) {
      return relative ? exp_ratio_rise(first, second, confidence, seed)
                      : exp_ratio_difference(first, second, confidence, seed);
    }
    if (after.kind == Values::Kind::share || after.kind == Values::Kind::mean) {
      if (relative) return relative_difference(first, second, confidence, seed);
      return after.kind == Values::Kind::share ? mcnemar(first, second, confidence)
                                               : paired_mean_difference(first, second, confidence, seed);
    }
  }
  const double was = estimate(before, confidence, seed).value, is = estimate(after, confidence, seed).value;
  if (relative && was == 0) {
    Estimate undecided = without_interval(std::nan(""), second.size(), "the value before is 0");
    undecided.decidable = false;
    return undecided;
  }
  return without_interval(relative ? (is - was) / was : is - was, second.size(),
                          "the difference of two such numbers has no interval");
}

}  // namespace proviso::audit
