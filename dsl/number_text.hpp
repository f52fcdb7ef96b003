#pragma once

#include <string>

namespace proviso::dsl {

/// The shortest decimal form that reads back as `value`: "0.8", "1e-05".
std::string number_text(double value);

}  // namespace proviso::dsl
