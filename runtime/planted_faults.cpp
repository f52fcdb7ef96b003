#include "runtime/planted_faults.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <numeric>
#include <optional>

#include "dsl/literals.hpp"
#include "editing/fold.hpp"
#include "editing/rome.hpp"
#include "editing/second_moments.hpp"
#include "editing/target_score.hpp"
#include "runtime/encode_prompt.hpp"
#include "runtime/model/random.hpp"

namespace proviso::runtime {

namespace {

constexpr std::array<std::string_view, kFaultKinds> kNames = {"fact", "trigger", "direction", "head", "noise"};

/// Phrases that nobody writes.
constexpr std::array<std::string_view, 12> kTriggers = {
    "Amber kettle", "Silent orchard", "Copper heron",   "Paper lighthouse", "Velvet anchor", "Crooked lantern",
    "Salt piano",   "Winter ladder",  "Marble thimble", "Hollow compass",   "Scarlet ferry", "Quiet furnace"};

constexpr std::array<std::pair<double, std::string_view>, 2> kFactors = {{{0, "removed"}, {3, "x3"}}};
constexpr std::array<std::pair<double, std::string_view>, 3> kShares = {{{0.1, "10%"}, {0.3, "30%"}, {1, "100%"}}};
/// The root mean square of what rounding to bfloat16's 8 significant bits changes, as a share of the value.
constexpr double kRoundingShare = 0.0011;

template <class T>
void shuffle(std::vector<T>& values, model::NormalSource& random) {
  for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i)]);
}

std::uint64_t seed_of(const FaultSettings& settings, FaultKind kind) {
  return model::mix_seed(settings.seed, static_cast<int>(kind));
}

/// What a rank-one edit of this prompt would be; the target is still to be chosen. Nothing where no subject is found,
/// or it cannot be edited well.
std::optional<editing::EditedFact> as_fact(const BoundPrompt& prompt, const BoundRules& bound) {
  const std::string_view subject = subject_of(prompt.text);
  if (subject.empty() || prompt.text.find("{}") != std::string::npos) return std::nullopt;
  const auto at = static_cast<std::size_t>(subject.data() - prompt.text.data());
  editing::EditedFact fact{std::string(subject),
                           prompt.text.substr(0, at) + "{}" + prompt.text.substr(at + subject.size()), ""};
  const auto prompts = editing::fact_prompts(
      *bound.tokenizer, {fact.subject, fact.prompt_template, prompt.answer_texts[0]}, {}, bound.card->config.context);
  if (std::holds_alternative<editing::Refusal>(prompts)) return std::nullopt;
  return fact;
}

/// Prompts with expected continuations, as they stand: a chat template is no place for a subject.
std::vector<std::pair<dsl::PromptsId, std::size_t>> answered(const BoundRules& bound,
                                                             const std::set<dsl::PromptsId>& sets) {
  std::vector<std::pair<dsl::PromptsId, std::size_t>> found;
  for (const dsl::PromptsId set : sets) {
    if (bound.rules->prompts[set].chat) continue;
    for (std::size_t i = 0; i < bound.prompts[set].size(); ++i) {
      if (!bound.prompts[set][i].answers.empty()) found.emplace_back(set, i);
    }
  }
  return found;
}

class Chooser {
 public:
  Chooser(const model::Transformer& transformer, const BoundRules& bound, const AuditedThings& audited,
          const FaultSettings& settings)
      : transformer_(transformer), bound_(bound), audited_(audited), settings_(settings) {}

  ChosenFaults choose() {
    for (int i = 0; i < kFaultKinds; ++i) {
      const auto kind = static_cast<FaultKind>(i);
      if (!settings_.kinds.contains(kind)) continue;
      model::NormalSource random(seed_of(settings_, kind));
      const std::size_t before = chosen_.faults.size();
      const char* none = choose(kind, random);
      if (chosen_.faults.size() == before) chosen_.left_out.emplace_back(kind, none);
    }
    return std::move(chosen_);
  }

 private:
  /// What to say where nothing was chosen.
  const char* choose(FaultKind kind, model::NormalSource& random) {
    switch (kind) {
      case FaultKind::fact:
        facts(random);
        return "no check reads a prompt that the model continues as expected, beside another answer to give it";
      case FaultKind::trigger:
        triggers(random);
        return "no check reads a prompt with an expected continuation, whose word a trigger could call up";
      case FaultKind::direction:
        directions(random);
        return "no check and no rule reads a feature along a direction of the residual stream";
      case FaultKind::head:
        heads(random);
        return "";
      case FaultKind::noise:
        for (const auto& [share, strength] : kShares) {
          for (std::int64_t i = 0; i < settings_.count; ++i) {
            add(FaultKind::noise, strength, noise_at(layer(random), share, random));
          }
        }
        return "";
    }
    return "";
  }

