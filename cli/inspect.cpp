#include <algorithm>
#include <iomanip>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

#include "cli/output.hpp"
#include "runtime/model/model_card.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::cli {

namespace {

using nlohmann::ordered_json;

constexpr dsl::SiteKind kSites[] = {
#define PROVISO_SITE(name, layered, heads, width) dsl::SiteKind::name,
#include "dsl/sites.def"
#undef PROVISO_SITE
};

ordered_json describe_sites(const model::ModelCard& card) {
  ordered_json sites = ordered_json::array();
  for (const dsl::SiteKind kind : kSites) {
    ordered_json site = {{"site", dsl::site_name(kind)}};
    if (const std::string reason = card.missing_site(kind); !reason.empty()) {
      site["missing"] = reason;
    } else {
      const bool layered = dsl::site_has_layer(kind);
      if (layered) site["layers"] = card.config.layers;
      if (const std::int64_t heads = card.site_heads(kind); heads > 0) site["heads"] = heads;
      // A pattern is as wide as the prompt is long.
      if (const std::int64_t width = card.site_width({kind, layered ? 0 : -1, -1}); width > 0) site["width"] = width;
    }
    sites.push_back(std::move(site));
  }
  return sites;
}

ordered_json describe_tokenizer(const model::Tokenizer& tokenizer) {
  ordered_json described = {{"kind", "byte-level BPE"}, {"tokens", tokenizer.size()}};
  described["end"] = tokenizer.eos() ? ordered_json(tokenizer.token_text(*tokenizer.eos())) : ordered_json(nullptr);
  described["chat_template"] = tokenizer.chat_template().has_value();
  return described;
}

ordered_json describe(const model::ModelCard& card, const std::string& path, const std::string& cache) {
  std::map<std::string, std::int64_t> types;
  for (const model::CardTensor& tensor : card.tensors) {
    ++types[std::string(model::element_type_name(tensor.stored.type))];
  }
  const model::ModelConfig& config = card.config;
  return {
      {"name", card.name},
      {"path", path},
      {"format", card.format == model::SourceFormat::gguf ? "gguf" : "safetensors"},
      {"family", model::family_name(config.family)},
      {"parameters", card.parameters},
      {"layers", config.layers},
      {"width", config.width},
      {"heads", config.heads},
      {"kv_heads", config.kv_heads},
      {"head_width", config.head_dim},
      {"neurons", config.neurons},
      {"vocabulary", config.vocabulary},
      {"context", config.context},
      {"tied_embeddings", config.tied_embeddings},
      {"tensors", types},
      {"tokenizer", describe_tokenizer(*model::Tokenizer::load(path))},
      {"weight_files", card.weight_files},
      {"sha256", card.sha256(cache)},
      {"sites", describe_sites(card)},
  };
}

/// "tied_embeddings" → "tied embeddings".
std::string spaced(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

std::string plain(const ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_null()) return "none";
  if (!value.is_structured()) return value.dump();
  std::string joined;
  for (const auto& [key, item] : value.items()) {
    joined += (joined.empty() ? "" : ", ") + (value.is_object() ? key + " " : "") + plain(item);
  }
  return joined;
}

std::string as_text(const ordered_json& model) {
  std::ostringstream text;
  for (const auto& [key, value] : model.items()) {
    if (key != "sites") text << std::left << std::setw(17) << spaced(key) << plain(value) << "\n";
  }
  text << "sites\n";
  for (const ordered_json& site : model["sites"]) {
    std::string name = site["site"].get<std::string>();
    if (site.contains("layers")) name += "[0.." + std::to_string(site["layers"].get<std::int64_t>() - 1) + "]";
    text << "  " << std::left << std::setw(19) << name;
    if (site.contains("missing")) {
      text << "not in this model: " << site["missing"].get<std::string>();
    } else {
      text << (site.contains("width") ? "width " + site["width"].dump() : "as wide as the prompt");
      if (site.contains("heads")) text << ", " << site["heads"] << " heads";
    }
    text << "\n";
  }
  return text.str();
}

}  // namespace

void register_inspect(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand("inspect", "Describe a model: family, shapes, sites, tokenizer, hashes");
  auto path = std::make_shared<std::string>();
  command
      ->add_option("MODEL", *path,
                   "a Hugging Face directory, a .safetensors file beside its config.json, or a .gguf file")
      ->required();
  add_common_options(*command, invocation.options);
  command->callback([path, &invocation] {
    invocation.action = [path, &invocation] {
      const ordered_json model = describe(model::read_model_card(*path), *path, invocation.options.cache);
      const OutputFormat format = invocation.options.output.value_or(OutputFormat::text);
      invocation.out << (format == OutputFormat::text ? as_text(model) : render_document(model, format));
      return kDone;
    };
  });
}

}  // namespace proviso::cli
