#include "runtime/autoencoders/training_state.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <span>

#include "dsl/number_text.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/model/weights.hpp"

namespace proviso::runtime {

namespace {

constexpr const char* kParameters[] = {"W_enc", "W_dec", "b_enc", "b_dec", "log_threshold"};

/// The numbers of a state by name, for writing and for reading.
template <class State, class Each>
void each_number(State& state, Each each) {
  each("scale", state.scale);
  each("variance", state.variance);
  each("threshold", state.threshold);
  each("step", state.step);
  each("recent_error", state.recent_error);
  each("recent", state.recent);
  each("round", state.place.round);
  each("part", state.place.part);
  each("batch_in_part", state.place.batch);
}

std::string text_of(double value) { return dsl::number_text(value); }
std::string text_of(std::int64_t value) { return std::to_string(value); }

}  // namespace

void write_training_state(const std::string& path, const TrainingState& state,
                          const std::map<std::string, std::string>& identity) {
  std::vector<std::pair<std::string, at::Tensor>> kept;
  const auto keep = [&](const std::string& name, const at::Tensor& value) {
    kept.emplace_back(name, value.to(at::kCPU, at::kFloat).contiguous());
  };
  const auto parameters = state.parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    keep(kParameters[i], parameters[i]);
    keep(std::string(kParameters[i]) + ".mean", state.means[i]);
    keep(std::string(kParameters[i]) + ".square", state.squares[i]);
  }
  keep("steps", state.steps);
  keep("since", state.since);
  std::vector<model::TensorToWrite> tensors;
  for (const auto& [name, value] : kept) {
    tensors.push_back(
        {name, model::ElementType::f32, value.sizes().vec(),
         std::as_bytes(std::span(value.const_data_ptr<float>(), static_cast<std::size_t>(value.numel())))});
  }
  auto metadata = identity;
  each_number(state,
              [&](const char* name, const auto& value) { metadata["at." + std::string(name)] = text_of(value); });
  model::write_safetensors(path, tensors, metadata);
}

TrainingState read_training_state(const std::string& path, const std::map<std::string, std::string>& identity,
                                  at::Device device) {
  const auto file = model::read_safetensors(path);
  const auto field = [&](const std::string& name) {
    const auto found = file.metadata.find(name);
    if (found == file.metadata.end())
      throw model::InputError(path + ": is no checkpoint of a training: it does not say `" + name + "`");
    return found->second;
  };
  for (const auto& [name, value] : identity) {
    if (const auto has = field(name); has != value) {
      throw model::InputError(path + ": the checkpoint is of " + name + " " + has + ", and " + value +
                              " is asked for\n  help: give the options that it was begun with, or remove the file");
    }
  }
  const auto tensor = [&](const std::string& name) {
    for (const auto& stored : file.tensors) {
      if (stored.name == name) return model::stored_values(stored).to(device);
    }
    throw model::InputError(path + ": holds no tensor `" + name + "`");
  };
  TrainingState state;
  state.W_enc = tensor("W_enc");
  state.W_dec = tensor("W_dec");
  state.b_enc = tensor("b_enc");
  state.b_dec = tensor("b_dec");
  const bool thresholds = std::ranges::any_of(file.tensors, [](const auto& t) { return t.name == "log_threshold"; });
  if (thresholds) state.log_threshold = tensor("log_threshold");
  for (std::size_t i = 0; i < state.parameters().size(); ++i) {
    state.means.push_back(tensor(std::string(kParameters[i]) + ".mean"));
    state.squares.push_back(tensor(std::string(kParameters[i]) + ".square"));
  }
  state.steps = tensor("steps");
  state.since = tensor("since");
  each_number(state, [&](const char* name, auto& value) {
    const std::string text = field("at." + std::string(name));
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
      throw model::InputError(path + ": `at." + name + "` is no number");
  });
  return state;
}

}  // namespace proviso::runtime
