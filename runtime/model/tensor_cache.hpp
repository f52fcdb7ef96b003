#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>

#include "runtime/model/transformer.hpp"

namespace proviso::model {

/// A float32 tensor alone in a safetensors file, and what the file says of it.
struct KeptTensor {
  at::Tensor value;
  std::map<std::string, std::string> metadata;
};

/// Throws `InputError` where the file is damaged, has no such tensor, or holds values that are no numbers.
KeptTensor read_kept_tensor(const std::string& path, const std::string& name);

/// What was measured on a model, kept between runs under the hashes of its weights, configuration and tokenizer, the
/// dtype, device and threads (sums round by them) and `of` (the text, the layer …). Ask for it on the model as loaded:
/// the weights are known by their files. A file that is missing, damaged or of something else is none; one that cannot
/// be written is measured again next time.
class TensorCache {
 public:
  /// `kind` names the folder, and the tensor in its files. Nothing is kept where `directory` is "".
  TensorCache(const Transformer& transformer, const std::string& directory, std::string kind,
              const std::map<std::string, std::string>& of);

  std::optional<KeptTensor> read() const;
  /// `metadata` is kept beside what the tensor is of.
  void write(const at::Tensor& value, std::map<std::string, std::string> metadata = {}) const;

 private:
  std::string kind_, path_;
  std::map<std::string, std::string> identity_;
};

}  // namespace proviso::model
