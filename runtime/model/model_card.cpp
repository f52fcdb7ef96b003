#include "runtime/model/model_card.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <unordered_map>

#include "runtime/formats/gguf.hpp"
#include "runtime/formats/json_text.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/formats/sha256.hpp"
#include "runtime/model/family.hpp"

namespace proviso::model {

namespace fs = std::filesystem;

namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

/// "model.layers.17.mlp.up_proj.weight" -> "model.layers.{}.mlp.up_proj.weight"
std::string without_layer(const std::string& name) {
  for (std::size_t begin = 0; begin < name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    if (end > begin && name.find_first_not_of("0123456789", begin) >= end) {
      return name.substr(0, begin) + "{}" + name.substr(end);
    }
    begin = end + 1;
  }
  return name;
}

/// What is wrong with a model's tensors, all of it in one message.
class Problems {
 public:
  explicit Problems(std::string path) : path_(std::move(path)) {}

  bool enough() const { return problems_.size() > kMostNamed; }
  void add(const std::string& name, const std::string& what) { problems_.push_back("tensor '" + name + "' " + what); }
  void throw_any() const {
    if (problems_.empty()) return;
    std::string message = path_ + ": ";
    for (std::size_t i = 0; i < problems_.size() && i < kMostNamed; ++i) message += (i ? "; " : "") + problems_[i];
    if (enough()) message += "; and more";
    throw InputError(message + ". Use the weights that belong to this configuration");
  }

 private:
  static constexpr std::size_t kMostNamed = 6;
  std::string path_;
  std::vector<std::string> problems_;
};

/// The tensors that `card.config` calls for, taken from those stored (by the name in their file). Every one of
/// the stored must be taken: one left over is a part of the model that would not be computed.
void place_tensors(ModelCard& card, std::unordered_map<std::string, StoredTensor>& stored) {
  const FamilyTable& table = family_table(card.config.family);
  const bool gguf = card.format == SourceFormat::gguf;
  Problems problems(card.path);
  const auto place = [&](const TensorSpec& spec, std::int64_t layer) {
    const std::string file_name = at_layer(gguf ? spec.gguf_name : spec.name, layer);
    const auto found = stored.find(file_name);
    if (found == stored.end()) return problems.add(file_name, "is missing");
    CardTensor tensor{.stored = std::move(found->second), .name = at_layer(spec.name, layer)};
    stored.erase(found);
    tensor.transposed = !gguf && spec.storage == Storage::conv1d;
    tensor.rotary_permuted = gguf && spec.rows == Rows::rotary;
    tensor.joined_by_kind = gguf && spec.rows == Rows::by_head;
    std::vector<std::int64_t> shape = spec.shape(card.config);
    if (tensor.transposed) std::reverse(shape.begin(), shape.end());
    if (tensor.stored.shape != shape) {
      problems.add(file_name, "has the shape " + shape_text(tensor.stored.shape) + ", the configuration says " +
                                  shape_text(shape));
    }
    card.parameters += tensor.stored.elements();
    card.tensors.push_back(std::move(tensor));
  };

  // Specs come in the order of the body: those before the layers, those of a layer, those after.
  const auto& specs = table.tensors;
  const auto layered = [](const TensorSpec& spec) { return spec.layered(); };
  const auto first = std::find_if(specs.begin(), specs.end(), layered);
  const auto last = std::find_if_not(first, specs.end(), layered);
  const auto place_all = [&](auto begin, auto end, std::int64_t layer) {
    for (auto spec = begin; spec != end && !problems.enough(); ++spec) {
      if (spec->present(card.config)) place(*spec, layer);
    }
  };
  place_all(specs.begin(), first, 0);
  for (std::int64_t layer = 0; layer < card.config.layers && !problems.enough(); ++layer) place_all(first, last, layer);
  place_all(last, specs.end(), 0);

  std::vector<std::string> left;
  for (const auto& [name, tensor] : stored) left.push_back(name);
  std::sort(left.begin(), left.end());
  for (const std::string& name : left) problems.add(name, "is not part of this configuration");
  problems.throw_any();
}

/// All weights of a Hugging Face model, by their whole names.
class HuggingFaceWeights {
 public:
  HuggingFaceWeights(const ModelConfig& config, const std::string& path)
      : table_(family_table(config.family)), path_(path) {}

