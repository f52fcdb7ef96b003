#include "runtime/formats/json_text.hpp"

#include <set>
#include <vector>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

nlohmann::json parse_json_object(std::string_view text, const std::string& source, int max_depth) {
  using Json = nlohmann::json;
  std::vector<std::set<std::string>> names;  // of the objects that are open
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) names.emplace_back();
    if (event == Json::parse_event_t::object_end) names.pop_back();
    if (event == Json::parse_event_t::key && !names.back().insert(parsed.get<std::string>()).second) {
      throw InputError(source + ": '" + parsed.get<std::string>() + "' is given twice");
    }
    if (depth > max_depth) throw InputError(source + ": JSON nested deeper than " + std::to_string(max_depth));
    return true;
  };
  try {
    Json json = Json::parse(text, watch);
    if (!json.is_object()) throw InputError(source + ": a JSON object was expected");
    return json;
  } catch (const Json::exception& error) {
    throw InputError(source + ": is not valid JSON: " + error.what());
  }
}

}  // namespace proviso::model
