// Reports of parts, joined.

#include "audit/report_merge.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "audit/report_tree.hpp"
#include "audit/verdict.hpp"
#include "runtime/formats/tensor_file.hpp"
#include "tests/support/reports.hpp"
#include "tests/support/schema.hpp"

namespace proviso::audit {
namespace {

using Catch::Contains;
using tests::report_with_everything;

ReportFile file(std::string path, Report report) { return {std::move(path), std::string(64, '9'), std::move(report)}; }

/// `report_with_everything` in two parts that share a check.
std::pair<ReportFile, ReportFile> halves() {
  Report first = report_with_everything(), second = first;
  first.checks = {first.checks[0], first.checks[1]};
  first.edits.clear();
  first.run.only = "first";
  second.checks.erase(second.checks.begin());
  second.examples.clear();
  second.rules.pop_back();
  second.run.only = "second";
  second.run.device = "cuda:0";
  second.run.threads = 8;
  return {file("a.yaml", first), file("b.yaml", second)};
}

void check_refused(const Report& other, const std::string& why) {
  INFO(why);
  const std::vector<ReportFile> parts = {file("a.yaml", report_with_everything()), file("b.yaml", other)};
  CHECK_THROWS_AS(merged(parts), model::InputError);
  CHECK_THROWS_WITH(merged(parts), Contains("a.yaml and b.yaml") && Contains(why));
}

Report effects(const std::string& name, double p) {
  Report report = report_with_everything();
  CheckResult check = report.checks[0];
  check.name = name;
  check.expectations.resize(1);
  check.expectations[0].status = Status::pass;
  check.expectations[0].control->p = check.expectations[0].control->p_holm = p;
  conclude(check);
  report.checks = {check};
  report.edits.clear();
  report.examples.clear();
  return report;
}

}  // namespace

TEST_CASE("Parts joined are the whole: everything once, counts and verdict made anew") {
  const auto [first, second] = halves();
  const Report whole = merged({first, second}), expected = report_with_everything();
  CHECK(whole.verdict() == Status::fail);
  CHECK(summarise(whole) == summarise(expected));
  Tree got = tree_of(whole, {}), wanted = tree_of(expected, {});
  for (Tree* tree : {&got, &wanted}) tree->erase("run");
  wanted["checks"][0]["expectations"][0]["control"]["p_holm"] = 0.00003;  // one control alone needs no correction
  wanted.erase("coverage");                                               // counts of parts cannot be joined
  CHECK(got.dump(1) == wanted.dump(1));

  CHECK(whole.run.sequences == 2 * expected.run.sequences);
  CHECK(whole.run.only == "first, second");
  CHECK(whole.run.device == "cpu, cuda:0");
  CHECK(whole.run.threads == 8);
  REQUIRE(whole.run.merged.size() == 2);
  CHECK(whole.run.merged[1].file == "b.yaml");
  for (const bool reproducible : {false, true})
    CHECK_THAT(tests::schema_violations(to_yaml(whole, {reproducible})), Catch::Equals(""));
  CHECK(to_yaml(from_yaml(to_yaml(whole, {}), "whole.yaml"), {}) == to_yaml(whole, {}));
}

TEST_CASE("Parts that contradict each other are refused, both named") {
  Report other = report_with_everything();
  other.checks[3].expectations[0].estimate.value = 0.01;
  check_refused(other, "disagree on check stays_fluent");
  other = report_with_everything();
  other.edits[0].costs[0].second = 1;
  check_refused(other, "disagree on edit move_eiffel");
  other = report_with_everything();
  other.examples[0].fired = 3;
  check_refused(other, "disagree on example keep_calm fires on");
  other = report_with_everything();
  other.features[0].b += 0.1;
  check_refused(other, "disagree on feature anger");
  other = report_with_everything();
  other.model.sha256 = std::string(64, '7');
  check_refused(other, "not of one model");
  other = report_with_everything();
  other.run.date = "2026-11-24";
  check_refused(other, "not of one date: 2026-11-23 and 2026-11-24");
  other = report_with_everything();
  other.run.seed = 1;
  check_refused(other, "not of one seed");
  other = report_with_everything();
  other.version = "0.2.0";
  check_refused(other, "not of one program version");
  other = report_with_everything();
  other.rules[1].second = std::string(64, '7');
  check_refused(other, "read different versions of more rules.proviso");
}

TEST_CASE("Holm's correction is over the controls of all parts") {
  const Report alone = merged({file("a.yaml", effects("a", 0.04))});
  CHECK(alone.checks[0].status == Status::pass);
  const Report both = merged({file("a.yaml", effects("a", 0.04)), file("b.yaml", effects("b", 0.03))});
  CHECK(both.checks[0].expectations[0].control->p_holm == Approx(0.06));
  CHECK(both.checks[1].expectations[0].control->p_holm == Approx(0.06));
  CHECK(both.checks[0].status == Status::inconclusive);
  CHECK_THAT(both.checks[0].expectations[0].reason, Contains("not beyond control: p = 0.06"));
  CHECK(both.verdict() == Status::inconclusive);
  // The same effect in two parts is one effect, however it was corrected there.
  Report corrected = both;
  corrected.checks.pop_back();
  CHECK(merged({file("ab.yaml", corrected), file("a.yaml", effects("a", 0.04))}).checks[0].status == Status::pass);
}

}  // namespace proviso::audit
