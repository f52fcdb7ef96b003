#include "runtime/model/weights.hpp"

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "runtime/model/allocation.hpp"

namespace proviso::model {

namespace {

std::size_t role_index(TensorRole role) { return static_cast<std::size_t>(role); }

at::ScalarType scalar_type(ElementType type) {
  switch (type) {
    case ElementType::f16:
      return at::kHalf;
    case ElementType::bf16:
      return at::kBFloat16;
    default:
      return at::kFloat;
  }
}

/// The file's own bytes as a tensor that keeps the map alive.
at::Tensor mapped(const StoredTensor& stored, at::ScalarType type) {
  void* data = const_cast<std::byte*>(stored.bytes.data());
  return at::from_blob(
      data, stored.shape, [file = stored.file](void*) {}, at::TensorOptions().dtype(type));
}

bool is_mappable(const CardTensor& tensor, at::ScalarType dtype, at::Device device) {
  const ElementType type = tensor.stored.type;
  const bool plain = type == ElementType::f32 || type == ElementType::f16 || type == ElementType::bf16;
  const bool aligned = reinterpret_cast<std::uintptr_t>(tensor.stored.bytes.data()) % at::elementSize(dtype) == 0;
  return plain && scalar_type(type) == dtype && aligned && !tensor.transposed && !tensor.rotary_permuted &&
         !tensor.joined_by_kind && device.is_cpu();
}

/// The elements that one step of a parallel expansion handles: whole blocks of every stored type.
constexpr std::int64_t kExpandStep = 1 << 16;

void dequantize_in_parallel(const StoredTensor& stored, float* out) {
  const std::int64_t elements = stored.elements();
  const std::int64_t steps = (elements + kExpandStep - 1) / kExpandStep;
  at::parallel_for(0, steps, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t step = begin; step < end; ++step) {
      const std::int64_t first = step * kExpandStep;
      const std::int64_t count = std::min(kExpandStep, elements - first);
      StoredTensor part;
      part.name = stored.name;
      part.type = stored.type;
      part.shape = {count};
      part.file = stored.file;
      part.bytes = stored.bytes.subspan(stored_bytes(stored.type, static_cast<std::size_t>(first)),
                                        stored_bytes(stored.type, static_cast<std::size_t>(count)));
      dequantize(part, {out + first, static_cast<std::size_t>(count)});
    }
  });
}

/// Rows of each head from GGUF's interleaved pairs (0, h/2, 1, h/2 + 1, …) back to the halves.
at::Tensor unpermute_rotary(const at::Tensor& rows, std::int64_t head_dim) {
  auto shape = rows.sizes().vec();
  std::vector<std::int64_t> split = {shape[0] / head_dim, head_dim / 2, 2};
  split.insert(split.end(), shape.begin() + 1, shape.end());
  return rows.view(split).transpose(1, 2).reshape(shape);
}

/// Rows of a fused map from all queries, keys, values to those of each head in turn.
at::Tensor by_head(const at::Tensor& rows, std::int64_t head_dim) {
  const auto shape = rows.sizes().vec();
  std::vector<std::int64_t> split = {3, shape[0] / (3 * head_dim), head_dim};
  split.insert(split.end(), shape.begin() + 1, shape.end());
  return rows.view(split).transpose(0, 1).reshape(shape);
}

/// Converts into `destination`, which has the model's shape and dtype.
void expand(const CardTensor& tensor, std::int64_t head_dim, at::Tensor& destination) {
  const bool direct = destination.scalar_type() == at::kFloat && !tensor.transposed && !tensor.rotary_permuted &&
                      !tensor.joined_by_kind;
  if (direct) return dequantize_in_parallel(tensor.stored, destination.data_ptr<float>());
  at::Tensor values = at::empty(tensor.stored.shape, at::kFloat);
  dequantize_in_parallel(tensor.stored, values.data_ptr<float>());
  if (tensor.transposed) values = values.t();
  if (tensor.rotary_permuted) values = unpermute_rotary(values, head_dim);
  if (tensor.joined_by_kind) values = by_head(values, head_dim);
  destination.copy_(values);
}

std::string gibibytes(std::uint64_t bytes) {
  std::ostringstream text;
  text.precision(1);
  text << std::fixed << static_cast<double>(bytes) / (1ull << 30) << " GiB";
  return text.str();
}

void require_memory(const ModelCard& card, std::uint64_t bytes) {
  const std::uint64_t available = available_memory();
  if (available == 0 || bytes <= available) return;
  throw MachineError(card.path + ": the model needs " + gibibytes(bytes) + " of memory and " + gibibytes(available) +
                     " are free; free some, take a smaller model or --dtype bfloat16");
}

/// Decoding reads every weight once a token: fewer page-table walks make that a quarter faster.
void ask_for_huge_pages([[maybe_unused]] const at::Tensor& memory) {
#ifdef MADV_HUGEPAGE
  constexpr std::size_t kHugePage = 2u << 20;
  void* first = memory.data_ptr();
  std::size_t bytes = memory.nbytes();
  if (std::align(kHugePage, kHugePage, first, bytes)) ::madvise(first, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
}

}  // namespace

