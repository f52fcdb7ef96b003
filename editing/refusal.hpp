#pragma once

#include <string>

namespace proviso::editing {

/// Why something cannot be done, for people: a clause without a full stop that names the cure.
struct Refusal {
  std::string reason;
};

}  // namespace proviso::editing
