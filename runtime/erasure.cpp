#include "runtime/erasure.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "editing/last_values.hpp"
#include "editing/leace.hpp"
#include "runtime/features/probe_accuracy.hpp"
#include "runtime/model/random.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

namespace {

using dsl::Site;
using dsl::SiteKind;

constexpr double kRounding = 1e-6;

/// Prompts with their classes.
struct Labelled {
  std::vector<model::Row> rows;
  std::vector<std::int64_t> classes;

  void add(const std::vector<std::int64_t>& tokens, std::int64_t label) {
    rows.push_back({tokens, std::ssize(tokens)});
    classes.push_back(label);
  }
  at::Tensor labels() const { return at::tensor(classes, at::kLong); }
};

struct Split {
  Labelled fitted, held_out;
  std::int64_t classes = 0;
};

Split split(const dsl::Erase& erase, const BoundRules& bound, const ErasureSettings& settings) {
  std::map<std::string, std::int64_t> by_answer;
  std::vector<std::vector<const BoundPrompt*>> members;
  for (const dsl::PromptsId set : erase.sets) {
    if (!erase.by_answer) members.emplace_back();
    for (const auto& prompt : bound.prompts[set]) {
      if (erase.by_answer) {
        const auto [found, fresh] = by_answer.emplace(prompt.answer_texts.front(), members.size());
        if (fresh) members.emplace_back();
        members[found->second].push_back(&prompt);
      } else {
        members.back().push_back(&prompt);
      }
    }
  }
  Split made;
  made.classes = std::ssize(members);
  for (std::size_t label = 0; label < members.size(); ++label) {
    auto& own = members[label];
    model::NormalSource random(model::mix_seed(settings.seed, label));
    for (std::size_t i = own.size(); i > 1; --i) std::swap(own[i - 1], own[random.below(i)]);
    // Two at least stay to be fitted.
    const auto kept = std::min(own.size() - 2, static_cast<std::size_t>(settings.held_out * own.size()));
    for (std::size_t i = 0; i < own.size(); ++i)
      (i < kept ? made.held_out : made.fitted).add(own[i]->tokens, static_cast<std::int64_t>(label));
  }
  return made;
}

/// The last layer after which the stream is a sum of erased writers only.
std::optional<std::int64_t> stream_covered(const std::vector<Site>& sites, std::int64_t layers) {
  const std::set<Site> erased(sites.begin(), sites.end());
  if (!erased.contains({SiteKind::embed})) return std::nullopt;
  std::optional<std::int64_t> covered;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    if (!erased.contains({SiteKind::attn_out, layer}) || !erased.contains({SiteKind::mlp_out, layer})) break;
    covered = layer;
  }
  return covered;
}

editing::ClassMoments moments_of(const editing::LastValues& last, const Labelled& prompts, std::int64_t classes) {
  editing::ClassMoments moments(last.values.size(1), classes);
  const auto ordinary = last.ordinary.cpu();
  moments.add(last.values.cpu().index({ordinary}), prompts.labels().index({ordinary}));
  return moments;
}

using Probes = std::vector<std::pair<std::string, std::optional<ProbeAccuracy>>>;

Probes probed(const model::Transformer& transformer, const std::vector<std::pair<std::string, Site>>& places,
              const Split& prompts) {
  Probes found;
  if (prompts.held_out.rows.empty()) return found;
  const auto labels = prompts.held_out.labels();
  for (const auto& [name, site] : places)
    found.emplace_back(name, probe_accuracy(editing::last_values(transformer, prompts.held_out.rows, site).values.cpu(),
                                            labels, prompts.classes));
  return found;
}

void add(const Probes& probes, const char* when, editing::NamedNumbers& numbers) {
  for (const auto& [name, accuracy] : probes) {
    if (!accuracy) continue;
    numbers.emplace_back(name + "linear_probe_" + when, accuracy->logistic);
    numbers.emplace_back(name + "neighbour_probe_" + when, accuracy->neighbours);
  }
}

