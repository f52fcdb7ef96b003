#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "dsl/site.hpp"

namespace proviso::dsl {

/// Why a name of TransformerLens is not read, and what to write in its place.
struct NotEqual {
  std::string reason;
  std::string help;
  std::string instead = {};  ///< the site that the help names, which is not quite the same
};

/// `blocks.14.hook_resid_post` -> resid_post[14]. Only names that mean the same in every family are read.
std::variant<SiteSpec, NotEqual> site_from_transformer_lens(std::string_view name);

/// resid_post[14] -> `blocks.14.hook_resid_post`; nothing where the site has no equal there. A head is not in the name.
std::optional<std::string> transformer_lens_name(const Site& site);

/// Whether a word reads like one of TransformerLens' names at all: `blocks.…`, `hook_…`, `ln_final.…`.
bool is_transformer_lens_name(std::string_view name);

}  // namespace proviso::dsl
