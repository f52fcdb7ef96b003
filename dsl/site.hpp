#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dsl/source.hpp"

namespace proviso::dsl {

enum class SiteKind {
#define PROVISO_SITE(name, layered, heads, width) name,
#include "dsl/sites.def"
#undef PROVISO_SITE
};

enum class SiteWidth { stream, query, key_value, neurons, vocabulary, pattern };

std::string_view site_name(SiteKind kind);  ///< "resid_post"
std::optional<SiteKind> site_from_name(std::string_view name);
bool site_has_layer(SiteKind kind);
bool site_has_heads(SiteKind kind);
SiteWidth site_width(SiteKind kind);

/// One index, a range, a list or `*`, as written: `18`, `8..20`, `1, 4..6`, `*`.
struct IndexSet {
  struct Range {
    std::int64_t first = 0;
    std::int64_t last = 0;  ///< included
    bool operator==(const Range&) const = default;
  };
  bool all = false;
  std::vector<Range> ranges;

  bool operator==(const IndexSet&) const = default;
  /// The indices among 0 … count−1, ascending and once each; out-of-range ones are left out (bind reports them).
  std::vector<std::int64_t> expand(std::int64_t count) const;
};

/// Sites as a rule file writes them: `mlp_out[*]`, `z[3] head 0..2`, `embed`.
struct SiteSpec {
  SiteKind kind = SiteKind::embed;
  IndexSet layers;                ///< empty where the site has no layer
  std::optional<IndexSet> heads;  ///< nothing: all heads, concatenated
  Span span;
};

/// One place in one model: `resid_post[18]`, `z[3] head 2`. `layer` is −1 where the site has none;
/// `head` is −1 for the whole width. Canonical names are used: `resid_pre[0]` is `embed`, and
/// `resid_pre[L]` is `resid_post[L−1]` (`canonical`).
struct Site {
  SiteKind kind = SiteKind::embed;
  std::int64_t layer = -1;
  std::int64_t head = -1;

  bool operator==(const Site&) const = default;
  /// As a forward pass reaches them, the heads of a site one after another.
  std::strong_ordering operator<=>(const Site& other) const;
};

Site canonical(Site site);
/// The whole width of a head's site.
Site whole(Site site);
/// Whether a forward pass reaches `a` before `b`: the heads of one site are reached together.
bool reached_before(const Site& a, const Site& b);
std::string to_string(const Site& site);      ///< "resid_post[18]", "z[3] head 2"
std::string to_string(const SiteSpec& spec);  ///< as `fmt` writes it

/// Reads one site as the language writes it, or by its TransformerLens name (`blocks.14.hook_resid_post`,
/// `hook_embed` where the model has no position table is `embed`). Nothing where the text is no site.
std::optional<SiteSpec> parse_site(std::string_view text);

}  // namespace proviso::dsl