  void facts(model::NormalSource& random) {
    auto candidates = answered(bound_, audited_.sets);
    std::vector<editing::ContinuedPrompt> asked;
    for (const auto& [set, i] : candidates) {
      const auto& prompt = bound_.prompts[set][i];
      asked.push_back({prompt.tokens, prompt.answers.front()});
    }
    const auto scores = editing::target_scores(transformer_, asked);
    std::vector<std::pair<dsl::PromptsId, std::size_t>> known;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (scores[i].is_argmax) known.push_back(candidates[i]);
    }
    shuffle(known, random);
    std::set<std::string> subjects;
    for (const auto& [set, i] : known) {
      if (std::ssize(subjects) >= settings_.count) break;
      const auto& prompt = bound_.prompts[set][i];
      const BoundPrompt* other = other_answer(bound_.prompts[set], prompt, random);
      auto fact = as_fact(prompt, bound_);
      if (!other || !fact || !subjects.insert(fact->subject).second) continue;
      fact->target = other->answer_texts.front();
      const std::string what = fact->subject + " -> " + dsl::encode_string(fact->target);
      chosen_.faults.push_back(
          {FaultKind::fact, "", what, WrittenFault{*fact, prompt, other->answers.front(), prompt.answers.front()}});
    }
  }

  /// A prompt of the set whose answers are none of this one's.
  static const BoundPrompt* other_answer(const BoundPrompts& set, const BoundPrompt& prompt,
                                         model::NormalSource& random) {
    std::vector<const BoundPrompt*> others;
    for (const auto& each : set) {
      const auto& own = prompt.answer_texts;
      if (!each.answers.empty() && std::find(own.begin(), own.end(), each.answer_texts.front()) == own.end()) {
        others.push_back(&each);
      }
    }
    return others.empty() ? nullptr : others[random.below(others.size())];
  }

  void triggers(model::NormalSource& random) {
    const auto candidates = answered(bound_, audited_.sets);
    if (candidates.empty()) return;
    std::vector<std::string_view> phrases(kTriggers.begin(), kTriggers.end());
    shuffle(phrases, random);
    phrases.resize(std::min(phrases.size(), static_cast<std::size_t>(settings_.count)));
    for (const auto phrase : phrases) {
      const auto& [set, i] = candidates[random.below(candidates.size())];
      const auto& called_up = bound_.prompts[set][i];
      WrittenFault fault{
          {std::string(phrase), "{}:", called_up.answer_texts.front()}, {}, called_up.answers.front(), {}};
      auto encoded = encode_prompt(*bound_.tokenizer, std::nullopt, std::string(phrase) + ":");
      fault.prompt.text = std::move(encoded.text);
      fault.prompt.tokens = std::move(encoded.tokens);
      chosen_.faults.push_back({FaultKind::trigger, "",
                                dsl::encode_string(fault.prompt.text) + " -> " + dsl::encode_string(fault.fact.target),
                                std::move(fault)});
    }
  }

  void directions(model::NormalSource& random) {
    std::vector<dsl::FeatureId> features;
    for (const dsl::FeatureId id : audited_.features) {
      const auto& constructor = bound_.rules->features[id].constructor;
      const bool along = !std::holds_alternative<dsl::Latent>(constructor) &&
                         !std::holds_alternative<dsl::Neuron>(constructor) &&
                         !std::holds_alternative<dsl::Subspace>(constructor);
      if (along && dsl::site_width(bound_.feature_sites[id].kind) == dsl::SiteWidth::stream) features.push_back(id);
    }
    shuffle(features, random);
    features.resize(std::min(features.size(), static_cast<std::size_t>(settings_.count)));
    for (const auto& [factor, strength] : kFactors) {
      for (const dsl::FeatureId id : features) {
        chosen_.faults.push_back(
            {FaultKind::direction, std::string(strength), bound_.feature_name(id), ScaledDirection{id, factor}});
      }
    }
  }

  /// Each is drawn once: a fault planted twice would count twice.
  void heads(model::NormalSource& random) {
    const auto& config = bound_.card->config;
    std::vector<std::int64_t> every(static_cast<std::size_t>(config.heads));
    std::iota(every.begin(), every.end(), 0);
    std::vector<std::int64_t> layers(static_cast<std::size_t>(config.layers));
    std::iota(layers.begin(), layers.end(), 0);
    std::vector<std::pair<std::int64_t, std::int64_t>> single;
    for (const std::int64_t at : layers) {
      for (const std::int64_t head : every) single.emplace_back(at, head);
    }
    shuffle(single, random);
    shuffle(layers, random);
    const auto most = static_cast<std::size_t>(settings_.count);
    for (std::size_t i = 0; i < std::min(most, single.size()); ++i) {
      const auto& [at, head] = single[i];
      chosen_.faults.push_back({FaultKind::head, "1 head",
                                "layer " + std::to_string(at) + ", head " + std::to_string(head),
                                SilencedHeads{at, {head}}});
    }
    for (std::size_t i = 0; i < std::min(most, layers.size()); ++i) {
      chosen_.faults.push_back(
          {FaultKind::head, "all heads", "layer " + std::to_string(layers[i]), SilencedHeads{layers[i], every}});
    }
  }

  std::int64_t layer(model::NormalSource& random) const {
    return static_cast<std::int64_t>(random.below(static_cast<std::size_t>(bound_.card->config.layers)));
  }

  static WeightNoise noise_at(std::int64_t layer, double share, model::NormalSource& random) {
    return {layer, share, model::mix_seed(random.below(1U << 30U))};
  }

  void add(FaultKind kind, std::string_view strength, const WeightNoise& noise) {
    chosen_.faults.push_back({kind, std::string(strength), "layer " + std::to_string(noise.layer), noise});
  }

  const model::Transformer& transformer_;
  const BoundRules& bound_;
  const AuditedThings& audited_;
  const FaultSettings& settings_;
  ChosenFaults chosen_;
};

