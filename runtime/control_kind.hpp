#pragma once

namespace proviso::runtime {

/// What a control makes of an `effect`'s change.
enum class ControlKind {
  direction,   ///< a random direction, with the length that the change had at each token
  wrong_sign,  ///< the change itself, turned round
  positions    ///< the changes of other positions of the same prompt, drawn; that of position 0 stays
};

}  // namespace proviso::runtime
