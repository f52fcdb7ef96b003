#include "dsl/number_text.hpp"

#include <charconv>

namespace proviso::dsl {

std::string number_text(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  std::string text(buffer, end);
  // The language writes 1e5, and no sign before it but a minus.
  if (const auto plus = text.find('+'); plus != std::string::npos) text.erase(plus, 1);
  return text;
}

}  // namespace proviso::dsl
