#pragma once

#include <string>

namespace proviso::model {

/// Unicode's normal form C of well-formed text, by the tables that the `tokenizers` library uses: each character taken
/// apart, its marks put in order, and all that composes put together ("e" and U+0301 become "é").
std::string to_normal_form_c(std::string text);

}  // namespace proviso::model
