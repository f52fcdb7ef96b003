#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dsl/check.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/rule_set.hpp"
#include "dsl/site.hpp"

namespace proviso::lsp {

/// What an editor tells of a model. This layer reads none: who can fills it in.
struct ModelView {
  struct SiteView {
    std::int64_t width = 0;  ///< elements, of all heads together; 0 where it depends on the text
    std::int64_t heads = 0;  ///< 0 where the site has none
    std::string missing;     ///< why the model has no such site; "" where it has it
  };
  std::string name;
  std::int64_t layers = 0;
  std::map<dsl::SiteKind, SiteView> sites;
  /// What is wrong on this model with rules, as far as they are sound.
  std::function<std::vector<dsl::Diagnostic>(std::shared_ptr<const dsl::CheckedParts>)> check;
  /// A sentence on what a feature of rules, by its name there, is on this model. Never waits.
  std::function<std::string(const std::shared_ptr<const dsl::RuleSet>&, const std::string& feature)> calibration;
};

}  // namespace proviso::lsp