std::string listed(const std::vector<Site>& sites) {
  std::string text;
  for (const auto& site : sites) text += (text.empty() ? "" : ", ") + dsl::to_string(site);
  return text;
}

}  // namespace

std::vector<Site> erased_sites(const dsl::Erase& erase, const BoundRules& bound) {
  std::set<Site> sites;
  for (const auto& site : bound.expand(erase.sites)) sites.insert(site);
  if (erase.sites.empty()) {
    sites.insert({SiteKind::embed});
    for (std::int64_t layer = 0; layer < bound.card->config.layers; ++layer) {
      sites.insert({SiteKind::attn_out, layer});
      sites.insert({SiteKind::mlp_out, layer});
    }
  }
  return {sites.begin(), sites.end()};
}

namespace {

/// One `erase` on its way through the sites.
class LabelEraser {
 public:
  LabelEraser(const dsl::Erase& erase, const BoundRules& bound, model::Transformer& transformer,
              const ErasureSettings& settings)
      : transformer_(transformer),
        settings_(settings),
        sites_(erased_sites(erase, bound)),
        prompts_(split(erase, bound, settings)),
        covered_(stream_covered(sites_, transformer.config().layers)),
        held_(covered_ ? Site{SiteKind::resid_post, *covered_} : sites_.back()) {
    const Site end{SiteKind::resid_post, transformer.config().layers - 1};
    places_ = {{"", held_}};
    if (held_ != end) places_.emplace_back("end_of_stream_", end);
    before_ = probed(transformer, places_, prompts_);
  }

  const std::vector<Site>& sites() const { return sites_; }

  /// The changes that erase at `site`, one of its own, on the model as it is now; none where the classes leave no
  /// trace.
  std::variant<std::vector<editing::WeightDelta>, editing::Refusal> fit(const Site& site, const at::Tensor& sinks) {
    const auto last = editing::last_values(transformer_, prompts_.fitted.rows, site);
    const auto moments = moments_of(last, prompts_.fitted, prompts_.classes);
    sinks_left_out_ += (~last.ordinary).sum().item<std::int64_t>();
    const auto cross = moments.cross_covariance();
    auto made = editing::leace(moments, settings_.threshold, sinks);
    if (const auto* refusal = std::get_if<editing::Refusal>(&made))
      return editing::Refusal{dsl::to_string(site) + ": " + refusal->reason};
    const auto& eraser = std::get<editing::Eraser>(made);
    // As at the embedding where all prompts end in one word.
    if (eraser.change.write.size(1) == 0) {
      without_trace_.push_back(site);
      dropped_ = std::max(dropped_, cross.norm().item<double>());
      return std::vector<editing::WeightDelta>();
    }
    auto folded = editing::fold(eraser.change, transformer_, site);
    if (auto* refusal = std::get_if<editing::Refusal>(&folded)) return std::move(*refusal);
    const auto& [write, read, constant] = eraser.change;
    left_ = std::max(left_, ((cross - write.mm(read.mm(cross))).norm() / cross.norm()).item<double>());
    erased_.emplace_back(site, cross.norm().item<double>());
    shrinkage_ = std::max(shrinkage_, eraser.shrinkage);
    least_share_ = std::min(least_share_, eraser.least_change_share);
    most_rank_ = std::max(most_rank_, write.size(1));
    return std::get<std::vector<editing::WeightDelta>>(std::move(folded));
  }

  bool found_trace() const { return !erased_.empty(); }

