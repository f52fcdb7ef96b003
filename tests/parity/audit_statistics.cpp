// Against SciPy; see statistics/generate.py.

#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "audit/statistics.hpp"

namespace proviso::audit {
namespace {

using nlohmann::json;

const json& reference() {
  static const json loaded = [] {
    std::ifstream file(PROVISO_SOURCE_DIR "/tests/parity/statistics/statistics.json");
    return json::parse(file);
  }();
  return loaded;
}

std::vector<Sample> singles(const std::vector<double>& values) {
  std::vector<Sample> samples;
  for (const double value : values) samples.push_back({value, static_cast<std::int64_t>(samples.size())});
  return samples;
}

std::vector<Sample> grouped(const json& groups) {
  std::vector<Sample> samples;
  for (std::size_t cluster = 0; cluster < groups.size(); ++cluster)
    for (const double value : groups[cluster]) samples.push_back({value, static_cast<std::int64_t>(cluster)});
  return samples;
}

void check_interval(const Estimate& estimate, const json& row) {
  INFO(row.dump());
  REQUIRE(estimate.interval);
  if (row.contains("value")) CHECK(estimate.value == Approx(row["value"].get<double>()).margin(1e-12));
  CHECK(estimate.interval->low == Approx(row["interval"][0].get<double>()).epsilon(1e-9).margin(1e-12));
  CHECK(estimate.interval->high == Approx(row["interval"][1].get<double>()).epsilon(1e-9).margin(1e-12));
}

}  // namespace

TEST_CASE("Wilson's interval is SciPy's") {
  for (const json& row : reference()["wilson"]) {
    std::vector<double> values(row["n"].get<std::size_t>(), 0.0);
    std::fill_n(values.begin(), row["successes"].get<std::size_t>(), 1.0);
    check_interval(wilson(singles(values), row["confidence"]), row);
  }
}

TEST_CASE("Wilson's interval over clusters is the one written out in NumPy") {
  for (const json& row : reference()["wilson_clustered"])
    check_interval(wilson(grouped(row["groups"]), row["confidence"]), row);
}

TEST_CASE("Over clusters of one size the t interval is SciPy's for the clusters' means") {
  for (const json& row : reference()["cluster_t"]) {
    check_interval(cluster_t_mean(grouped(row["groups"]), row["confidence"]), row);
    // The bootstrap over clusters may widen it, and does not narrow it.
    const auto widened = bootstrap_t_mean(grouped(row["groups"]), row["confidence"], 0).interval;
    REQUIRE(widened);
    CHECK(widened->low <= row["interval"][0].get<double>() + 1e-9);
    CHECK(widened->high >= row["interval"][1].get<double>() - 1e-9);
  }
}

TEST_CASE("McNemar's p is SciPy's, the paired interval Newcombe's") {
  for (const json& row : reference()["mcnemar"]) {
    std::vector<double> before, after;
    const auto add = [&](const char* cell, double was, double is) {
      before.insert(before.end(), row[cell].get<std::size_t>(), was);
      after.insert(after.end(), row[cell].get<std::size_t>(), is);
    };
    add("both", 1, 1);
    add("lost", 1, 0);
    add("won", 0, 1);
    add("neither", 0, 0);
    const Estimate result = mcnemar(singles(before), singles(after), row["confidence"]);
    check_interval(result, row);
    CHECK(*result.p == Approx(row["p"].get<double>()).epsilon(1e-12));
  }
}

TEST_CASE("The area under the curve is SciPy's, its interval DeLong's") {
  for (const json& row : reference()["auroc"])
    check_interval(delong_auroc(singles(row["positive"]), singles(row["negative"]), row["confidence"]), row);
}

TEST_CASE("The t-test of one value against a sample is SciPy's") {
  for (const json& row : reference()["t_test"]) {
    const std::vector<double> sample = row["sample"];
    INFO(row.dump());
    CHECK(t_test_against(row["value"], sample) == Approx(row["p"].get<double>()).epsilon(1e-9));
  }
}

}  // namespace proviso::audit
