// What is said of a rule file on a model, each situation in a `.ptest` of its own.
//
// The model is a tiny random one whose tokens are bytes, of the family that `option: model` names (llama unless
// told): 2 layers, 4 heads (2 for keys and values), width 16, 24 neurons, a context of 128. Files lie beside each
// other; one whose name ends in `.safetensors` lists its tensors, a line each: name, shape (`8`, `16x4`). `option:
// build` builds all features, too; `option: chat-template` gives the model one (Jinja). All rule files are given, or
// the one that `option: given` names.

#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "dsl/check.hpp"
#include "dsl/render.hpp"
#include "runtime/bind.hpp"
#include "runtime/features/choose_sites.hpp"
#include "runtime/session.hpp"
#include "tests/support/ptest.hpp"
#include "tests/support/random_model.hpp"

namespace proviso::runtime {
namespace {

void write_listed_tensors(const std::string& path, const std::string& listed) {
  std::istringstream lines(listed);
  std::vector<model::TensorToWrite> tensors;
  std::vector<std::vector<float>> values;
  for (std::string name, sizes; lines >> name >> sizes;) {
    std::istringstream parts(sizes);
    std::vector<std::int64_t> shape;
    for (std::string size; std::getline(parts, size, 'x');) shape.push_back(std::stoll(size));
    values.emplace_back(static_cast<std::size_t>(*model::element_count(shape)), 1.0f);
    tensors.push_back({name, model::ElementType::f32, shape, std::as_bytes(std::span(values.back()))});
  }
  model::write_safetensors(path, tensors, {});
}

const test::RandomModel& model_of(const std::string& family) {
  static std::map<std::string, test::RandomModel> models;
  const std::string name = family.empty() ? "llama" : family;
  const auto found = models.find(name);
  return found != models.end() ? found->second : models.emplace(name, test::tiny_json(name)).first->second;
}

/// The model's tokenizer, with the chat template that the test gives it.
std::shared_ptr<const model::Tokenizer> tokenizer_of(const test::Ptest& golden, const test::RandomModel& model) {
  const std::string chat_template = golden.option("chat-template");
  if (chat_template.empty()) return model.tokenizer;
  const test::TemporaryFolder folder;
  test::write_bytes(folder / "tokenizer.json", test::byte_tokenizer_json().dump());
  test::write_bytes(folder / "tokenizer_config.json", nlohmann::json{{"chat_template", chat_template}}.dump());
  return model::Tokenizer::load(folder.path().string());
}

test::Sections run(const test::Ptest& golden) {
  const test::TemporaryFolder folder;
  std::vector<std::string> given;
  for (const auto& [name, text] : golden.files) {
    const std::string path = folder / name;
    if (name.ends_with(".safetensors")) {
      write_listed_tensors(path, text);
    } else {
      test::write_bytes(path, text);
    }
    if (name.ends_with(".proviso") && golden.option("given", name) == name) given.push_back(path);
  }
  dsl::SourceSet sources;
  const auto parts = std::make_shared<const dsl::CheckedParts>(dsl::check_file_parts(sources, given));
  const auto& model = model_of(golden.option("model"));
  const auto tokenizer = tokenizer_of(golden, model);
  auto diagnostics = parts->diagnostics;
  const auto add = [&](const std::vector<dsl::Diagnostic>& more) {
    diagnostics.insert(diagnostics.end(), more.begin(), more.end());
  };
  if (dsl::has_errors(diagnostics)) {
    add(runtime::bind_parts(parts, model.transformer->card(), tokenizer, ""));
  } else {
    const auto rules = std::shared_ptr<const dsl::RuleSet>(parts, &parts->rules);
    auto outcome = runtime::bind(rules, model.transformer->card(), tokenizer, "");
    CHECK(outcome.value.has_value() != dsl::has_errors(outcome.diagnostics));
    add(outcome.diagnostics);
    if (outcome.value && !golden.option("build").empty()) {
      std::set<dsl::FeatureId> features;
      for (dsl::FeatureId id = 0; id < rules->features.size(); ++id) features.insert(id);
      const auto chosen = choose_sites(*outcome.value, *model.transformer, features, "", {});
      add(chosen.diagnostics);
      if (chosen.value) add(Session(*model.transformer, *chosen.value, {}).build(features));
    }
  }
  dsl::sort_by_place(diagnostics);
  // What names the folders of this run is shown without them.
  std::string text = dsl::render_text(diagnostics, sources);
  for (const auto& path : {folder.path().string() + "/", folder.path().string()}) {
    for (auto at = text.find(path); at != std::string::npos; at = text.find(path)) text.erase(at, path.size());
  }
  const std::string name = model_of(golden.option("model")).folder.path().filename().string();
  for (auto at = text.find(name); at != std::string::npos; at = text.find(name)) text.replace(at, name.size(), "tiny");
  return {{"diagnostics", text}};
}

}  // namespace

TEST_CASE("binding says what does not fit the model, where and what to do") {
  test::for_each_ptest("tests/golden/bind", run);
}

}  // namespace proviso::runtime