  /// `listed` are tensors that an index says the file holds.
  void add(const std::string& file, const std::vector<std::string>& listed) {
    SafetensorsFile read = read_safetensors(file);
    std::set<std::string> names;
    for (const StoredTensor& tensor : read.tensors) names.insert(tensor.name);
    for (const auto& [name, type] : read.unread) names.insert(name);
    for (const std::string& name : listed) {
      if (!names.contains(name)) {
        throw InputError(file + ": tensor '" + name + "' is missing, which " + kIndexFile +
                         " says is here; fetch the model again");
      }
    }
    for (StoredTensor& tensor : read.tensors) {
      const std::string name = whole_name(tensor.name);
      if (is_buffer(name)) continue;
      if (!tensors.emplace(name, std::move(tensor)).second)
        throw InputError(path_ + ": tensor '" + name + "' is in several files");
    }
    for (const auto& [given, type] : read.unread) {
      const std::string name = whole_name(given);
      if (!is_buffer(name))
        throw InputError(file + ": tensor '" + name + "' holds " + type + "; weights of F32, F16 and BF16 are read");
    }
  }

  /// Some files carry the unembedding beside an embedding that it is tied to: it must be the same.
  void drop_tied_unembedding() {
    const auto unembedding = tensors.find(table_.name_of(TensorRole::unembedding));
    const auto embedding = tensors.find(table_.name_of(TensorRole::token_embedding));
    if (unembedding == tensors.end() || embedding == tensors.end()) return;
    if (!std::ranges::equal(unembedding->second.bytes, embedding->second.bytes)) {
      throw InputError(path_ + ": 'tie_word_embeddings' is true, but '" + unembedding->first + "' differs from '" +
                       embedding->first + "'; set it to false in config.json or remove the tensor");
    }
    tensors.erase(unembedding);
  }

  std::unordered_map<std::string, StoredTensor> tensors;

 private:
  /// Files of the bare base model leave its prefix out.
  std::string whole_name(const std::string& name) const {
    const std::string prefixed = std::string(table_.base_prefix) + name;
    return is_known(without_layer(prefixed)) ? prefixed : name;
  }
  bool is_known(const std::string& pattern) const {
    return std::ranges::any_of(table_.tensors, [&](const TensorSpec& spec) { return spec.name == pattern; }) ||
           is_listed_buffer(pattern);
  }
  bool is_listed_buffer(const std::string& pattern) const {
    return std::ranges::find(table_.buffers, pattern) != table_.buffers.end();
  }
  bool is_buffer(const std::string& name) const { return is_listed_buffer(without_layer(name)); }

  const FamilyTable& table_;
  const std::string& path_;
};

/// Paths of weight files, in name order, with the tensors that an index says each holds.
using WeightFiles = std::map<std::string, std::vector<std::string>>;

/// The files that an index names: {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}.
WeightFiles files_of_index(const fs::path& index) {
  const std::string path = index.string();
  const nlohmann::json json = parse_json_object(MappedFile::open(path)->text(), path, 4);
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) throw InputError(path + ": has no 'weight_map'");
  WeightFiles files;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string() || fs::path(file.get<std::string>()).filename() != fs::path(file.get<std::string>())) {
      throw InputError(path + ": the file of '" + tensor + "' must be the name of a file in the same folder");
    }
    files[(index.parent_path() / file.get<std::string>()).string()].push_back(tensor);
  }
  return files;
}

/// The last part of `path` that is a name: of "models/tiny/" and "models/tiny/." it is "tiny".
std::string folder_name(const fs::path& path) {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(path, error);
  const fs::path named = error ? path : whole;
  return (named.has_filename() ? named : named.parent_path()).filename().string();
}

WeightFiles weight_files_of(const fs::path& folder) {
  if (fs::exists(folder / kSingleFile)) return {{(folder / kSingleFile).string(), {}}};
  if (fs::exists(folder / kIndexFile)) return files_of_index(folder / kIndexFile);
  throw InputError(folder.string() + ": holds neither " + kSingleFile + " nor " + kIndexFile +
                   "; other formats (pytorch_model.bin) are not read: convert the weights to safetensors");
}

