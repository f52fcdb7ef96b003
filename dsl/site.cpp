#include "dsl/site.hpp"

#include <algorithm>
#include <iterator>
#include <tuple>

namespace proviso::dsl {
namespace {

struct Entry {
  std::string_view name;
  bool layered;
  bool heads;
  SiteWidth width;
};

constexpr Entry kEntries[] = {
#define PROVISO_SITE(name, layered, heads, width) {#name, layered, heads, SiteWidth::width},
#include "dsl/sites.def"
#undef PROVISO_SITE
};

const Entry& entry(SiteKind kind) { return kEntries[static_cast<std::size_t>(kind)]; }

std::string to_string(const IndexSet::Range& range) {
  const std::string first = std::to_string(range.first);
  return range.first == range.last ? first : first + ".." + std::to_string(range.last);
}

std::string inside_brackets(const IndexSet& set) {
  if (set.all) return "*";
  std::string text;
  for (const IndexSet::Range& range : set.ranges) text += (text.empty() ? "" : ", ") + to_string(range);
  return text;
}

}  // namespace

std::string_view site_name(SiteKind kind) { return entry(kind).name; }
bool site_has_layer(SiteKind kind) { return entry(kind).layered; }
bool site_has_heads(SiteKind kind) { return entry(kind).heads; }
SiteWidth site_width(SiteKind kind) { return entry(kind).width; }

std::optional<SiteKind> site_from_name(std::string_view name) {
  const auto found =
      std::find_if(std::begin(kEntries), std::end(kEntries), [&](const Entry& e) { return e.name == name; });
  if (found == std::end(kEntries)) return std::nullopt;
  return static_cast<SiteKind>(found - std::begin(kEntries));
}

std::vector<std::int64_t> IndexSet::expand(std::int64_t count) const {
  std::vector<bool> wanted(static_cast<std::size_t>(std::max<std::int64_t>(count, 0)), all);
  for (const Range& range : ranges) {
    for (std::int64_t i = std::max<std::int64_t>(range.first, 0); i <= std::min(range.last, count - 1); ++i)
      wanted[i] = true;
  }
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < count; ++i) {
    if (wanted[i]) indices.push_back(i);
  }
  return indices;
}

Site canonical(Site site) {
  if (site.kind != SiteKind::resid_pre) return site;
  if (site.layer == 0) return {SiteKind::embed, -1, site.head};
  return {SiteKind::resid_post, site.layer - 1, site.head};
}

std::strong_ordering Site::operator<=>(const Site& other) const {
  // What comes before the layers, the layers one after another, what comes after them.
  const auto key = [](const Site& raw) {
    const Site site = canonical(raw);
    const int part = site_has_layer(site.kind) ? 1 : site.kind == SiteKind::embed ? 0 : 2;
    return std::tuple(part, site.layer, static_cast<int>(site.kind), site.head);
  };
  return key(*this) <=> key(other);
}

Site whole(Site site) {
  site.head = -1;
  return site;
}

bool reached_before(const Site& a, const Site& b) { return whole(a) < whole(b); }

std::string to_string(const Site& site) {
  std::string text(site_name(site.kind));
  if (site.layer >= 0) text += "[" + std::to_string(site.layer) + "]";
  if (site.head >= 0) text += " head " + std::to_string(site.head);
  return text;
}

std::string to_string(const SiteSpec& spec) {
  std::string text(site_name(spec.kind));
  if (site_has_layer(spec.kind)) text += "[" + inside_brackets(spec.layers) + "]";
  if (spec.heads) {
    const bool list = !spec.heads->all && spec.heads->ranges.size() != 1;
    text += " head " + (list ? "[" + inside_brackets(*spec.heads) + "]" : inside_brackets(*spec.heads));
  }
  return text;
}

}  // namespace proviso::dsl
