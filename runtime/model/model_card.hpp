#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dsl/site.hpp"
#include "runtime/formats/tensor_file.hpp"
#include "runtime/model/model_config.hpp"

namespace proviso::model {

/// Where a stored tensor belongs. Names are the Hugging Face ones ("model.layers.0.mlp.down_proj.weight")
/// in every format; `transposed` says that the file holds [in, out] (GPT-2's Conv1D), `rotary_permuted`
/// that the rows of q and k are in GGUF's interleaved order, `joined_by_kind` that a fused map has those of all queries
/// first, then keys, then values, where the family's own order is head by head.
struct CardTensor {
  StoredTensor stored;
  std::string name;
  bool transposed = false;
  bool rotary_permuted = false;
  bool joined_by_kind = false;
};

enum class SourceFormat { hugging_face, gguf };

/// A model's names and shapes: what a header read gives, without weights and without torch. Check, bind,
/// plan and `explain` need nothing more.
struct ModelCard {
  std::string name;  ///< the folder's, or the file's without its extension
  std::string path;
  SourceFormat format = SourceFormat::hugging_face;
  std::string config_file;  ///< of the Hugging Face formats: the path of config.json
  ModelConfig config;
  std::vector<CardTensor> tensors;
  std::vector<std::string> weight_files;  ///< in name order
  std::int64_t parameters = 0;            ///< tied tensors once

  /// Of the weight files' bytes in name order, in hex; read (or taken from the cache) when asked.
  std::string sha256(const std::string& cache_directory) const;
  const CardTensor* find(const std::string& name) const;

  /// Elements at a site: the whole width, or one head's where `site.head` ≥ 0. The pattern's is 0 (it depends on the
  /// prompt).
  std::int64_t site_width(const dsl::Site& site) const;
  /// Heads at q, z, pattern (query heads) and k, v (key-value heads); 0 elsewhere.
  std::int64_t site_heads(dsl::SiteKind kind) const;
  /// Whether what attention and MLP write passes a norm before it joins the stream: no linear map writes there.
  bool norms_writers() const;
  /// Why this model does not have a site, or nothing ("resid_mid …" where attention and MLP run in parallel).
  std::string missing_site(dsl::SiteKind kind) const;
};

/// `path` is a Hugging Face directory, a `.safetensors` file beside its config.json, or a `.gguf` file.
/// Throws `InputError`: a missing tensor, a wrong shape, an unknown configuration key, each by name.
ModelCard read_model_card(const std::string& path);

}  // namespace proviso::model
