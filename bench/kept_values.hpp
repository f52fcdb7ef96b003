#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "editing/batch_edit.hpp"
#include "editing/float_tensors.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/model/weights.hpp"

namespace proviso::bench {

/// What was kept of the same facts, settings and model; throws where it is of others.
inline model::SafetensorsFile read_kept(const std::string& path, const std::string& of) {
  auto file = model::read_safetensors(path);
  if (file.metadata["of"] != of)
    throw model::InputError(path +
                            ": is of other facts or settings, or of another model; remove it, or name other --results");
  return file;
}

/// The values of many facts, as they are found, in a file: a search that was cut short goes on from there.
class KeptValues {
 public:
  KeptValues(std::string path, std::string of) : path_(std::move(path)), of_(std::move(of)) {
    if (!std::filesystem::exists(path_)) return;
    const auto file = read_kept(path_, of_);
    seconds_ = std::stod(file.metadata.at("seconds"));
    for (const auto& stored : file.tensors)
      (stored.name == "changes" ? changes_ : ends_) = model::stored_values(stored);
  }

  std::int64_t count() const { return changes_.defined() ? changes_.size(1) : 0; }
  double seconds() const { return seconds_; }

  void add(const editing::BatchValues& found, double seconds) {
    seconds_ += seconds;
    auto ends = at::empty({2, found.changes.size(1)}, at::kFloat);
    for (std::int64_t i = 0; i < ends.size(1); ++i) {
      ends[0][i] = found.known[i] ? 1 : 0;
      ends[1][i] = found.losses[i];
    }
    const auto changes = found.changes.to(at::kCPU, at::kFloat);
    changes_ = changes_.defined() ? at::cat({changes_, changes}, 1) : changes;
    ends_ = ends_.defined() ? at::cat({ends_, ends}, 1) : ends;
    editing::write_float_tensors(path_, {{"changes", changes_}, {"ends", ends_}},
                                 {{"of", of_}, {"seconds", std::to_string(seconds_)}});
  }

  editing::BatchValues values(at::Device device) const {
    editing::BatchValues all{changes_.to(device, at::kDouble), {}};
    for (std::int64_t i = 0; i < count(); ++i) {
      all.known.push_back(ends_[0][i].item<float>() > 0);
      all.losses.push_back(ends_[1][i].item<double>());
    }
    return all;
  }

 private:
  std::string path_, of_;
  at::Tensor changes_;  ///< [width, facts]
  at::Tensor ends_;     ///< [2, facts]: held already, where the loss ended
  double seconds_ = 0;
};

}  // namespace proviso::bench
