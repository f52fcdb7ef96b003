// The body on a CUDA device against itself on the CPU. Where there is none, nothing is compared.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <catch2/catch.hpp>
#include <functional>

#include "tests/support/reference_models.hpp"

using namespace proviso;
using model::KeyValueCache;
using model::Pass;
using model::Row;
using test::difference;

namespace {

constexpr double kRounding = 1e-5;
const std::vector<std::vector<std::int64_t>> kTexts = {
    {3, 14, 15, 9, 26, 5}, {35, 8}, {9, 7, 9, 3, 23, 8}, {46, 26, 43}};

bool no_cuda() {
  if (at::hasCUDA() && at::getNumGPUs() > 0) return false;
  WARN("LibTorch finds no CUDA device: nothing is compared");
  return true;
}

at::Tensor logits_of(const model::Transformer& transformer, const Pass& pass) {
  return test::logits_of(transformer, pass).detach().cpu();
}

}  // namespace

TEST_CASE("a CUDA device gives the CPU's values at every site", "[cuda]") {
  if (no_cuda()) return;
  const c10::NoGradGuard no_grad;
  const std::string name = GENERATE(from_range(test::kTinyModels));
  CAPTURE(name);
  const std::vector<Row> rows = test::rows_of(kTexts);
  test::Recorder here, there;
  const auto on_cpu = test::load_tiny_model(name), on_cuda = test::load_tiny_model(name, at::kFloat, at::kCUDA);
  const at::Tensor expected = logits_of(*on_cpu, {.rows = &rows, .visitor = &here});
  const at::Tensor logits = logits_of(*on_cuda, {.rows = &rows, .visitor = &there});
  CHECK(difference(logits, expected) < kRounding);
  REQUIRE(here.seen.size() == there.seen.size());
  for (std::size_t i = 0; i < here.seen.size(); ++i) {
    CAPTURE(dsl::to_string(here.seen[i].first));
    REQUIRE(here.seen[i].second.size() == there.seen[i].second.size());
    for (std::size_t call = 0; call < here.seen[i].second.size(); ++call) {
      CHECK(there.seen[i].second[call].is_cuda());
      CHECK(difference(there.seen[i].second[call].cpu(), here.seen[i].second[call]) < kRounding);
    }
  }
  const auto rounded = test::load_tiny_model(name, at::kBFloat16, at::kCUDA);
  const at::Tensor near = logits_of(*rounded, {.rows = &rows});
  CHECK((near - expected).norm().item<double>() < 0.05 * expected.norm().item<double>());
}

TEST_CASE("caches are continued, forked and chosen from on a CUDA device as on the CPU", "[cuda]") {
  if (no_cuda()) return;
  const c10::NoGradGuard no_grad;
  const std::string name = GENERATE(from_range(test::kTinyModels));
  CAPTURE(name);
  const std::vector<Row> prefix = test::rows_of({{5, 1, 60}}), rows = test::rows_of(kTexts),
                         next = test::rows_of({{11}, {12}});
  const auto run = [&](at::Device device) {
    const auto transformer = test::load_tiny_model(name, at::kFloat, device);
    KeyValueCache cache;
    transformer->forward({.rows = &prefix, .cache = &cache});
    KeyValueCache forked = cache.fork(static_cast<std::int64_t>(kTexts.size()));
    std::vector<at::Tensor> all = {logits_of(*transformer, {.rows = &rows, .cache = &forked})};
    KeyValueCache selected = forked.select({2, 1});
    all.push_back(logits_of(*transformer, {.rows = &next, .cache = &selected}));
    return at::cat(all);
  };
  CHECK(difference(run(at::kCUDA), run(at::kCPU)) < kRounding);
}

TEST_CASE("gradients on a CUDA device are the CPU's", "[cuda]") {
  if (no_cuda()) return;
  const std::string name = GENERATE(from_range(test::kTinyModels));
  CAPTURE(name);
  const std::vector<Row> rows = test::rows_of(kTexts);
  const auto run = [&](at::Device device) {
    const auto transformer = test::load_tiny_model(name, at::kFloat, device);
    const at::Tensor start =
        at::linspace(-1, 1, 17 * transformer->config().width).view({17, -1}).to(device).set_requires_grad(true);
    Pass pass{.rows = &rows, .start_after = 0, .start_values = start};
    test::logits_of(*transformer, pass).square().sum().backward();
    return start.grad().cpu();
  };
  CHECK(difference(run(at::kCUDA), run(at::kCPU)) < 1e-3);
}
