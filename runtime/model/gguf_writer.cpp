#include "runtime/model/gguf_writer.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <list>
#include <map>
#include <vector>

#include "runtime/formats/gguf.hpp"
#include "runtime/formats/quantize.hpp"
#include "runtime/model/family.hpp"
#include "runtime/model/model_writer.hpp"

namespace proviso::model {

namespace {

std::vector<std::byte> stored_bytes_of(const at::Tensor& value, ElementType type) {
  const at::Tensor values = value.detach().to(at::kCPU, at::kFloat).contiguous();
  return quantize({values.const_data_ptr<float>(), static_cast<std::size_t>(values.numel())}, type);
}

/// Rows of each head from halves to GGUF's interleaved pairs.
at::Tensor permute_rotary(const at::Tensor& rows, std::int64_t head_dim) {
  auto shape = rows.sizes().vec();
  std::vector<std::int64_t> split = {shape[0] / head_dim, 2, head_dim / 2};
  split.insert(split.end(), shape.begin() + 1, shape.end());
  return rows.reshape(split).transpose(1, 2).reshape(shape);
}

/// Rows of a fused map from those of each head in turn to all queries, keys, values.
at::Tensor join_by_kind(const at::Tensor& rows, std::int64_t head_dim) {
  const auto shape = rows.sizes().vec();
  std::vector<std::int64_t> split = {shape[0] / (3 * head_dim), 3, head_dim};
  split.insert(split.end(), shape.begin() + 1, shape.end());
  return rows.reshape(split).transpose(0, 1).reshape(shape);
}

/// As a GGUF file has the rows of `value`.
at::Tensor in_gguf_order(const at::Tensor& value, Rows rows, std::int64_t head_dim) {
  switch (rows) {
    case Rows::plain:
      return value;
    case Rows::rotary:
      return permute_rotary(value, head_dim);
    case Rows::by_head:
      return join_by_kind(value, head_dim);
  }
  return value;
}

[[noreturn]] void refuse(const ModelCard& card, const std::string& name, const std::string& why,
                         const std::string& cure) {
  throw InputError(card.path + ": tensor '" + name + "' " + why + "\n  help: " + cure);
}

}  // namespace

at::Tensor stored_value(const at::Tensor& value, ElementType type) {
  const at::NoGradGuard no_grad;
  const auto bytes = stored_bytes_of(value, type);
  at::Tensor read = at::empty(value.sizes(), at::kFloat);
  dequantize({"", type, value.sizes().vec(), bytes, nullptr},
             {read.mutable_data_ptr<float>(), static_cast<std::size_t>(read.numel())});
  return read.to(value.options());
}

ElementType changed_type(const ModelCard& card, const std::string& name, std::optional<ElementType> asked) {
  const CardTensor* own = card.find(name);
  if (!own) return ElementType::f32;
  const StoredTensor& stored = own->stored;
  if (!asked || stored.shape.size() < 2) {
    if (can_quantize(stored.type)) return stored.type;
    refuse(card, stored.name,
           "is changed by an edit, and " + std::string(element_type_name(stored.type)) + " is read but not written",
           "--dtype float16 keeps edited tensors in a wider type");
  }
  if (stored.shape.back() % static_cast<std::int64_t>(block_elements(*asked)) != 0) {
    refuse(card, stored.name,
           "has rows of " + std::to_string(stored.shape.back()) + ", which are no whole blocks of " +
               std::string(element_type_name(*asked)),
           "name a --dtype without blocks: float16, bfloat16 or float32");
  }
  return *asked;
}

void write_gguf_model(const Transformer& transformer, const std::set<std::string>& changed,
                      std::optional<ElementType> asked, const std::string& path) {
  const at::NoGradGuard no_grad;
  const ModelCard& card = transformer.card();
  const GgufFile source = read_gguf(card.path);
  std::map<std::string, const CardTensor*> by_stored_name;
  for (const CardTensor& tensor : card.tensors) by_stored_name.emplace(tensor.stored.name, &tensor);

  std::vector<TensorToWrite> tensors;
  std::list<std::vector<std::byte>> kept;  // the bytes of what is not the source's
  const auto add = [&](const std::string& name, ElementType type, const std::vector<std::int64_t>& shape,
                       const at::Tensor& value) {
    kept.push_back(stored_bytes_of(value, type));
    tensors.push_back({name, type, shape, kept.back()});
  };
  for (const StoredTensor& stored : source.tensors) {
    const auto found = by_stored_name.find(stored.name);
    if (found == by_stored_name.end() || !changed.contains(found->second->name)) {
      tensors.push_back({stored.name, stored.type, stored.shape, stored.bytes});
      continue;
    }
    const CardTensor& tensor = *found->second;
    const at::Tensor value = transformer.get(tensor.name);
    const Rows rows = tensor.rotary_permuted ? Rows::rotary : tensor.joined_by_kind ? Rows::by_head : Rows::plain;
    add(stored.name, changed_type(card, tensor.name, asked), stored.shape,
        in_gguf_order(value, rows, card.config.head_dim));
  }

  const ModelConfig config = config_now(transformer);
  const FamilyTable& table = family_table(config.family);
  for (const TensorSpec& spec : table.tensors) {
    if (!spec.present(config)) continue;
    for (std::int64_t layer = 0; layer < (spec.layered() ? config.layers : 1); ++layer) {
      const std::string name = at_layer(spec.name, layer), stored_name = at_layer(spec.gguf_name, layer);
      if (card.find(name)) continue;
      if (spec.role == TensorRole::unembedding) {
        // Untied by a change of the embedding, it is what that was.
        const StoredTensor& embedding = card.find(table.name_of(TensorRole::token_embedding))->stored;
        tensors.push_back({stored_name, embedding.type, embedding.shape, embedding.bytes});
        continue;
      }
      at::Tensor value = transformer.get(name);
      if (!value.defined()) value = at::zeros(spec.shape(config));
      add(stored_name, ElementType::f32, spec.shape(config), in_gguf_order(value, spec.rows, card.config.head_dim));
    }
  }
  write_gguf(path, source, tensors);
}

}  // namespace proviso::model
