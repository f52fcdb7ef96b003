// Against transformers: every site and the logits of tiny random models, and SmolLM2's log-probabilities.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "runtime/formats/safetensors.hpp"
#include "tests/support/reference_models.hpp"

using namespace proviso;

namespace {

std::map<std::string, at::Tensor> read_expected(const std::string& name) {
  std::map<std::string, at::Tensor> values;
  for (const model::StoredTensor& stored :
       model::read_safetensors(test::tiny_model_path(name) + "/expected.safetensors").tensors) {
    at::Tensor value = at::empty(stored.shape, at::kFloat);
    model::dequantize(stored, {value.data_ptr<float>(), static_cast<std::size_t>(value.numel())});
    values[stored.name] = value;
  }
  return values;
}

std::vector<std::int64_t> tokens_of(const at::Tensor& values) {
  const at::Tensor ids = values.to(at::kLong);
  return {ids.data_ptr<std::int64_t>(), ids.data_ptr<std::int64_t>() + ids.numel()};
}

}  // namespace

TEST_CASE("tiny models give transformers' values at every site") {
  const std::string name = GENERATE(from_range(test::kTinyModels));
  const bool explicit_attention = GENERATE(true, false);
  CAPTURE(name, explicit_attention);
  const c10::NoGradGuard no_grad;
  const auto transformer = test::load_tiny_model(name);
  const auto expected = read_expected(name);

  std::vector<std::vector<std::int64_t>> tokens;
  for (int row = 0; expected.count(std::to_string(row) + "/tokens"); ++row) {
    tokens.push_back(tokens_of(expected.at(std::to_string(row) + "/tokens")));
  }
  const std::vector<model::Row> rows = test::rows_of(tokens);
  struct NoPattern : test::Recorder {
    bool wants(const dsl::Site& site) const override { return site.kind != dsl::SiteKind::pattern; }
  } without_pattern;
  test::Recorder with_pattern;
  test::Recorder& recorder = explicit_attention ? with_pattern : without_pattern;
  model::Pass pass{.rows = &rows, .visitor = &recorder, .logits_at = std::nullopt};
  const model::PackedLayout layout = transformer->forward(pass);

  std::size_t compared = 0;
  for (const auto& [site, values] : recorder.seen) {
    for (std::size_t row = 0; row < rows.size(); ++row) {
      const std::string key = std::to_string(row) + "/" + dsl::to_string(site);
      CAPTURE(key);
      REQUIRE(expected.count(key));
      const at::Tensor value = site.kind == dsl::SiteKind::pattern
                                   ? values.at(row)
                                   : values.at(0).narrow(0, layout.rows[row].begin, layout.rows[row].length);
      CHECK(test::difference(value, expected.at(key)) < 1e-5);
      ++compared;
    }
  }
  const std::size_t patterns = explicit_attention ? 0 : rows.size() * transformer->config().layers;
  CHECK(compared + patterns + rows.size() == expected.size());
}

TEST_CASE("SmolLM2 gives transformers' log-probabilities") {
  const std::string path = PROVISO_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) FAIL("there is no " << path << ": fetch it by `make model`");
  const c10::NoGradGuard no_grad;
  const auto transformer = model::Transformer::load(model::read_model_card(path), {});

  std::vector<nlohmann::json> cases;
  std::ifstream file(PROVISO_SOURCE_DIR "/tests/parity/model/smollm2_log_probabilities.jsonl");
  for (std::string line; std::getline(file, line);) cases.push_back(nlohmann::json::parse(line));
  REQUIRE(cases.size() >= 50);

  std::vector<model::Row> rows;
  std::vector<std::int64_t> last;
  std::int64_t packed = 0;
  for (const nlohmann::json& each : cases) {
    rows.push_back({each["ids"], 0});
    packed += static_cast<std::int64_t>(rows.back().tokens.size());
    last.push_back(packed - 1);
  }
  model::Pass pass{.rows = &rows, .logits_at = last};
  pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
    const at::Tensor log_probabilities = logits.to(at::kDouble).log_softmax(-1);
    for (std::int64_t i = 0; i < logits.size(0); ++i) {
      for (const auto& [id, expected] : cases[first + i]["next"].get<std::vector<std::pair<std::int64_t, double>>>()) {
        CAPTURE(first + i, id);
        CHECK(log_probabilities[i][id].item<double>() == Approx(expected).margin(1e-3));
      }
    }
  };
  transformer->forward(pass);
}
