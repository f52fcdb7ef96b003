#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace proviso::model {

/// Parses JSON that came from outside. `source` names the file in messages. Throws `InputError` for
/// anything but one JSON object, a name given twice, or nesting beyond `max_depth`.
nlohmann::json parse_json_object(std::string_view text, const std::string& source, int max_depth = 32);

}  // namespace proviso::model
