#include "dsl/transformer_lens.hpp"

#include <charconv>
#include <utility>

namespace proviso::dsl {
namespace {

// Within a block: a hook point, and the site that holds the same tensor. `hook_q`, `hook_k` and `hook_v` lie
// before norm and rotary embedding (`hook_rot_q` after); `hook_attn_out` and `hook_mlp_out` lie after a post-norm.
constexpr std::pair<std::string_view, SiteKind> kBlockHooks[] = {
    {"hook_resid_pre", SiteKind::resid_pre},
    {"hook_resid_mid", SiteKind::resid_mid},
    {"hook_resid_post", SiteKind::resid_post},
    {"hook_attn_out", SiteKind::attn_out},
    {"hook_mlp_out", SiteKind::mlp_out},
    {"attn.hook_q", SiteKind::q},
    {"attn.hook_k", SiteKind::k},
    {"attn.hook_v", SiteKind::v},
    {"attn.hook_z", SiteKind::z},
    {"attn.hook_pattern", SiteKind::pattern},
    {"mlp.hook_pre", SiteKind::mlp_pre},
    {"mlp.hook_post", SiteKind::mlp_post},
};

NotEqual no_such_site(std::string_view name) {
  return {"`" + std::string(name) + "` of TransformerLens has no equal site here",
          "the sites are embed, resid_pre, q, k, v, pattern, z, attn_out, resid_mid, mlp_pre, mlp_post, mlp_out, "
          "resid_post, "
          "final_norm and logits",
          ""};
}

}  // namespace

bool is_transformer_lens_name(std::string_view name) {
  return name.starts_with("blocks.") || name.starts_with("hook_") || name.starts_with("ln_final.");
}

std::variant<SiteSpec, NotEqual> site_from_transformer_lens(std::string_view name) {
  // Where a model adds position embeddings (gpt2), `hook_embed` is what it has before them and `embed` after.
  // The name alone cannot tell, and reading the wrong one would be silent.
  if (name == "hook_embed") {
    return NotEqual{"`hook_embed` leaves out the position embeddings that some models add, and `embed` holds them",
                    "write `embed`, which is `blocks.0.hook_resid_pre`", "embed"};
  }
  // The final norm's gain comes after `hook_normalized`, or was folded into the unembedding; `final_norm` is what
  // the unembedding as stored multiplies, gain included.
  if (name == "ln_final.hook_normalized") {
    return NotEqual{"`ln_final.hook_normalized` lies before the final norm's gain, and `final_norm` after it",
                    "write `final_norm`, and expect the gain to be in it", "final_norm"};
  }
  constexpr std::string_view kBlocks = "blocks.";
  if (!name.starts_with(kBlocks)) return no_such_site(name);
  const std::string_view rest = name.substr(kBlocks.size());
  std::int64_t layer = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
  if (error != std::errc() || layer < 0 || end == rest.data() + rest.size() || *end != '.') return no_such_site(name);
  const std::string_view hook = rest.substr(static_cast<std::size_t>(end - rest.data()) + 1);
  for (const auto& [hook_name, kind] : kBlockHooks) {
    if (hook == hook_name) {
      SiteSpec spec;
      spec.kind = kind;
      spec.layers.ranges = {{layer, layer}};
      return spec;
    }
  }
  return no_such_site(name);
}

std::optional<std::string> transformer_lens_name(const Site& site) {
  if (canonical(site).kind == SiteKind::embed) return "blocks.0.hook_resid_pre";
  for (const auto& [hook_name, kind] : kBlockHooks) {
    if (kind == site.kind) return "blocks." + std::to_string(site.layer) + "." + std::string(hook_name);
  }
  return std::nullopt;
}

}  // namespace proviso::dsl
