#include "audit/feature_catalogue.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <variant>

#include "audit/report_words.hpp"
#include "dsl/check.hpp"
#include "dsl/format.hpp"
#include "dsl/literals.hpp"
#include "dsl/number_text.hpp"
#include "dsl/parse.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/formats/sha256.hpp"
#include "runtime/model/family.hpp"

namespace proviso::audit {

namespace {

std::string file_name(const std::string& path) { return std::filesystem::path(path).filename().string(); }

/// `contrast(angry, calm)`, as the file has it.
std::string constructor_text(const dsl::FeatureDecl& declared, const dsl::SourceSet& sources) {
  const auto parsed = dsl::parse(sources, declared.span.source);
  for (const auto& declaration : parsed.file.declarations) {
    const auto* feature = std::get_if<dsl::ast::Feature>(&declaration);
    if (feature && dsl::Span(feature->name.span) == declared.span) return dsl::canonical_text(feature->constructor);
  }
  throw std::logic_error("no declaration stands where feature `" + declared.name + "` was read");
}

std::string token_text(const dsl::TokenChoice& token) {
  switch (token.kind) {
    case dsl::TokenChoice::Kind::last:
      return "";
    case dsl::TokenChoice::Kind::index:
      return " token " + std::to_string(token.index);
    case dsl::TokenChoice::Kind::all:
      return " token all";
  }
  return "";
}

class Writer {
 public:
  Writer(const runtime::BoundRules& bound, const dsl::SourceSet& sources, const CatalogueOrigin& origin)
      : bound_(bound), rules_(*bound.rules), sources_(sources), origin_(origin) {}

  std::string head() const {
    const auto& config = bound_.card->config;
    return "# Features of " + bound_.card->name + ", kept as vectors: use \"" + FeatureCatalogue::kRules +
           "\" as catalogue\n\nmodel { family " + std::string(model::family_name(config.family)) + " layers " +
           std::to_string(config.layers) + " width " + std::to_string(config.width) + " }\n";
  }

  std::string feature(const dsl::FeatureDecl& declared, const runtime::Direction& direction) const {
    return declaration(declared, direction,
                       "direction(" + dsl::encode_string(FeatureCatalogue::kTensors) + ", tensor: " +
                           dsl::encode_string(declared.name) + ", offset: " + dsl::number_text(direction.b) +
                           ", scale: " + dsl::number_text(direction.c) + ")");
  }

  std::string subspace(const dsl::FeatureDecl& declared, const std::vector<dsl::FeatureId>& members,
                       const runtime::Direction& direction) const {
    std::vector<std::string> names;
    for (const dsl::FeatureId member : members) names.push_back(rules_.features[member].name);
    return declaration(declared, direction, "subspace(" + joined(names) + ")");
  }

 private:
  std::string declaration(const dsl::FeatureDecl& declared, const runtime::Direction& direction,
                          const std::string& constructor) const {
    const auto& says = declared.annotations;
    std::string text = "\nfeature " + declared.name;
    if (!says.title.empty()) text += " " + dsl::encode_string(says.title);
    text += " = " + constructor + " at " + dsl::to_string(direction.site) + token_text(declared.token) + " {\n";
    if (!says.description.empty()) text += "description " + dsl::encode_string(says.description) + "\n";
    if (!says.tags.empty()) {
      std::vector<std::string> tags;
      for (const auto& tag : says.tags) tags.push_back(dsl::encode_string(tag));
      text += "tags [" + joined(tags) + "]\n";
    }
    text += "meta {\n";
    for (const auto& [key, value] : provenance(declared, direction))
      text += key + " " + dsl::encode_string(value) + "\n";
    text += "}\n";
    if (says.status == dsl::Annotations::Status::experimental) text += "status experimental\n";
    if (says.status == dsl::Annotations::Status::deprecated) text += "status deprecated\n";
    return text + "}\n";
  }

