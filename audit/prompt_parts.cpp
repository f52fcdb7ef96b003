#include "audit/prompt_parts.hpp"

#include <map>
#include <set>
#include <string>
#include <utility>

#include "runtime/model/random.hpp"

namespace proviso::audit {

PromptParts cut(const std::vector<dsl::Prompt>& prompts, std::uint64_t seed) {
  std::vector<std::vector<dsl::Prompt>> clusters;
  std::map<std::string, std::size_t> by_name;
  std::set<std::string> texts;
  for (const auto& prompt : prompts) {
    if (!texts.insert(prompt.text).second) continue;
    const auto [known, is_new] =
        prompt.cluster.empty() ? std::pair(by_name.end(), true) : by_name.emplace(prompt.cluster, clusters.size());
    if (is_new) clusters.emplace_back();
    clusters[is_new ? clusters.size() - 1 : known->second].push_back(prompt);
  }
  model::NormalSource random(seed);
  for (std::size_t i = clusters.size(); i > 1; --i) std::swap(clusters[i - 1], clusters[random.below(i)]);

  PromptParts parts;
  for (const auto& cluster : clusters) {
    auto& part = parts.build.size() * 5 < texts.size() * 2 ? parts.build
                 : parts.choose.size() * 5 < texts.size()  ? parts.choose
                                                           : parts.judge;
    part.insert(part.end(), cluster.begin(), cluster.end());
  }
  return parts;
}

}  // namespace proviso::audit
