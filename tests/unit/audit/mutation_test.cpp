// How much an audit catches: faults planted into a tiny random model.

#include "audit/mutation.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>

#include "tests/unit/audit/audited.hpp"

namespace proviso::audit {

using test::audited;
using test::RulesOnModel;
using test::write_bytes;

namespace {

const std::string kSets = R"(
prompts p = ["The cat sat", "A dog ran!", "My hat fell"]
feature f = contrast(p, ["One two ten", "Six or seven?", "Nine then"]) at resid_post[1]
rule r { clamp f to 1 when f > -1000  fires on p }
)";

/// A text that the audits do not read, and one for second moments.
struct Planting {
  explicit Planting(RulesOnModel& on) : rules(on) {
    write_bytes(on.model.folder / "unseen.txt", "Some words that no rule file holds, and then some more of them.\n");
    session.held_out_path = session.corpus_path = on.model.folder / "unseen.txt";
    options.faults.kinds = {runtime::FaultKind::noise, runtime::FaultKind::direction};
    audit.as_of = {2027, 1, 1};
    audit.selection.edits = false;
  }

  PlantedFaults run() {
    Report clean = audited(rules);
    auto planted = plant_faults(*rules.model.transformer, rules.bound, rules.sources, audit, session, options, clean);
    clean.planted_faults = planted;
    clean.model.sha256 = std::string(64, '0');  // the program's part
    CHECK(tests::schema_violations(to_yaml(clean, {})) == "");
    CHECK(to_yaml(from_yaml(to_yaml(clean, {}), "report"), {}) == to_yaml(clean, {}));
    return planted;
  }

  RulesOnModel& rules;
  runtime::SessionOptions session;
  MutationOptions options;
  AuditOptions audit;
};

std::string outcomes(const PlantedFaults& planted, const std::string& strength) {
  std::string all;
  for (const FaultResult& fault : planted.faults) {
    if (fault.strength == strength) all += (all.empty() ? "" : " ") + fault.outcome;
  }
  return all;
}

}  // namespace

TEST_CASE("mutate: what a tight check watches is caught, controls pass, and the weights stay to the byte") {
  // The perplexity of a random model is what it is: the bounds are a hair above and below.
  RulesOnModel measured(kSets + "check c { expect perplexity(p) <= 1000000 }\n");
  const double value = audited(measured).checks[0].expectations[0].estimate.value;
  const auto within = [&](double share) {
    return "check above { expect perplexity(p) <= " + std::to_string(value * (1 + share)) + " }\n" +
           "check below { expect perplexity(p) >= " + std::to_string(value * (1 - share)) + " }\n";
  };
  RulesOnModel rules(kSets + within(1e-3) + "check wrong { expect perplexity(p) <= 1.01 }\n" +
                     "check tried { status experimental  expect perplexity(p) <= 1000000 }\n");
  Planting planting(rules);
  const auto before = test::weights_of(*rules.model.transformer);
  const PlantedFaults planted = planting.run();
  CHECK(test::weights_of(*rules.model.transformer) == before);
  // What fails without a fault can catch none, nor what gates nothing.
  CHECK(planted.watching == std::vector<std::string>{"check/above", "check/below", "example/r fires on"});
  REQUIRE(planted.controls.size() == 2);
  for (const auto& control : planted.controls) CHECK(control.alarms.empty());
  CHECK(outcomes(planted, "100%") == "caught caught");
  const auto noise = std::find_if(planted.kinds.begin(), planted.kinds.end(),
                                  [](const FaultTally& tally) { return tally.strength == "100%"; });
  REQUIRE(noise != planted.kinds.end());
  CHECK(noise->caught == 2);
  CHECK(noise->share.value == 1);
  CHECK(noise->share.interval.has_value());
}

TEST_CASE("mutate: a check that anything passes misses what is planted") {
  RulesOnModel rules(kSets + "check loose { expect perplexity(p) <= 1000000 }\n");
  Planting planting(rules);
  planting.options.controls = 0;
  planting.options.faults.kinds = {runtime::FaultKind::noise};
  const PlantedFaults planted = planting.run();
  CHECK(outcomes(planted, "100%") == "missed missed");
  CHECK(planted.all.share.value == 0);
}

TEST_CASE("mutate: what is waived stops no gate, so it finds nothing") {
  RulesOnModel measured(kSets + "check c { expect perplexity(p) <= 1000000 }\n");
  const double value = audited(measured).checks[0].expectations[0].estimate.value;
  RulesOnModel rules(kSets + "check above { expect perplexity(p) <= " + std::to_string(value * 1.001) + " }\n" +
                     "check below { expect perplexity(p) >= " + std::to_string(value * 0.999) + " }\n" +
                     "waive above until 2027-12-31 by \"me\" because \"known\"\n" +
                     "waive below until 2027-12-31 by \"me\" because \"known\"\n");
  Planting planting(rules);
  planting.options.faults.kinds = {runtime::FaultKind::noise};
  CHECK(outcomes(planting.run(), "100%") == "missed missed");
}

TEST_CASE("mutate: where nothing passes nothing is planted") {
  RulesOnModel rules("prompts p = [\"The cat sat\"]\ncheck wrong { expect perplexity(p) <= 1.01 }\n");
  const PlantedFaults planted = Planting(rules).run();
  CHECK(planted.watching.empty());
  CHECK(planted.faults.empty());
  CHECK(planted.controls.empty());
}

}  // namespace proviso::audit
