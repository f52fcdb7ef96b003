#include "dsl/site_reach.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace proviso::dsl {
namespace {

constexpr IndexSet::Range kEvery{0, std::numeric_limits<std::int64_t>::max()};

std::vector<IndexSet::Range> ranges(const IndexSet& set) { return set.all ? std::vector{kEvery} : set.ranges; }

/// Layers of one kind of site, under its canonical name.
struct Reach {
  SiteKind kind;
  IndexSet::Range layers;
  bool but_last = false;  ///< in no model its last layer: `resid_pre[*]` ends one before `resid_post[*]`
};

std::vector<Reach> reach(const SiteSpec& spec) {
  if (!site_has_layer(spec.kind)) return {{spec.kind, {-1, -1}}};
  std::vector<Reach> result;
  for (const IndexSet::Range& layers : ranges(spec.layers)) {
    if (spec.kind != SiteKind::resid_pre) {
      result.push_back({spec.kind, layers});
      continue;
    }
    if (layers.first == 0) result.push_back({SiteKind::embed, {-1, -1}});
    if (layers.last > 0) {
      result.push_back({SiteKind::resid_post,
                        {std::max<std::int64_t>(layers.first - 1, 0), layers.last - 1},
                        layers.last == kEvery.last});
    }
  }
  return result;
}

bool meet(const IndexSet::Range& a, const IndexSet::Range& b) { return a.first <= b.last && b.first <= a.last; }

bool heads_meet(const std::optional<IndexSet>& a, const std::optional<IndexSet>& b) {
  if (!a || !b) return true;
  const auto one = ranges(*a), other = ranges(*b);
  return std::any_of(one.begin(), one.end(), [&](const auto& x) {
    return std::any_of(other.begin(), other.end(), [&](const auto& y) { return meet(x, y); });
  });
}

}  // namespace

bool overlap(const SiteSpec& a, const SiteSpec& b) {
  if (!heads_meet(a.heads, b.heads)) return false;
  const auto one = reach(a), other = reach(b);
  return std::any_of(one.begin(), one.end(), [&](const Reach& x) {
    return std::any_of(other.begin(), other.end(),
                       [&](const Reach& y) { return x.kind == y.kind && meet(x.layers, y.layers); });
  });
}

bool covers(const SiteSpec& whole, const SiteSpec& part) {
  // One head of a site is another part of its width than all of them.
  if (whole.heads != part.heads && !(whole.heads && whole.heads->all && part.heads)) return false;
  const auto one = reach(whole), other = reach(part);
  return std::all_of(other.begin(), other.end(), [&](const Reach& y) {
    return std::any_of(one.begin(), one.end(), [&](const Reach& x) {
      return x.kind == y.kind && x.layers.first <= y.layers.first && y.layers.last <= x.layers.last &&
             (!x.but_last || y.but_last || part.kind == SiteKind::resid_pre);
    });
  });
}

Site earliest(const SiteSpec& spec) {
  Site site{.kind = spec.kind, .layer = -1, .head = -1};
  if (!site_has_layer(spec.kind)) return site;
  const auto all = ranges(spec.layers);
  const auto first =
      std::min_element(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  site.layer = first == all.end() ? 0 : first->first;
  return site;
}

std::string width_name(const SiteSpec& spec) {
  if (spec.heads) return "one head";
  switch (site_width(spec.kind)) {
    case SiteWidth::stream:
      return "the stream";
    case SiteWidth::query:
      return "all query heads";
    case SiteWidth::key_value:
      return "all key-value heads";
    case SiteWidth::neurons:
      return "the neurons";
    case SiteWidth::vocabulary:
      return "the vocabulary";
    case SiteWidth::pattern:
      return "the text";
  }
  return "";
}

}  // namespace proviso::dsl
