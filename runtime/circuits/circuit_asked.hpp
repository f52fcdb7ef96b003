#pragma once

namespace proviso::runtime {

/// What is asked of a circuit beside what it carries.
struct CircuitAsked {
  bool minimality = false, stability = false;
};

}  // namespace proviso::runtime
