#include "runtime/tokenizer/vocabulary.hpp"

#include <bit>
#include <functional>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

Vocabulary::Vocabulary(std::vector<std::string> texts)
    : texts_(std::move(texts)), slots_(std::bit_ceil(2 * texts_.size() + 1)) {
  for (std::uint32_t id = 0; id < texts_.size(); ++id) {
    if (texts_[id].empty()) continue;
    std::uint32_t& slot = slots_[slot_of(texts_[id])];
    if (slot != 0) {
      throw InputError("tokens " + std::to_string(slot - 1) + " and " + std::to_string(id) + " have the same text '" +
                       texts_[id] + "'");
    }
    slot = id + 1;
  }
}

std::size_t Vocabulary::slot_of(std::string_view text) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = std::hash<std::string_view>{}(text)&mask;
  while (slots_[slot] != 0 && texts_[slots_[slot] - 1] != text) slot = (slot + 1) & mask;
  return slot;
}

std::optional<std::uint32_t> Vocabulary::find(std::string_view text) const {
  const std::uint32_t entry = slots_[slot_of(text)];
  if (entry == 0) return std::nullopt;
  return entry - 1;
}

}  // namespace proviso::model
