#pragma once

// What `find_features` found, for people.

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace proviso::audit {

std::string features_text(const nlohmann::ordered_json& found, std::size_t columns, bool colour);
/// One HTML page that needs nothing else, no script either.
std::string features_html(const nlohmann::ordered_json& found);

/// What both say of how the numbers came about, a sentence each.
struct SearchWords {
  std::string heading;   ///< "Features of M that tell P from Q"
  std::string prompts;   ///< how many build, choose and judge
  std::string searched;  ///< how many candidates of each kind, and how the best were chosen
  std::string auroc;     ///< what its interval covers
  std::string effect;    ///< what was taken out, and what it is compared with
  std::string reading;   ///< which tokens
};
SearchWords search_words(const nlohmann::ordered_json& found);

std::string area_text(const nlohmann::ordered_json& auroc);      ///< "0.9861 [0.95, 0.998]"
std::string change_text(const nlohmann::ordered_json& effect);   ///< "0.031 [0.02, 0.05]"
std::string control_text(const nlohmann::ordered_json& effect);  ///< "0.001 ± 0.002, p 1e-05"; "" where there is none

/// "0.83 between halves of the building prompts", of a direction; "" of what is not built from prompts.
std::string stability_text(const nlohmann::ordered_json& feature);

}  // namespace proviso::audit
