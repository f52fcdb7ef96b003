#pragma once

#include <bitset>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace proviso::model {

/// A token that is found in the text before anything else happens to it.
struct AddedToken {
  std::uint32_t id = 0;
  std::string text;
  bool special = false;
  bool normalized = false;              ///< found after normalizing, and not before
  bool lstrip = false, rstrip = false;  ///< takes the white space on that side with it
  bool single_word = false;             ///< only where no word character touches it
};

/// Finds added tokens in a text: leftmost, then longest.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  /// A part of the text: a token, or what lies between tokens.
  struct Part {
    std::string_view text;
    std::optional<std::uint32_t> id;
  };
  std::vector<Part> split(std::string_view text) const;

 private:
  const AddedToken* longest_at(std::string_view text) const;

  std::vector<AddedToken> tokens_;  // by text
  std::bitset<256> first_bytes_;
};

}  // namespace proviso::model