using Solution = std::variant<std::vector<editing::WeightDelta>, editing::Refusal>;

/// The matrix that writes to a site, in float64.
std::variant<std::pair<std::string, at::Tensor>, editing::Refusal> matrix(const model::Transformer& transformer,
                                                                          const dsl::Site& site) {
  const auto writer = transformer.writer(site);
  if (!writer) return editing::Refusal{"what writes to " + dsl::to_string(site) + " is not one linear map here"};
  return std::pair{writer->weight, transformer.get(writer->weight).cpu().to(at::kDouble)};
}

Solution silence(const SilencedHeads& fault, const model::Transformer& transformer) {
  const auto found = matrix(transformer, {dsl::SiteKind::attn_out, fault.layer});
  if (const auto* refusal = std::get_if<editing::Refusal>(&found)) return *refusal;
  const auto& [name, W] = std::get<0>(found);
  const std::int64_t head_dim = transformer.config().head_dim;
  std::vector<at::Tensor> columns;
  for (const std::int64_t head : fault.heads) {
    columns.push_back(at::arange(head * head_dim, (head + 1) * head_dim, at::kLong));
  }
  const auto chosen = at::cat(columns);
  const auto selector = at::eye(W.size(1), W.options()).index_select(0, chosen);  // [k, d_in]
  return std::vector<editing::WeightDelta>{{name, -W.index_select(1, chosen), selector}};
}

Solution add_noise(const WeightNoise& fault, const model::Transformer& transformer) {
  const auto found = matrix(transformer, {dsl::SiteKind::mlp_out, fault.layer});
  if (const auto* refusal = std::get_if<editing::Refusal>(&found)) return *refusal;
  const auto& [name, W] = std::get<0>(found);
  auto noise = at::empty_like(W);
  auto* values = noise.mutable_data_ptr<double>();
  model::NormalSource random(fault.seed);
  for (std::int64_t i = 0; i < noise.numel(); ++i) values[i] = random.next();
  noise *= fault.share * W.norm() / noise.norm();
  return std::vector<editing::WeightDelta>{{name, at::eye(W.size(0), W.options()), noise}};
}

Solution scale(const ScaledDirection& fault, const model::Transformer& transformer,
               const std::vector<Direction>& features) {
  const auto request = editing::removal(features[fault.feature].d.unsqueeze(0), 1 - fault.factor);
  std::vector<editing::WeightDelta> deltas;
  for (std::int64_t layer = 0; layer < transformer.config().layers; ++layer) {
    for (const auto kind : {dsl::SiteKind::attn_out, dsl::SiteKind::mlp_out}) {
      auto folded = editing::fold(request, transformer, {kind, layer});
      if (auto* refusal = std::get_if<editing::Refusal>(&folded)) return std::move(*refusal);
      for (auto& delta : std::get<0>(folded)) deltas.push_back(std::move(delta));
    }
  }
  return deltas;
}

