#include "runtime/hooks.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <string>
#include <vector>

#include "tests/unit/runtime/rules_on_model.hpp"

namespace proviso::runtime {
namespace {

constexpr std::int64_t kWidth = 16;
const dsl::Site kSite{dsl::SiteKind::resid_post, 0, -1};

const std::string kFeatures = R"(
feature p = unembed("p") at resid_post[0]
feature q = unembed("q") at resid_post[0]
feature r = unembed("r") at resid_post[0]
feature s = unembed("s") at resid_post[0]
)";

/// Directions that overlap, the last two along one line, each with an offset and a scale of its own.
std::vector<Direction> directions() {
  auto rows = test::random_tensor({4, kWidth}, 3) + 0.7;
  rows[3] = rows[2] * 2;
  std::vector<Direction> result;
  for (std::int64_t i = 0; i < 4; ++i) {
    result.push_back({kSite,
                      rows[i] / rows[i].norm(),
                      0.3 * static_cast<double>(i) - 0.2,
                      0.5 + 0.25 * static_cast<double>(i),
                      0,
                      {}});
  }
  return result;
}

/// Two texts side by side: 7 and 5 tokens.
model::PackedLayout two_rows() {
  const std::string text = "abcdabcxaxbc";
  std::vector<std::int64_t> tokens(text.begin(), text.end());
  model::PackedLayout layout;
  layout.rows = {{0, 7, 0, 7}, {7, 5, 0, 5}};
  layout.tokens = at::tensor(tokens, at::kLong);
  return layout;
}

double activation(const Direction& direction, const at::Tensor& x) {
  return (direction.d.dot(x.to(at::kDouble)).item<double>() - direction.b) / direction.c;
}

/// What sentences make of some vectors.
at::Tensor written(const std::string& sentences, const at::Tensor& x, bool backwards = false) {
  test::RulesOnModel rules(kFeatures + "rule all {\n" + sentences + "\n}\n");
  const auto features = directions();
  HookProgram program(features, *rules.bound.card);
  auto interventions = rules.rules->rules[0].interventions;
  if (backwards) std::reverse(interventions.begin(), interventions.end());
  for (const auto& sentence : interventions) {
    program.add(sentence, {kSite}, false, [&](const std::string& text) { return rules.bound.token_id(text); }, {});
  }
  program.finish(at::kCPU);
  HookPass pass(program);
  const auto layout = two_rows();
  std::vector<RowMemory> memories(2, program.conditions().begin_row(""));
  pass.begin({&memories[0], &memories[1]});
  auto result = x.clone();
  pass.visit(kSite, result, layout);
  return result;
}

/// The vector nearest to x whose features have the targets, by an SVD in float64.
at::Tensor nearest(const at::Tensor& x, const std::vector<std::pair<std::size_t, double>>& targets) {
  if (targets.empty()) return x.to(at::kDouble);
  const auto features = directions();
  std::vector<at::Tensor> rows;
  std::vector<double> wanted;
  for (const auto& [feature, target] : targets) {
    rows.push_back(features[feature].d);
    wanted.push_back(features[feature].c * (target - activation(features[feature], x)));
  }
  return x.to(at::kDouble) + at::linalg_pinv(at::stack(rows), 1e-5).matmul(at::tensor(wanted, at::kDouble));
}

at::Tensor some_vectors() { return test::random_tensor({12, kWidth}, 11).to(at::kFloat); }

bool close(const at::Tensor& a, const at::Tensor& b) {
  return at::allclose(a.to(at::kDouble), b.to(at::kDouble), 1e-5, 1e-5);
}

}  // namespace

TEST_CASE("joint writes are the least change that gives every active feature its target") {
  const auto x = some_vectors();
  const auto layout = two_rows();
  const auto features = directions();
  const auto* tokens = layout.tokens.const_data_ptr<std::int64_t>();
  std::vector<at::Tensor> expected;
  std::int64_t reading = 0;
  for (const auto& row : layout.rows) {
    for (std::int64_t position = 0; position < row.length; ++position) {
      const auto i = row.begin + position;
      const auto a = [&](std::size_t f) { return activation(features[f], x[i]); };
      std::vector<std::pair<std::size_t, double>> targets;
      if (position >= 2) targets.emplace_back(0, 0.2 * a(0));
      if (tokens[i] == 'a' || tokens[i] == 'b') targets.emplace_back(1, 1.5);
      // A condition that reads a feature never holds at the first position.
      if (position >= 1 && a(0) > 0.3) {
        targets.emplace_back(2, a(2) + 2);
        ++reading;
      }
      expected.push_back(nearest(x[i], targets));
    }
  }
  REQUIRE(reading > 0);
  REQUIRE(reading < 10);
  const std::string sentences = R"(
    suppress p by 80% when position >= 2
    clamp q to 1.5 when token in ["a", "b"]
    steer r by 2 when p > 0.3)";
  CHECK(close(written(sentences, x), at::stack(expected)));
  CHECK(close(written(sentences, x, /*backwards=*/true), at::stack(expected)));
}

TEST_CASE("a cap holds its feature where it is not exceeded") {
  const auto x = some_vectors();
  const auto features = directions();
  std::vector<at::Tensor> expected;
  std::int64_t exceeded = 0;
  for (std::int64_t i = 0; i < x.size(0); ++i) {
    const double q = activation(features[1], x[i]);
    exceeded += q > 0.5;
    expected.push_back(nearest(x[i], {{0, 0.0}, {1, std::min(q, 0.5)}}));
  }
  REQUIRE(exceeded > 0);
  REQUIRE(exceeded < x.size(0));
  CHECK(close(written("suppress p\n cap q to 0.5", x), at::stack(expected)));
}

TEST_CASE("features along one line meet in the least-squares solution") {
  const auto x = some_vectors();
  std::vector<at::Tensor> expected;
  for (std::int64_t i = 0; i < x.size(0); ++i) expected.push_back(nearest(x[i], {{2, 1.0}, {3, 2.0}}));
  CHECK(close(written("clamp r to 1\n clamp s to 2", x), at::stack(expected)));
}

TEST_CASE("equal targets count once and a cap bounds what others ask for") {
  const auto x = some_vectors();
  CHECK(close(written("suppress p\n suppress p", x), written("suppress p", x)));
  CHECK(close(written("steer p by 2\n steer p by 2", x), written("steer p by 2", x)));
  CHECK(close(written("clamp p to 3\n cap p to 1", x), written("clamp p to 1", x)));
  CHECK(close(written("suppress p", written("suppress p", x)), written("suppress p", x)));
}

TEST_CASE("vectors that no sentence acts on stay as they are to the bit") {
  const auto x = some_vectors();
  const auto y = written("suppress p when token is \"x\"\n steer q by 1 when token is \"x\"", x);
  for (std::int64_t i = 0; i < x.size(0); ++i) {
    const bool acted = i == 7 || i == 9;
    CHECK((test::bytes_of(x[i]) != test::bytes_of(y[i])) == acted);
  }
  CHECK(test::bytes_of(written("suppress p by 0%", x)) == test::bytes_of(x));
}

}  // namespace proviso::runtime
