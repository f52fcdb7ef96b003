#include "runtime/model/family.hpp"

#include <algorithm>

namespace proviso::model {

namespace {

std::vector<TensorSpec> tensors_of(Family wanted) {
  std::vector<TensorSpec> specs;
#define PROVISO_TENSOR(family, role, name, gguf_name, out, in, presence, storage, rows)                    \
  if (wanted == Family::family) {                                                                          \
    specs.push_back({TensorRole::role, name, gguf_name, Dimension::out, Dimension::in, Presence::presence, \
                     Storage::storage, Rows::rows});                                                       \
  }
#include "runtime/model/families.def"
  return specs;
}

std::vector<std::string_view> buffers_of(Family wanted) {
  std::vector<std::string_view> names;
#define PROVISO_BUFFER(family, name) \
  if (wanted == Family::family) names.push_back(name);
#include "runtime/model/families.def"
  return names;
}

const std::vector<FamilyTable>& families() {
  static const std::vector<FamilyTable> tables = {
#define PROVISO_FAMILY(family, gguf, architecture, base_prefix, norm, activation, positions, mlp) \
  {Family::family,                                                                                \
   #family,                                                                                       \
   gguf,                                                                                          \
   architecture,                                                                                  \
   base_prefix,                                                                                   \
   NormKind::norm,                                                                                \
   Activation::activation,                                                                        \
   Positions::positions,                                                                          \
   MlpKind::mlp,                                                                                  \
   tensors_of(Family::family),                                                                    \
   buffers_of(Family::family)},
#include "runtime/model/families.def"
  };
  return tables;
}

}  // namespace

std::int64_t size_of(Dimension dimension, const ModelConfig& config) {
  switch (dimension) {
    case Dimension::none:
      return 1;
    case Dimension::width:
      return config.width;
    case Dimension::head:
      return config.head_dim;
    case Dimension::queries:
      return config.query_width();
    case Dimension::keys:
      return config.kv_width();
    case Dimension::queries_keys_values:
      return config.query_width() + 2 * config.kv_width();
    case Dimension::neurons:
      return config.neurons;
    case Dimension::vocabulary:
      return config.vocabulary;
    case Dimension::context:
      return config.context;
  }
  return 0;
}

bool TensorSpec::present(const ModelConfig& config) const {
  switch (presence) {
    case Presence::always:
      return true;
    case Presence::attention_bias:
      return config.attention_bias;
    case Presence::mlp_bias:
      return config.mlp_bias;
    case Presence::untied:
      return !config.tied_embeddings;
  }
  return false;
}

std::vector<std::int64_t> TensorSpec::shape(const ModelConfig& config) const {
  if (in == Dimension::none) return {size_of(out, config)};
  return {size_of(out, config), size_of(in, config)};
}

std::string at_layer(std::string_view name, std::int64_t layer) {
  const std::size_t hole = name.find("{}");
  if (hole == std::string_view::npos) return std::string(name);
  return std::string(name.substr(0, hole)) + std::to_string(layer) + std::string(name.substr(hole + 2));
}

const TensorSpec* FamilyTable::find(TensorRole role) const {
  const auto spec = std::find_if(tensors.begin(), tensors.end(), [&](const TensorSpec& s) { return s.role == role; });
  return spec == tensors.end() ? nullptr : &*spec;
}

std::string FamilyTable::name_of(TensorRole role, std::int64_t layer) const {
  const TensorSpec* spec = find(role);
  return spec ? at_layer(spec->name, layer) : std::string();
}

const FamilyTable& family_table(Family family) { return families()[static_cast<std::size_t>(family)]; }

std::optional<Family> family_from_name(std::string_view name) {
  for (const FamilyTable& table : families()) {
    if (table.name == name) return table.family;
  }
  return std::nullopt;
}

std::optional<Family> family_from_gguf_name(std::string_view name) {
  for (const FamilyTable& table : families()) {
    if (!name.empty() && table.gguf_name == name) return table.family;
  }
  return std::nullopt;
}

std::string_view family_name(Family family) { return family_table(family).name; }

}  // namespace proviso::model
