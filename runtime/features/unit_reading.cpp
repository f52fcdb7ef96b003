#include "runtime/features/unit_reading.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <utility>

#include "editing/second_moments.hpp"
#include "runtime/autoencoders/activations.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

namespace {

constexpr std::int64_t kAtOnce = 512;  // positions whose latents are in memory

/// Keeps the values of the units, and nothing of all else that flows through a pass.
class UnitVisitor : public model::SiteVisitor {
 public:
  UnitVisitor(const model::Transformer& transformer, const std::vector<UnitSite>& sites, dsl::TokenChoice::Kind token,
              std::vector<UnitReading>& readings)
      : transformer_(transformer), sites_(sites), token_(token), readings_(readings), values_(sites.size()) {
    for (const auto& unit : sites) streams_.push_back(model::sink_site(unit.site, transformer.config()));
  }

  void begin(std::size_t first_prompt) { first_prompt_ = first_prompt; }
  dsl::Site last() const {
    dsl::Site last = streams_.front();
    for (const auto& unit : sites_) last = std::max(last, dsl::whole(unit.site));
    return std::max(last, *std::max_element(streams_.begin(), streams_.end()));
  }

  bool wants(const dsl::Site& site) const override {
    return std::ranges::find(streams_, site) != streams_.end() ||
           std::ranges::any_of(sites_, [&](const UnitSite& unit) { return dsl::whole(unit.site) == site; });
  }

  void visit(const dsl::Site& site, at::Tensor& x, const model::PackedLayout& layout) override {
    if (std::ranges::find(streams_, site) != streams_.end())
      ordinary_[site] = editing::ordinary_positions(x, layout).cpu();
    for (std::size_t i = 0; i < sites_.size(); ++i) {
      if (dsl::whole(sites_[i].site) != site) continue;
      const auto [begin, width] = site_part(transformer_.card(), sites_[i].site);
      read(i, x.narrow(1, begin, width), layout);
    }
  }

  void end() {
    for (std::size_t i = 0; i < sites_.size(); ++i) readings_[i].values = at::cat(values_[i]);
  }

 private:
  /// The packed positions that count, ascending, and the row of each.
  std::pair<at::Tensor, at::Tensor> chosen(std::size_t unit, const model::PackedLayout& layout) {
    const auto& ordinary = ordinary_.at(streams_[unit]);
    std::vector<std::int64_t> positions, rows;
    for (std::size_t r = 0; r < layout.rows.size(); ++r) {
      const auto& span = layout.rows[r];
      const std::int64_t end = span.begin + span.length;
      const auto before = positions.size();
      for (std::int64_t at = token_ == dsl::TokenChoice::Kind::all ? span.begin : end - 1; at < end; ++at) {
        if (!ordinary[at].item<bool>()) continue;
        positions.push_back(at);
        rows.push_back(static_cast<std::int64_t>(r));
      }
      if (positions.size() == before && !readings_[unit].sink) readings_[unit].sink = first_prompt_ + r;
    }
    return {at::tensor(positions, at::kLong), at::tensor(rows, at::kLong)};
  }

  void read(std::size_t unit, const at::Tensor& x, const model::PackedLayout& layout) {
    const auto& autoencoder = sites_[unit].autoencoder;
    const auto [positions, rows] = chosen(unit, layout);
    const auto units = autoencoder ? autoencoder->card().d_sae : x.size(1);
    auto sums = at::zeros({std::ssize(layout.rows), units}, at::kFloat);
    for (std::int64_t begin = 0; begin < positions.size(0); begin += kAtOnce) {
      const auto count = std::min(kAtOnce, positions.size(0) - begin);
      const auto part = x.index_select(0, positions.narrow(0, begin, count).to(x.device())).to(at::kFloat);
      sums.index_add_(0, rows.narrow(0, begin, count),
                      (autoencoder ? autoencoder->encode(part).activations : part).cpu());
    }
    const auto counts = at::bincount(rows, {}, std::ssize(layout.rows)).clamp_min(1).unsqueeze(1);
    values_[unit].push_back(sums / counts);
  }

  const model::Transformer& transformer_;
  const std::vector<UnitSite>& sites_;
  const dsl::TokenChoice::Kind token_;
  std::vector<UnitReading>& readings_;
  std::vector<dsl::Site> streams_;               // where the positions of each site are judged
  std::map<dsl::Site, at::Tensor> ordinary_;     // [n] bool, of this pass
  std::vector<std::vector<at::Tensor>> values_;  // by site and pass: [rows, units] float32
  std::size_t first_prompt_ = 0;
};

}  // namespace

std::vector<UnitReading> read_units(const model::Transformer& transformer, const BoundPrompts& prompts,
                                    const std::vector<UnitSite>& sites, dsl::TokenChoice::Kind token,
                                    const Progress& progress) {
  const at::NoGradGuard no_grad;
  std::vector<UnitReading> readings(sites.size());
  if (sites.empty() || prompts.empty()) return readings;
  std::vector<model::Row> rows;
  for (const auto& prompt : prompts) rows.push_back({prompt.tokens, std::ssize(prompt.tokens)});
  UnitVisitor visitor(transformer, sites, token, readings);
  each_pass(rows, [&](std::size_t first, std::size_t count) {
    if (progress) progress("reading neurons and latents", static_cast<std::int64_t>(first), std::ssize(rows));
    const auto part = some_rows(rows, first, count);
    visitor.begin(first);
    model::Pass pass;
    pass.rows = &part;
    pass.visitor = &visitor;
    pass.stop_after = visitor.last();
    transformer.forward(pass);
  });
  visitor.end();
  if (progress) progress({}, 0, 0);
  return readings;
}

}  // namespace proviso::runtime
