#pragma once

// What can be said of `SiteSpec`s while no model says how many layers and heads there are.

#include <string>

#include "dsl/site.hpp"

namespace proviso::dsl {

/// Whether some model has a site that both name. `resid_pre[5]` and `resid_post[*]` overlap; so do `z[3]`
/// (all heads) and `z[*] head 2`.
bool overlap(const SiteSpec& a, const SiteSpec& b);

/// Whether in every model `whole` names each site that `part` does.
bool covers(const SiteSpec& whole, const SiteSpec& part);

/// The first site that a forward pass reaches among those named, as written: `mlp_out[8]` of `mlp_out[8..20]`.
Site earliest(const SiteSpec& spec);

/// "the stream", "one head": equal where a direction of one site can act at the other.
std::string width_name(const SiteSpec& spec);

}  // namespace proviso::dsl
