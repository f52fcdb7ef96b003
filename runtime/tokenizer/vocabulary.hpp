#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace proviso::model {

/// The texts of a tokenizer's ids, found by id and by text.
class Vocabulary {
 public:
  /// `texts` by id; an empty text is an id that no text reaches. Throws `InputError` where two ids have one text.
  explicit Vocabulary(std::vector<std::string> texts);

  std::size_t size() const { return texts_.size(); }
  const std::string& text(std::uint32_t id) const { return texts_[id]; }
  std::optional<std::uint32_t> find(std::string_view text) const;

 private:
  std::size_t slot_of(std::string_view text) const;

  std::vector<std::string> texts_;
  std::vector<std::uint32_t> slots_;  // id + 1 by hash, with open addressing; 0 is free
};

}  // namespace proviso::model
