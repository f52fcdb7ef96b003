#include "editing/adapter.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "editing/float_tensors.hpp"
#include "runtime/formats/tensor_file.hpp"
#include "runtime/model/family.hpp"

namespace proviso::editing {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kWeight = ".weight";

/// Why an adapter cannot hold a change of this tensor; "" where it can.
std::string why_not(const model::Transformer& transformer, const std::string& tensor) {
  if (tensor == transformer.embedding_name())
    return transformer.tied() ? "the embedding, from which the unembedding would have to be untied" : "the embedding";
  if (tensor == transformer.position_embedding_name()) return "the position embedding";
  if (tensor == transformer.unembedding_name()) return "the unembedding";
  if (!tensor.ends_with(kWeight)) return "a bias";
  return "";
}

/// Whether the family's linear maps are stored as [in, out].
bool stores_transposed(const model::Transformer& transformer) {
  const auto& tensors = model::family_table(transformer.config().family).tensors;
  return std::ranges::any_of(tensors,
                             [](const model::TensorSpec& spec) { return spec.storage == model::Storage::conv1d; });
}

}  // namespace

std::vector<AdapterModule> adapter_modules(const model::Transformer& transformer,
                                           const std::vector<LedgerEntry>& entries) {
  std::map<std::string, std::vector<at::Tensor>> left, right;
  std::map<std::string, std::string> by;  // tensor -> the entries that change it
  std::set<std::string> refused;
  for (const auto& entry : entries) {
    for (const auto& delta : entry.deltas) {
      if (const auto why = why_not(transformer, delta.tensor); !why.empty()) {
        refused.insert("`" + entry.name + "` changes " + delta.tensor + ", " + why);
        continue;
      }
      left[delta.tensor].push_back(delta.left.cpu().to(at::kDouble));
      right[delta.tensor].push_back(delta.right.cpu().to(at::kDouble));
      auto& names = by[delta.tensor];
      if (names.find("`" + entry.name + "`") == std::string::npos)
        names += (names.empty() ? "`" : ", `") + entry.name + "`";
    }
  }
  std::vector<AdapterModule> modules;
  for (const auto& name : transformer.names()) {
    if (!left.contains(name)) continue;
    AdapterModule module{name.substr(0, name.size() - kWeight.size()), at::cat(right.at(name), 0),
                         at::cat(left.at(name), 1)};
    const auto full = std::min(module.A.size(1), module.B.size(0));
    if (module.rank() >= full)
      refused.insert(by.at(name) + (by.at(name).find(',') == std::string::npos ? " changes " : " change ") + name +
                     " by factors of rank " + std::to_string(module.rank()) + ", and the map's own is " +
                     std::to_string(full));
    modules.push_back(std::move(module));
  }
  if (refused.empty()) return modules;
  std::string message =
      "an adapter holds changes of the layers' linear maps of a rank below theirs, so it cannot hold:";
  for (const auto& each : refused) message += "\n  " + each;
  throw model::InputError(message +
                          "\n  help: write the whole model, without --as adapter; or leave out what is named here");
}

std::string adapter_config(const model::Transformer& transformer, const std::vector<AdapterModule>& modules) {
  std::int64_t most = 1;
  for (const auto& module : modules) most = std::max(most, module.rank());
  Json targets = Json::array(), ranks = Json::object();
  for (const auto& module : modules) {
    targets.push_back(module.module);
    if (module.rank() != most) ranks[module.module] = module.rank();
  }
  const Json config = {{"peft_type", "LORA"},
                       {"task_type", "CAUSAL_LM"},
                       {"base_model_name_or_path", transformer.card().path},
                       {"inference_mode", true},
                       {"r", most},
                       {"lora_alpha", most},
                       {"rank_pattern", ranks},
                       {"alpha_pattern", ranks},
                       {"target_modules", targets},
                       {"fan_in_fan_out", stores_transposed(transformer)},
                       {"bias", "none"},
                       {"lora_dropout", 0.0},
                       {"use_rslora", false},
                       {"use_dora", false},
                       {"init_lora_weights", true},
                       {"modules_to_save", nullptr}};
  return config.dump(2) + "\n";
}

void write_adapter_weights(const std::vector<AdapterModule>& modules, const std::string& path) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& module : modules) {
    const auto name = "base_model.model." + module.module;
    tensors.emplace_back(name + ".lora_A.weight", module.A);
    tensors.emplace_back(name + ".lora_B.weight", module.B);
  }
  write_float_tensors(path, tensors, {{"format", "pt"}});
}

}  // namespace proviso::editing