  /// Measured on the model with all changes.
  editing::Certificate certificate() const {
    double left_on_model = 0;
    for (const auto& [site, cross] : erased_) {
      const auto now =
          moments_of(editing::last_values(transformer_, prompts_.fitted.rows, site), prompts_.fitted, prompts_.classes);
      left_on_model = std::max(left_on_model, now.cross_covariance().norm().item<double>() / cross);
    }
    // Vectors that were left out at one site and not at another are in one sum and not in the other.
    const bool stream_holds = covered_ && sinks_left_out_ == 0 && left_ < kRounding && dropped_ < kRounding;
    editing::Certificate certificate;
    certificate.method = "leace";
    certificate.parameters = {
        {"classes", std::to_string(prompts_.classes)},
        {"fitted_prompts", std::to_string(prompts_.fitted.rows.size())},
        {"held_out_prompts", std::to_string(prompts_.held_out.rows.size())},
        {"threshold", editing::short_text(settings_.threshold)},
        {"seed", std::to_string(settings_.seed)},
        {"sites", listed(sites_)},
        {"holds_at", stream_holds ? "each of them, and the stream up to " + dsl::to_string(held_) : "each of them"},
    };
    if (!without_trace_.empty()) certificate.parameters.emplace_back("without_trace", listed(without_trace_));
    certificate.algebra = {{"cross_covariance_left", left_},
                           {"rank", static_cast<double>(most_rank_)},
                           {"covariance_shrinkage", shrinkage_},
                           {"least_change_share", least_share_}};
    auto& measured = certificate.measured;
    measured = {{"cross_covariance_left", left_on_model},
                {"sink_positions_left_out", static_cast<double>(sinks_left_out_)}};
    if (!before_.empty()) {
      const auto counts = at::bincount(prompts_.held_out.labels(), {}, prompts_.classes);
      measured.emplace_back("chance", (counts.max().to(at::kDouble) / counts.sum()).item<double>());
    }
    add(before_, "before", measured);
    add(probed(transformer_, places_, prompts_), "after", measured);
    return certificate;
  }

 private:
  model::Transformer& transformer_;
  const ErasureSettings& settings_;
  std::vector<Site> sites_;
  Split prompts_;
  std::optional<std::int64_t> covered_;
  Site held_;  ///< where the probes read
  std::vector<std::pair<std::string, Site>> places_;
  Probes before_;
  std::vector<std::pair<Site, double>> erased_;  ///< with the norm of the cross-covariance that was there
  std::vector<Site> without_trace_;
  double left_ = 0, dropped_ = 0, shrinkage_ = 0, least_share_ = 1;
  std::int64_t most_rank_ = 0, sinks_left_out_ = 0;
};

}  // namespace

std::variant<Erasure, editing::Refusal> erase_labels(const std::vector<const dsl::Erase*>& erasures,
                                                     const BoundRules& bound, model::Transformer& transformer,
                                                     const ErasureSettings& settings) {
  const at::NoGradGuard no_grad;
  // Of the model as it is now: nothing is kept.
  const auto sinks = model::sink_states(transformer, *bound.tokenizer, "");
  std::vector<LabelEraser> erasers;
  std::set<Site> sites;
  for (const auto* erase : erasures) {
    erasers.emplace_back(*erase, bound, transformer, settings);
    sites.insert(erasers.back().sites().begin(), erasers.back().sites().end());
  }
  Erasure erasure;
  std::vector<editing::TensorChange> changes;
  editing::AppliedDeltas applied(transformer);
  for (const auto& site : sites) {
    for (auto& eraser : erasers) {
      if (std::ranges::find(eraser.sites(), site) == eraser.sites().end()) continue;
      auto fitted = eraser.fit(site, sinks);
      if (auto* refusal = std::get_if<editing::Refusal>(&fitted)) return std::move(*refusal);
      for (auto& delta : std::get<std::vector<editing::WeightDelta>>(fitted)) {
        changes.push_back(editing::describe_change(transformer, delta));
        applied.apply(delta);
        erasure.deltas.push_back(std::move(delta));
      }
    }
  }
  for (const auto& eraser : erasers) {
    if (!eraser.found_trace())
      return editing::Refusal{"the classes leave no linear trace at the prompts' last tokens: give other prompts"};
    erasure.certificates.push_back(eraser.certificate());
  }
  erasure.certificates.front().changes = std::move(changes);
  return erasure;
}

}  // namespace proviso::runtime