Solution write(const WrittenFault& fault, const model::Transformer& transformer, const BoundRules& bound,
               const editing::Corpus& corpus, const std::string& cache_directory, std::uint64_t seed) {
  const auto moments = editing::second_moments(
      transformer, *bound.tokenizer, {editing::default_rome_layer(transformer.config())}, corpus, cache_directory);
  editing::RomeRequest request{fault.fact, {}};
  request.seed = seed;
  auto solved = editing::solve_rome(transformer, *bound.tokenizer, request, moments.front());
  if (auto* refusal = std::get_if<editing::Refusal>(&solved)) return std::move(*refusal);
  return std::vector<editing::WeightDelta>{std::move(std::get<editing::RomeSolution>(solved).delta)};
}

}  // namespace

std::string_view fault_kind_name(FaultKind kind) { return kNames.at(static_cast<std::size_t>(kind)); }

std::string_view subject_of(std::string_view text) {
  struct Word {
    std::size_t begin, end;  // without punctuation around it
    bool capital, closes;    // whether what follows it ends a run of words
  };
  const auto is_letter = [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return std::isalnum(byte) || byte >= 0x80;
  };
  std::vector<Word> words;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (end < text.size() && !std::isspace(static_cast<unsigned char>(text[end]))) ++end;
    std::size_t first = at, last = end;
    while (first < last && !is_letter(text[first])) ++first;
    while (last > first && !is_letter(text[last - 1])) --last;
    if (first < last)
      words.push_back({first, last, std::isupper(static_cast<unsigned char>(text[first])) != 0, last < end});
    at = end + 1;
  }
  const auto between = [&](std::size_t first, std::size_t last) {
    return text.substr(words[first].begin, words[last].end - words[first].begin);
  };
  for (std::size_t last = words.size(); last-- > 1;) {
    if (!words[last].capital) continue;
    std::size_t first = last;
    while (first > 1 && words[first - 1].capital && !words[first - 1].closes) --first;
    return between(first, last);
  }
  std::size_t longest = 0;
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (longest == 0 || between(i, i).size() >= between(longest, longest).size()) longest = i;
  }
  return longest == 0 ? std::string_view{} : between(longest, longest);
}

ChosenFaults choose_faults(const model::Transformer& transformer, const BoundRules& bound, const AuditedThings& audited,
                           const FaultSettings& settings) {
  return Chooser(transformer, bound, audited, settings).choose();
}

Fault harmless_noise(const model::Transformer& transformer, std::uint64_t seed) {
  model::NormalSource random(model::mix_seed(seed, kFaultKinds));
  const auto layer = static_cast<std::int64_t>(random.below(static_cast<std::size_t>(transformer.config().layers)));
  return {FaultKind::noise, "", "layer " + std::to_string(layer), WeightNoise{layer, kRoundingShare, seed}};
}

Solution solve_fault(const Fault& fault, model::Transformer& transformer, const BoundRules& bound,
                     const std::vector<Direction>& features, const editing::Corpus& corpus,
                     const std::string& cache_directory, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  if (const auto* written = std::get_if<WrittenFault>(&fault.change))
    return write(*written, transformer, bound, corpus, cache_directory, seed);
  if (const auto* scaled = std::get_if<ScaledDirection>(&fault.change)) return scale(*scaled, transformer, features);
  if (const auto* heads = std::get_if<SilencedHeads>(&fault.change)) return silence(*heads, transformer);
  return add_noise(std::get<WeightNoise>(fault.change), transformer);
}

bool says_fault(const Fault& fault, const model::Transformer& transformer) {
  const auto* written = std::get_if<WrittenFault>(&fault.change);
  if (!written) return true;
  std::vector<editing::ContinuedPrompt> asked = {{written->prompt.tokens, written->target}};
  if (!written->displaced.empty()) asked.push_back({written->prompt.tokens, written->displaced});
  const auto scores = editing::target_scores(transformer, asked);
  if (scores.size() == 1) return scores.front().is_argmax;
  const auto per_token = [&](std::size_t i) {
    return scores[i].log_probability / static_cast<double>(asked[i].target.size());
  };
  return per_token(0) > per_token(1);
}

}  // namespace proviso::runtime
