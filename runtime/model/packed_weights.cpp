#include "runtime/model/packed_weights.hpp"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <tuple>

#include "runtime/model/allocation.hpp"

namespace proviso::model {

namespace {

using LinearSignature = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                                   std::string_view, c10::List<std::optional<at::Scalar>>,
                                   std::optional<std::string_view>);
using Linear = c10::TypedOperatorHandle<LinearSignature>;

/// Nothing where this build of LibTorch or this machine has none.
const Linear* linear() {
  static const std::optional<Linear> found = []() -> std::optional<Linear> {
    const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!schema || !at::globalContext().userEnabledMkldnn()) return std::nullopt;
    return schema->typed<LinearSignature>();
  }();
  return found ? &*found : nullptr;
}

/// For any number of rows; undefined where this build cannot.
at::Tensor packed(const at::Tensor& weight) {
  static const auto pack = c10::Dispatcher::singleton().findSchema({"mkldnn::_reorder_linear_weight", ""});
  if (!pack) return {};
  const c10::NoGradGuard no_grad;
  std::vector<c10::IValue> stack = {weight.contiguous(), c10::IValue()};
  pack->callBoxed(stack);
  return stack.front().toTensor();
}

class PackedWeights {
 public:
  at::Tensor reused(const at::Tensor& weight, bool transposed) {
    const at::Tensor plain = transposed ? weight.t() : weight;
    const std::lock_guard lock(mutex_);
    Kept& kept = kept_[{weight.const_data_ptr(), weight.size(0), weight.size(1), transposed}];
    const auto storage = weight.storage().getWeakStorageImpl();
    const std::uint32_t version = weight.is_inference() ? 0 : weight._version();
    if (!kept.of || !(*kept.of == storage) || kept.version != version) kept = {storage, version};
    if (kept.weight.defined()) return kept.weight;
    constexpr int kPackedAt = 3;
    if (++kept.uses != kPackedAt) return plain;
    constexpr std::uint64_t kOfFree = 4;  // a fourth of what is free may be taken
    if (weight.nbytes() * kOfFree > available_memory()) return plain;
    std::erase_if(kept_, [](const auto& each) { return each.second.of->expired(); });
    kept.weight = packed(plain);
    return kept.weight.defined() ? kept.weight : plain;
  }

 private:
  struct Kept {
    std::optional<c10::weak_intrusive_ptr<c10::StorageImpl>> of{};
    std::uint32_t version = 0;
    int uses = 0;
    at::Tensor weight{};  ///< packed
  };

  std::mutex mutex_;
  std::map<std::tuple<const void*, std::int64_t, std::int64_t, bool>, Kept> kept_;
};

}  // namespace

bool onednn_runs() { return linear() != nullptr; }

at::Tensor onednn_linear(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  return linear()->call(x, weight, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

at::Tensor packed_where_reused(const at::Tensor& weight, bool transposed) {
  static PackedWeights weights;
  return weights.reused(weight, transposed);
}

}  // namespace proviso::model
