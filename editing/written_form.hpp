#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "editing/ledger_entry.hpp"
#include "runtime/formats/tensor_file.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::editing {

/// What an edited model is written as.
struct WrittenForm {
  /// A folder as Hugging Face has them; a GGUF file, of a model that came as one; the changes alone, as a LoRA adapter.
  enum class Kind { hugging_face, gguf, adapter } kind = Kind::hugging_face;
  /// Of a folder's tensors, or of those that are changed in a GGUF file. Nothing: the type that loses nothing of the
  /// source, and each tensor's own.
  std::optional<model::ElementType> type = std::nullopt;
};

std::string_view form_name(WrittenForm::Kind kind);  ///< "hugging_face", "gguf", "adapter"

/// A tensor whose values the file that is written does not hold to the bit.
struct RoundedTensor {
  std::string tensor;  ///< Hugging Face's name
  model::ElementType type = model::ElementType::f32;
  at::Tensor value;           ///< as read back
  double relative_error = 0;  ///< ‖value − W'‖ / ‖W'‖, W' being what it was to be
  /// ⟨value − W, W' − W⟩ / ‖W' − W‖²: the share of the edits' change that is left; nothing where they leave it alone.
  std::optional<double> change_kept{};
  bool change_gone = false;  ///< what is written is what would be, had nothing changed it
};

/// Of the model that `entries` make of `transformer`, which is left as found: the tensors that they change, and with
/// `unchanged_too` all others whose type is another in the file. Throws `InputError` naming one whose values lie beyond
/// its type.
std::vector<RoundedTensor> rounded_tensors(model::Transformer& transformer, const std::vector<LedgerEntry>& entries,
                                           const WrittenForm& form, bool unchanged_too);

}  // namespace proviso::editing
