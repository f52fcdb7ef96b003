#pragma once

#include <catch2/catch.hpp>
#include <string>

#include "editing/certificate.hpp"

namespace proviso::test {

/// One of a certificate's numbers; fails the test where it has none of that name.
inline double number(const editing::NamedNumbers& numbers, const std::string& name) {
  for (const auto& [key, value] : numbers)
    if (key == name) return value;
  FAIL("no number " << name);
  return 0;
}

}  // namespace proviso::test
