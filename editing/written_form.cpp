#include "editing/written_form.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>

#include "runtime/model/gguf_writer.hpp"
#include "runtime/model/model_writer.hpp"

namespace proviso::editing {

std::string_view form_name(WrittenForm::Kind kind) {
  switch (kind) {
    case WrittenForm::Kind::hugging_face:
      return "hugging_face";
    case WrittenForm::Kind::gguf:
      return "gguf";
    case WrittenForm::Kind::adapter:
      return "adapter";
  }
  return "";
}

std::vector<RoundedTensor> rounded_tensors(model::Transformer& transformer, const std::vector<LedgerEntry>& entries,
                                           const WrittenForm& form, bool unchanged_too) {
  const at::NoGradGuard no_grad;
  std::vector<RoundedTensor> rounded;
  if (form.kind == WrittenForm::Kind::adapter) return rounded;
  const auto& card = transformer.card();
  const bool gguf = form.kind == WrittenForm::Kind::gguf;

  AppliedDeltas applied(transformer);
  std::map<std::string, at::Tensor> before;
  for (const auto& entry : entries) {
    for (const auto& delta : entry.deltas) {
      before.try_emplace(delta.tensor, tensor_to_change(transformer, delta));
      applied.apply(delta);
    }
  }
  for (const auto& name : transformer.names()) {
    const auto changed = before.find(name);
    if (changed == before.end() && (gguf || !unchanged_too)) continue;
    const auto type =
        gguf ? model::changed_type(card, name, form.type) : form.type.value_or(model::writable_type(card));
    const auto meant = transformer.get(name);
    RoundedTensor tensor{name, type, model::stored_value(meant, type)};
    const auto meant_is_finite = meant.isfinite().all().item<bool>();
    if (meant_is_finite && at::equal(tensor.value, meant)) continue;
    if (!tensor.value.isfinite().all().item<bool>() || !meant_is_finite)
      throw model::InputError(card.path + ": " + name + " holds values that " +
                              std::string(model::element_type_name(type)) +
                              " cannot\n  help: name another --dtype, bfloat16 or float32");
    const auto whole = meant.to(at::kDouble), stored = tensor.value.to(at::kDouble);
    tensor.relative_error = ((stored - whole).norm() / whole.norm()).item<double>();
    if (changed != before.end()) {
      const auto was = changed->second.to(at::kDouble), change = whole - was;
      tensor.change_gone = at::equal(tensor.value, model::stored_value(changed->second, type));
      tensor.change_kept = (((stored - was) * change).sum() / change.square().sum()).item<double>();
    }
    rounded.push_back(std::move(tensor));
    // In the file they are one tensor; put in place one by one, they would be two.
    if (name == transformer.embedding_name() && transformer.tied()) {
      rounded.push_back(rounded.back());
      rounded.back().tensor = transformer.unembedding_name();
    }
  }
  return rounded;
}

}  // namespace proviso::editing
