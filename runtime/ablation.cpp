#include "runtime/ablation.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/model/pass_groups.hpp"
#include "runtime/model/random.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

std::vector<std::size_t> resampled_from(const std::vector<std::size_t>& lengths, std::uint64_t seed) {
  std::vector<std::size_t> givers;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] > 1) givers.push_back(i);
  }
  model::NormalSource random(seed);
  auto from = givers;
  for (std::size_t i = from.size(); i-- > 1;) std::swap(from[i], from[random.below(i)]);
  std::vector<std::size_t> result(lengths.size());
  for (std::size_t i = 0; i < givers.size(); ++i) result[givers[i]] = from[i];
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] == 1) result[i] = givers[random.below(givers.size())];
  }
  return result;
}

std::int64_t resampled_position(std::int64_t position, std::int64_t length, const Mask& count) {
  const std::int64_t others = std::ssize(count);
  const std::int64_t same = std::clamp<std::int64_t>(position - length + others, 0, others - 1);
  const auto counts = [&](std::int64_t at) { return at >= 0 && at < others && count[static_cast<std::size_t>(at)]; };
  std::int64_t away = 0;
  while (away < others && !counts(same + away) && !counts(same - away)) ++away;
  return away == others ? same : counts(same + away) ? same + away : same - away;
}

AblationValues::AblationValues(dsl::Ablation kind, std::vector<std::vector<PromptReading>> sets, std::uint64_t seed)
    : kind_(kind), sets_(std::move(sets)) {
  if (kind == dsl::Ablation::mean) average();
  if (kind != dsl::Ablation::resample) return;
  for (std::size_t i = 0; i < sets_.size(); ++i) draw(sets_[i], model::mix_seed(seed, i));
}

AblationValues::AblationValues(std::vector<std::pair<std::vector<std::int64_t>, PromptReading>> donors)
    : kind_(dsl::Ablation::resample), place_by_place_(true), sets_(1) {
  for (auto& [prompt, reading] : donors) sets_.front().push_back(std::move(reading));
  for (std::size_t i = 0; i < donors.size(); ++i) donors_.emplace(donors[i].first, &sets_.front()[i]);
}

void AblationValues::average() {
  std::map<FeaturePlace, std::pair<double, std::int64_t>> sums;  // of the prompts' means; prompts
  for (const auto& set : sets_) {
    for (const auto& prompt : set) {
      for (const auto& [place, products] : prompt.products) {
        const Mask& ordinary = prompt.ordinary.at(place.first);
        double sum = 0;
        std::int64_t count = 0;
        for (std::size_t i = 0; i < products.size(); ++i) {
          if (!ordinary[i]) continue;
          sum += products[i];
          ++count;
        }
        if (count == 0) continue;
        sums[place].first += sum / static_cast<double>(count);
        ++sums[place].second;
      }
    }
  }
  for (const auto& [place, sum] : sums) means_[place] = static_cast<float>(sum.first / static_cast<double>(sum.second));
}

void AblationValues::draw(const std::vector<PromptReading>& set, std::uint64_t seed) {
  std::vector<std::size_t> lengths;
  for (const auto& prompt : set) lengths.push_back(prompt.tokens.size());
  const auto from = resampled_from(lengths, seed);
  for (std::size_t i = 0; i < set.size(); ++i) donors_.emplace(set[i].tokens, &set[from[i]]);
}

float AblationValues::at(const FeaturePlace& place, std::span<const std::int64_t> prompt, std::int64_t position) const {
  if (kind_ == dsl::Ablation::zero) return 0;
  if (kind_ == dsl::Ablation::mean) return means_.at(place);
  const PromptReading& donor = *donors_.find(prompt)->second;
  if (place_by_place_) {
    const auto& products = donor.products.at(place);
    return products[static_cast<std::size_t>(std::min(position, std::ssize(products) - 1))];
  }
  const auto from = resampled_position(position, std::ssize(prompt), donor.ordinary.at(place.first));
  return donor.products.at(place)[static_cast<std::size_t>(from)];
}

std::vector<PromptReading> read_prompts(const model::Transformer& transformer, const HookProgram& program,
                                        const std::set<FeaturePlace>& places,
                                        const std::vector<const Sequence*>& prompts) {
  std::optional<dsl::Site> last;
  for (const auto& [site, feature] : places) {
    if (!last || *last < dsl::whole(site)) last = dsl::whole(site);
  }
  std::vector<PromptReading> readings(prompts.size());
  const auto length = [&](std::size_t i) { return std::ssize(prompts[i]->tokens); };
  HookPass hooks(program);
  for (const auto& [begin, end] : model::pass_groups(prompts.size(), length)) {
    std::vector<model::Row> rows;
    std::vector<RowMemory> memories;
    for (std::size_t i = begin; i < end; ++i) {
      rows.push_back({prompts[i]->tokens, prompts[i]->prompt_length});
      memories.push_back(program.conditions().begin_row(prompts[i]->prompt));
    }
    std::vector<RowMemory*> pointers;
    for (auto& memory : memories) pointers.push_back(&memory);
    hooks.begin(std::move(pointers));
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = &hooks;
    if (last->kind == dsl::SiteKind::logits) {
      pass.logits_at = std::nullopt;
      pass.on_logits = [](std::int64_t, const at::Tensor&) {};
    } else {
      pass.stop_after = last;
    }
    const auto layout = transformer.forward(pass);
    for (std::size_t i = begin; i < end; ++i) {
      const auto& span = layout.rows[i - begin];
      PromptReading& reading = readings[i];
      reading.tokens = prompts[i]->tokens;
      const auto part = [&](std::span<const float> values) { return values.subspan(span.begin, span.length); };
      for (const auto& place : places) {
        const auto products = part(hooks.product(place));
        reading.products[place].assign(products.begin(), products.end());
        const auto norms = part(hooks.norm(model::sink_site(place.first, transformer.config())));
        reading.ordinary[place.first] = model::ordinary_positions(norms);
      }
    }
  }
  return readings;
}

}  // namespace proviso::runtime