at::Tensor stored_values(const StoredTensor& stored) {
  auto values = at::empty(stored.shape, at::kFloat);
  dequantize(stored, {values.mutable_data_ptr<float>(), static_cast<std::size_t>(values.numel())});
  return values;
}

Weights Weights::load(const ModelCard& card, at::ScalarType dtype, at::Device device) {
  c10::NoGradGuard no_grad;
  Weights weights;
  weights.dtype_ = dtype;
  weights.device_ = device;
  weights.name_of_model_ = card.path;
  const FamilyTable& table = family_table(card.config.family);

  // In the table's order, so that query, key and value (and gate and up) lie side by side.
  std::vector<std::pair<Slot, const CardTensor*>> expanded;
  std::uint64_t expanded_elements = 0;
  const std::int64_t layers = card.config.layers;
  for (const TensorSpec& spec : table.tensors) {
    weights.tensors_[role_index(spec.role)].resize(static_cast<std::size_t>(spec.layered() ? layers : 1));
  }
  const auto place = [&](const TensorSpec& spec, std::int64_t layer) {
    const std::string name = at_layer(spec.name, layer);
    const Slot slot{&spec, layer};
    weights.slots_.emplace(name, slot);
    weights.shapes_.emplace(name, spec.shape(card.config));
    const CardTensor* tensor = card.find(name);
    if (!tensor) return;
    if (is_mappable(*tensor, dtype, device)) {
      weights.slot(slot) = mapped(tensor->stored, dtype);
    } else {
      expanded.emplace_back(slot, tensor);
      expanded_elements += static_cast<std::uint64_t>(tensor->stored.elements());
    }
  };
  for (const TensorSpec& spec : table.tensors) {
    if (!spec.layered()) place(spec, 0);
  }
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    for (const TensorSpec& spec : table.tensors) {
      if (spec.layered()) place(spec, layer);
    }
  }

  require_memory(card, expanded_elements * at::elementSize(dtype));
  at::Tensor arena = at::empty({static_cast<std::int64_t>(expanded_elements)}, dtype);
  ask_for_huge_pages(arena);
  std::int64_t used = 0;
  for (const auto& [slot, tensor] : expanded) {
    const std::int64_t elements = tensor->stored.elements();
    at::Tensor destination = arena.narrow(0, used, elements).view(slot.spec->shape(card.config));
    used += elements;
    expand(*tensor, card.config.head_dim, destination);
    weights.slot(slot) = destination.to(device);
  }
  at::Tensor& unembedding = weights.tensors_[role_index(TensorRole::unembedding)][0];
  if (!unembedding.defined()) unembedding = weights.of(TensorRole::token_embedding);
  return weights;
}

at::Tensor& Weights::slot(const Slot& place) {
  return tensors_[role_index(place.spec->role)][static_cast<std::size_t>(place.layer)];
}

const at::Tensor& Weights::of(TensorRole role, std::int64_t layer) const {
  static const at::Tensor kNone;
  const std::vector<at::Tensor>& tensors = tensors_[role_index(role)];
  return tensors.empty() ? kNone : tensors[static_cast<std::size_t>(layer)];
}

const at::Tensor* Weights::find(const std::string& name) const {
  const auto place = slots_.find(name);
  return place == slots_.end() ? nullptr : &of(place->second.spec->role, place->second.layer);
}

void Weights::set(const std::string& name, at::Tensor value) {
  const auto place = slots_.find(name);
  if (place == slots_.end()) throw InputError(name_of_model_ + ": the model has no tensor `" + name + "`");
  if (value.defined()) {
    const std::vector<std::int64_t>& shape = shapes_.at(name);
    if (value.sizes() != at::IntArrayRef(shape)) {
      throw InputError(name_of_model_ + ": `" + name + "` has shape " + c10::str(at::IntArrayRef(shape)) + ", not " +
                       c10::str(value.sizes()));
    }
    value = value.to(device_, dtype_).contiguous();
  } else if (!name.ends_with(".bias")) {
    throw InputError(name_of_model_ + ": `" + name + "` cannot be taken away");
  }
  slot(place->second) = std::move(value);
}

bool Weights::tied() const {
  const at::Tensor& unembedding = of(TensorRole::unembedding);
  return unembedding.is_alias_of(of(TensorRole::token_embedding)) &&
         unembedding.data_ptr() == of(TensorRole::token_embedding).data_ptr();
}

std::vector<std::string> Weights::names(const ModelCard& card) const {
  std::vector<std::string> names;
  for (const CardTensor& tensor : card.tensors) {
    const at::Tensor* present = find(tensor.name);
    if (present && present->defined()) names.push_back(tensor.name);
  }
  for (const auto& [name, place] : slots_) {
    const bool shared = place.spec->role == TensorRole::unembedding && tied();
    if (!card.find(name) && find(name)->defined() && !shared) names.push_back(name);
  }
  return names;
}

}  // namespace proviso::model