ModelCard read_hugging_face_card(const fs::path& path) {
  const bool is_folder = fs::is_directory(path);
  const fs::path folder = is_folder ? path : path.parent_path();
  const std::string config_file = (folder / "config.json").string();
  if (!fs::exists(config_file)) {
    throw InputError(path.string() + ": there is no " + config_file +
                     "; name a Hugging Face directory, a .safetensors file beside its config.json, or a .gguf file");
  }
  ModelCard card;
  card.name = is_folder ? folder_name(path) : path.stem().string();
  card.path = path.string();
  card.config_file = config_file;
  card.config = read_hugging_face_config(MappedFile::open(config_file)->text(), config_file);

  HuggingFaceWeights weights(card.config, card.path);
  for (const auto& [file, listed] : is_folder ? weight_files_of(folder) : WeightFiles{{path.string(), {}}}) {
    card.weight_files.push_back(file);
    weights.add(file, listed);
  }
  if (card.config.tied_embeddings) weights.drop_tied_unembedding();
  place_tensors(card, weights.tensors);
  return card;
}

ModelCard read_gguf_card(const fs::path& path) {
  GgufFile file = read_gguf(path.string());
  ModelCard card;
  card.path = path.string();
  card.format = SourceFormat::gguf;
  card.config = read_gguf_config(file, card.path);
  card.weight_files = {card.path};
  card.name = path.stem().string();  // general.name is often a training run's

  std::unordered_map<std::string, StoredTensor> stored;
  for (StoredTensor& tensor : file.tensors) {
    // The divisors of the rotary frequencies are in the configuration by now.
    if (tensor.name != kRopeDivisors) stored.emplace(tensor.name, std::move(tensor));
  }
  place_tensors(card, stored);
  return card;
}

}  // namespace

std::string ModelCard::sha256(const std::string& cache_directory) const {
  return sha256_of_files(weight_files, cache_directory);
}

const CardTensor* ModelCard::find(const std::string& tensor_name) const {
  const auto found = std::ranges::find(tensors, tensor_name, &CardTensor::name);
  return found == tensors.end() ? nullptr : &*found;
}

std::int64_t ModelCard::site_width(const dsl::Site& site) const {
  const bool one_head = site.head >= 0;
  switch (dsl::site_width(site.kind)) {
    case dsl::SiteWidth::stream:
      return config.width;
    case dsl::SiteWidth::query:
      return one_head ? config.head_dim : config.query_width();
    case dsl::SiteWidth::key_value:
      return one_head ? config.head_dim : config.kv_width();
    case dsl::SiteWidth::neurons:
      return config.neurons;
    case dsl::SiteWidth::vocabulary:
      return config.vocabulary;
    case dsl::SiteWidth::pattern:
      return 0;
  }
  return 0;
}

std::int64_t ModelCard::site_heads(dsl::SiteKind kind) const {
  if (!dsl::site_has_heads(kind)) return 0;
  return dsl::site_width(kind) == dsl::SiteWidth::key_value ? config.kv_heads : config.heads;
}

bool ModelCard::norms_writers() const { return family_table(config.family).find(TensorRole::attention_post_norm); }

std::string ModelCard::missing_site(dsl::SiteKind kind) const {
  if (kind != dsl::SiteKind::resid_mid || !config.parallel_blocks) return "";
  return name + " has no resid_mid: its attention and its MLP run in parallel, and both read resid_pre";
}

ModelCard read_model_card(const std::string& path) {
  const fs::path given(path);
  std::error_code error;
  const fs::file_status status = fs::status(given, error);
  if (!fs::exists(status)) throw InputError(path + ": there is no such file or folder; check the path of the model");
  if (fs::is_directory(status) || given.extension() == ".safetensors") return read_hugging_face_card(given);
  if (given.extension() == ".gguf") return read_gguf_card(given);
  throw InputError(
      path +
      ": is no model: name a Hugging Face directory, a .safetensors file beside its config.json, or a .gguf file");
}

}  // namespace proviso::model
