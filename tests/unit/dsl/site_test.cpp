#include "dsl/site.hpp"

#include <catch2/catch.hpp>

namespace proviso::dsl {
namespace {

TEST_CASE("a site alone is read as in a rule file") {
  const auto text = [](std::string_view site) {
    const auto spec = parse_site(site);
    return spec ? to_string(*spec) : "nothing";
  };
  CHECK(text("resid_post[18]") == "resid_post[18]");
  CHECK(text(" z[3] head 0..2 ") == "z[3] head 0..2");
  CHECK(text("mlp_out[1, 4..6]") == "mlp_out[1, 4..6]");
  CHECK(text("attn_out[*]") == "attn_out[*]");
  CHECK(text("embed") == "embed");
  CHECK(text("blocks.14.hook_resid_post") == "resid_post[14]");
  CHECK(text("blocks.14.attn.hook_z head 3") == "z[14] head 3");

  for (const char* wrong : {"", "resid_post", "resid_post[18] token last", "embed[0]", "resid_post[-1]", "hook_embed",
                            "\xff", "mlp_out[3] head 1", "resid_post[99999999999999999999]", "resid_post[18",
                            "blocks.99999999999999999999.hook_resid_post"}) {
    INFO(wrong);
    CHECK(text(wrong) == "nothing");
  }
}

TEST_CASE("an index set expands to the indices that a model has") {
  using Indices = std::vector<std::int64_t>;
  const auto expand = [](std::string_view site, std::int64_t count) { return parse_site(site)->layers.expand(count); };
  CHECK(expand("mlp_out[*]", 3) == Indices{0, 1, 2});
  CHECK(expand("mlp_out[4, 1..2, 2]", 6) == Indices{1, 2, 4});
  CHECK(expand("mlp_out[2..999999999999]", 4) == Indices{2, 3});
  CHECK(expand("mlp_out[7]", 4).empty());
  CHECK(expand("mlp_out[*]", 0).empty());
}

TEST_CASE("one place has one canonical name") {
  CHECK(to_string(canonical({SiteKind::resid_pre, 0})) == "embed");
  CHECK(to_string(canonical({SiteKind::resid_pre, 5})) == "resid_post[4]");
  CHECK(to_string(canonical({SiteKind::resid_post, 5})) == "resid_post[5]");
  CHECK(to_string(Site{SiteKind::z, 3, 2}) == "z[3] head 2");
}

TEST_CASE("sites are ordered as a forward pass reaches them") {
  const std::vector<Site> order = {
      {SiteKind::embed},      {SiteKind::q, 0},          {SiteKind::k, 0},        {SiteKind::v, 0},
      {SiteKind::pattern, 0}, {SiteKind::z, 0},          {SiteKind::attn_out, 0}, {SiteKind::resid_mid, 0},
      {SiteKind::mlp_pre, 0}, {SiteKind::mlp_post, 0},   {SiteKind::mlp_out, 0},  {SiteKind::resid_post, 0},
      {SiteKind::q, 1},       {SiteKind::resid_post, 1}, {SiteKind::final_norm},  {SiteKind::logits}};
  for (std::size_t i = 0; i + 1 < order.size(); ++i) {
    INFO(to_string(order[i]) << " < " << to_string(order[i + 1]));
    CHECK(order[i] < order[i + 1]);
  }
  CHECK((Site{SiteKind::resid_pre, 1} <=> Site{SiteKind::resid_post, 0}) == std::strong_ordering::equal);
  CHECK(Site{SiteKind::z, 1, 0} < Site{SiteKind::z, 1, 7});
  CHECK_FALSE(reached_before({SiteKind::z, 1, 0}, {SiteKind::z, 1, 7}));
  CHECK(reached_before({SiteKind::z, 1, 7}, {SiteKind::attn_out, 1}));
}

TEST_CASE("every site has a name of its own") {
#define PROVISO_SITE(name, layered, heads, width) \
  CHECK(site_from_name(#name) == SiteKind::name); \
  CHECK(site_name(SiteKind::name) == #name);      \
  CHECK(site_has_layer(SiteKind::name) == layered);
#include "dsl/sites.def"
#undef PROVISO_SITE
  CHECK_FALSE(site_from_name("resid"));
  CHECK(site_width(SiteKind::k) == SiteWidth::key_value);
  CHECK(site_has_heads(SiteKind::pattern));
  CHECK_FALSE(site_has_heads(SiteKind::attn_out));
}

}  // namespace
}  // namespace proviso::dsl
