// What `check` says about rule files, each situation in a `.ptest` of its own.
//
// Rule files given are those that `option: given` names, one a line (the first file unless told); the others are
// there to be used. With `option: read` the prompts of that name are read from their file section, and `expect:
// prompts` shows them: cluster | text | expected continuations. `option: grow-to` lengthens that file to so many bytes.

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "dsl/check.hpp"
#include "dsl/prompt_file.hpp"
#include "dsl/render.hpp"
#include "tests/support/ptest.hpp"

namespace proviso::dsl {
namespace {

std::vector<std::string> lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> result;
  for (std::string line; std::getline(stream, line);) result.push_back(line);
  return result;
}

std::string shown(const std::vector<Prompt>& prompts) {
  std::string text;
  for (const Prompt& prompt : prompts) {
    text += prompt.cluster + " | " + prompt.text + " |";
    for (const std::string& answer : prompt.answers) text += " [" + answer + "]";
    text += "\n";
  }
  return text;
}

const PromptFile* prompt_file(const RuleSet& rule_set, const std::string& name) {
  for (const PromptsDecl& set : rule_set.prompts) {
    if (set.name == name) return std::get_if<PromptFile>(&set.source);
  }
  return nullptr;
}

/// Rule files lie in the folder that the tests run in: what is above it is "/above", wherever that is.
std::string portable(std::string text) {
  const std::string above = std::filesystem::current_path().parent_path().string();
  for (auto at = text.find(above); at != std::string::npos; at = text.find(above, at))
    text.replace(at, above.size(), "/above");
  return text;
}

test::Sections run(const test::Ptest& golden) {
  SourceSet sources;
  std::vector<SourceId> given;
  const std::vector<std::string> named = lines(golden.option("given", golden.files.front().first));
  for (const auto& [path, text] : golden.files) {
    if (path.ends_with(".proviso")) sources.add(path, text);
  }
  for (const std::string& path : named) {
    for (SourceId id = 0; id < sources.size(); ++id) {
      if (sources.at(id).path == path) given.push_back(id);
    }
  }
  REQUIRE(given.size() == named.size());

  Outcome<RuleSet> checked = check_sources(sources, given);
  CHECK(checked.value.has_value() != has_errors(checked.diagnostics));
  test::Sections produced;
  if (const std::string read = golden.option("read"); !read.empty()) {
    REQUIRE(checked.value);
    const PromptFile* file = prompt_file(*checked.value, read);
    REQUIRE(file != nullptr);
    std::string bytes = golden.file(file->path);
    bytes.resize(std::max<std::size_t>(bytes.size(), std::stoul(golden.option("grow-to", "0"))), 'x');
    const auto prompts = read_prompt_file(*file, bytes);
    checked.diagnostics.insert(checked.diagnostics.end(), prompts.diagnostics.begin(), prompts.diagnostics.end());
    if (prompts.value) produced.emplace_back("prompts", shown(*prompts.value));
  }
  produced.emplace_back("diagnostics", portable(render_text(checked.diagnostics, sources)));
  return produced;
}

}  // namespace

TEST_CASE("check says what is wrong with a rule file, where and what to do") {
  test::for_each_ptest("tests/golden/check", run);
}

}  // namespace proviso::dsl