  /// What the declaration says itself, then what it does not say.
  std::vector<std::pair<std::string, std::string>> provenance(const dsl::FeatureDecl& declared,
                                                              const runtime::Direction& direction) const {
    auto meta = declared.annotations.meta;
    const auto add = [&](const char* key, std::string value) {
      const bool said = std::ranges::any_of(meta, [&](const auto& entry) { return entry.first == key; });
      if (!said && !value.empty()) meta.emplace_back(key, std::move(value));
    };
    const auto& source = sources_.at(declared.span.source);
    add("declared", constructor_text(declared, sources_));
    if (direction.built_on > 0) add("built_on", counted(direction.built_on, "prompt"));
    add("source", file_name(source.path) + " sha256 " + model::sha256_hex(std::as_bytes(std::span(source.text))));
    std::vector<std::string> data;
    for (const auto id : dsl::built_from(declared)) {
      const auto* file = std::get_if<dsl::PromptFile>(&rules_.prompts[id].source);
      if (file)
        data.push_back(file_name(file->path) + " sha256 " +
                       model::sha256_of_files({file->path}, origin_.cache_directory));
    }
    add("data", joined(data, "; "));
    add("model", bound_.card->name + " sha256 " + origin_.model_sha256);
    add("program", origin_.program);
    return meta;
  }

  const runtime::BoundRules& bound_;
  const dsl::RuleSet& rules_;
  const dsl::SourceSet& sources_;
  const CatalogueOrigin& origin_;
};

std::string in_canonical_style(const std::string& text) {
  dsl::SourceSet sources;
  const auto parsed = dsl::parse(sources, sources.add(FeatureCatalogue::kRules, text));
  if (dsl::has_errors(parsed.diagnostics)) throw std::logic_error("a catalogue that cannot be read: " + text);
  return dsl::format(parsed.file, sources);
}

}  // namespace

FeatureCatalogue feature_catalogue(const runtime::BoundRules& bound, const std::vector<runtime::Direction>& directions,
                                   const dsl::SourceSet& sources, const CatalogueOrigin& origin) {
  const Writer writer(bound, sources, origin);
  FeatureCatalogue catalogue;
  std::string text = writer.head();
  std::vector<std::pair<std::string, at::Tensor>> vectors;
  for (dsl::FeatureId id = 0; id < bound.rules->features.size(); ++id) {
    const auto& declared = bound.rules->features[id];
    if (declared.imported) continue;
    if (directions[id].latent) {
      catalogue.left_out.emplace_back(declared.name, "it is a latent, which its autoencoder's folder holds");
      continue;
    }
    if (std::ranges::find(catalogue.written, declared.name) != catalogue.written.end()) {
      throw model::InputError("two of the files declare a feature `" + declared.name +
                              "`\n  help: export them one by one");
    }
    if (const auto members = dsl::members_of(declared); !members.empty()) {
      if (std::ranges::any_of(members, [&](dsl::FeatureId member) { return bound.rules->features[member].imported; })) {
        catalogue.left_out.emplace_back(declared.name, "it spans a feature of another file, which is not exported");
        continue;
      }
      text += writer.subspace(declared, members, directions[id]);
      catalogue.written.push_back(declared.name);
      continue;
    }
    text += writer.feature(declared, directions[id]);
    vectors.emplace_back(declared.name, directions[id].d.to(at::kFloat).contiguous());
    catalogue.written.push_back(declared.name);
  }
  std::vector<model::TensorToWrite> tensors;
  for (const auto& [name, d] : vectors) {
    tensors.push_back({name, model::ElementType::f32, d.sizes().vec(),
                       std::as_bytes(std::span(d.const_data_ptr<float>(), static_cast<std::size_t>(d.numel())))});
  }
  catalogue.tensors = model::safetensors_bytes(tensors, {{"format", "pt"},
                                                         {"model", bound.card->name},
                                                         {"model_sha256", origin.model_sha256},
                                                         {"program", origin.program}});
  catalogue.rules = in_canonical_style(text);
  return catalogue;
}

}  // namespace proviso::audit
