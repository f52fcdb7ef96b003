#pragma once

// The verdict object. The YAML, every rendering, the text on the terminal and the exit code come from
// it and from nothing else. Field names are the report's keys (`report` version 1); see report.schema.json.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "audit/statistics.hpp"
#include "dsl/rule_set.hpp"

namespace proviso::audit {

/// From best to worst, but for `waived`, which stands for the status that its waiver covers.
enum class Status { pass, waived, inconclusive, vacuous, fail, error };
std::string_view status_name(Status status);
/// Of a check: error, fail, vacuous, inconclusive, pass.
Status worst(Status a, Status b);

/// The change of an effect at other positions of the same prompts.
struct PositionControl {
  std::int64_t n = 0;
  double value = 0, spread = 0;  ///< mean and standard deviation
};

struct Control {
  std::string kind = "random directions";
  std::int64_t n = 0;
  double value = 0;                            ///< mean over the controls
  double spread = 0;                           ///< standard deviation
  std::int64_t rank = 0;                       ///< of the effect's size among them, from 1
  double p = 1;                                ///< t-test against their spread
  double p_holm = 1;                           ///< corrected over the file
  std::optional<double> wrong_sign{};          ///< of the change turned round
  std::optional<PositionControl> positions{};  ///< shown beside; p is of the random directions
  std::vector<double> values{};                ///< every one, in order
};

/// Every prompt's number, so that reports can be compared prompt by prompt. Of an effect its changes.
struct PromptNumbers {
  /// "share": yes or no, and shares of a prompt's texts; "mean"; "nll": total negative log-likelihoods of texts (of
  /// `perplexity_rise` their rise), weighted by tokens.
  std::string kind;
  std::string prompts;                 ///< SHA-256 of the prompts, in order; "" where evidence is left out
  std::vector<double> values, before;  ///< `before`: without what is measured `under`, where the prompts are the same
  std::vector<double> weights;         ///< none where all are 1
  std::vector<std::int64_t> clusters;  ///< none where no two prompts share one
};

struct Evidence {
  std::string prompt;  ///< or its SHA-256, or absent, as `--evidence` says
  std::optional<double> before;
  double after = 0;
  std::string output;  ///< generated text, where there is one
};

/// The rest of the expectation's result is that of the combination that speaks most against it.
struct AcrossResult {
  std::int64_t combinations = 0;
  double held = 0;                                       ///< share
  std::vector<std::pair<std::string, double>> values;    ///< by combination: "seed 1, as written"
  std::vector<std::pair<std::string, Status>> statuses;  ///< the same
};

/// What an attack found that searches on the model, in the state that the check measures.
struct SearchResult {
  std::string attack;  ///< "suffix_search(steps: 20)"
  std::string toward;  ///< what it made likely; "" where it made expected continuations unlikely
  std::int64_t prompts = 0;
  double nll_before = 0, nll_after = 0;  ///< −ln of their probability, nats, mean over the prompts
  std::vector<Evidence> evidence;        ///< the five where that moved most, with the prompts that it made
};

/// A feature that the rules of a check read, without its attacks and with them: mean over the prompts.
struct FeatureMove {
  std::string feature, site;
  double before = 0, after = 0;
};

/// Prompts on which rules fire without a check's attacks and not with them, though the behaviour is there.
struct Evaded {
  std::int64_t prompts = 0;
  std::int64_t of = 0;  ///< on which they fire without the attacks
};

struct ExpectationResult {
  std::string text;
  Status status = Status::error;
  std::string reason;  ///< why it is not a plain pass or fail; "" otherwise
  Estimate estimate;
  std::optional<double> asked_confidence;
  std::optional<double> baseline;
  std::vector<std::pair<std::string, std::int64_t>> attacked;  ///< how many prompts each attack in force changed
  std::vector<SearchResult> searched;
  std::vector<FeatureMove> moved;
  std::optional<Evaded>
      evaded;  ///< where rules with conditions are measured under attack, and a prompt's value is yes or no
  /// Of a circuit under attack: pairs left out, whose prompts became unequally long, or the same.
  std::optional<std::int64_t> pairs_left_out;
  std::optional<Control> control;
  std::optional<AcrossResult> across;
  std::optional<PromptNumbers> sample{};  ///< where the number is a mean or a ratio of what single prompts give
  std::vector<Evidence> evidence;         ///< the five worst, then prompt order
};

struct WaiverResult {
  dsl::Date until;
  std::string by, because;
  bool expired = false;
};

struct CheckResult {
  std::string name;
  dsl::Annotations annotations;
  Status status = Status::error;
  Status status_before_waiver = Status::error;
  dsl::CheckSeverity severity = dsl::CheckSeverity::major;
  std::string where;               ///< "capitals.proviso:47"
  std::vector<std::string> under;  ///< "rule keep_calm", "attack typos(rate: 5%)"
  std::vector<ExpectationResult> expectations;
  std::optional<WaiverResult> waiver;
};

struct RuleActivity {
  std::string rule, sentence, feature, site;
  std::string form;                                            ///< "hook" or "weight edit"
  std::int64_t positions = 0, active = 0;                      ///< position 0 left out
  double mean = 0, max = 0;                                    ///< of the activation, before the intervention
  double relative_change = 0;                                  ///< mean ‖Δx‖/‖x‖ where it acted
  double relative_change_at_0 = 0;                             ///< at the first position (unconditional sentences)
  std::vector<std::pair<std::string, std::int64_t>> branches;  ///< where each alternative of its `or` held
};

/// Where a comparison came farthest over its threshold on one prompt.
struct PromptMargin {
  std::string prompt;
  double activation = 0, margin = 0;
  std::int64_t position = 0;
};

/// A comparison in the conditions of a rule, on the prompts of an example: that on which it comes least far over its
/// threshold where the rule is to fire, and farthest where it is to stay silent.
struct ConditionResult {
  std::string condition;  ///< "anger > 0.7", "last anger > quantile(99%, plain)"
  std::int64_t held = 0;  ///< prompts that it held on at some position
  double activation = 0;  ///< of its feature, where it came farthest on that prompt
  double threshold = 0;   ///< what it is compared with there
  double margin = 0;      ///< how far it is over the threshold: it held where this is positive
  std::int64_t position = 0;
  std::string prompt;
  std::vector<PromptMargin> prompts{};  ///< every one, in order (`AuditOptions::every_margin`)
};

struct ExampleResult {
  std::string rule;
  std::string kind;  ///< "fires on" or "silent on"
  std::string where;
  Status status = Status::error;
  std::int64_t prompts = 0, fired = 0;
  std::vector<Evidence> evidence;
  std::vector<ConditionResult> conditions;
  dsl::Annotations annotations;  ///< the rule's
};

/// What examples cover of the rules that have conditions; `proviso test` counts it.
struct Coverage {
  std::int64_t rules = 0, rules_covered = 0;        ///< with examples of both kinds
  std::int64_t branches = 0, branches_covered = 0;  ///< sentences, alternatives and comparisons that held in an example
  std::vector<std::string> uncovered;               ///< in words
};

struct TensorChange {
  std::string tensor, sha256_before, sha256_after;
  std::vector<std::int64_t> shape;
  std::int64_t rank = 0;
  double norm = 0, relative_norm = 0;  ///< Frobenius, and over the tensor's own
};

struct CertificatePart {
  std::vector<std::pair<std::string, double>> algebra;    ///< what must hold at the site, in float64
  std::vector<std::pair<std::string, double>> predicted;  ///< first order
  std::vector<std::pair<std::string, double>> measured;
};

struct EditResult {
  std::string name;
  dsl::Annotations annotations;
  std::string where;
  Status status = Status::error;
  std::string method;
  std::vector<std::pair<std::string, std::string>> parameters;  ///< every one that was used
  std::vector<TensorChange> changes;
  std::vector<CertificatePart> parts;                 ///< one a fact; of `remove`, one for all
  std::vector<std::pair<std::string, double>> costs;  ///< on text the edit never saw
  std::vector<ExpectationResult> expectations;
};

/// A site that `select best` tried, and how well the feature tells held-out prompts apart there.
struct SiteScore {
  std::string site;
  std::optional<double> auroc, separation;
  std::string left_out;  ///< why there is no score
};
struct SelectResult {
  std::string by;  ///< "cross-validation, 5 folds of 60 prompts"
  std::vector<SiteScore> candidates;
};

struct FeatureResult {
  std::string name, site, constructor;
  double b = 0, c = 1;
  std::int64_t built_on = 0;                             ///< prompts
  std::vector<std::pair<std::string, double>> measures;  ///< sink share removed, …
  std::vector<std::string> spanned_by{};                 ///< features, of a subspace
  std::optional<SelectResult> select{};                  ///< how its site was chosen
};

struct CircuitEdgeResult {
  std::string from, to;  ///< "a3.h5" to "m4", "a7.h1<q>", "logits"
  /// What m changes by where this edge alone is corrupted, by the method's estimate; none where nodes alone were
  /// patched.
  std::optional<double> score;
  std::optional<double> drop;       ///< |Δm| of the circuit without it, where minimality was asked for
  std::optional<double> inclusion;  ///< share of the draws of pairs that hold it, where stability was asked for
};

struct CircuitNodeResult {
  std::string name;  ///< "a3.h5", "m4"
  double score = 0;  ///< what m changes by where all that it writes is corrupted, by the method's estimate
  std::optional<double> drop, inclusion;  ///< as an edge's
};

/// Whether a circuit needs its parts.
struct CircuitMinimalityResult {
  double needed = 0;     ///< the share of the parts whose drop is above the threshold
  double threshold = 0;  ///< what 5 % of the parts from outside change m by, and more, where they are added
  std::int64_t compared = 0;
};

/// What is found again where the circuit is looked for otherwise: |both| / |either|.
struct CircuitStabilityResult {
  std::int64_t draws = 0;
  double overlap = 0;
  Interval middle;                                        ///< the middle 95 % of the draws
  std::vector<std::pair<std::string, double>> ablations;  ///< with the mean, or nothing, in place of corrupt values
  std::vector<double> lines;                              ///< on each `clean … corrupt …` alone
};

/// The parts that another circuit shares.
struct CircuitOverlapResult {
  std::string circuit, parts;  ///< "nodes" or "edges"
  std::int64_t both = 0, either = 0;
  double share = 0, by_chance = 0;
};

/// What a circuit carries of the pairs that it was found on, where it is measured on others.
struct CircuitFoundOn {
  std::int64_t pairs = 0;
  Estimate faithfulness, completeness;
};

struct CircuitCurvePoint {
  double share = 0;                   ///< of the model's edges, or of its nodes, the strongest
  std::optional<std::int64_t> edges;  ///< before those are left out that are on no way to the logits
  std::optional<std::int64_t> nodes;  ///< of a circuit of nodes, in place of edges
  double faithfulness = 0;
};

/// A circuit as found on the model as loaded. m are means over the pairs.
struct CircuitResult {
  std::string name;
  dsl::Annotations annotations;
  std::string where;
  std::string measure;  ///< m: "logit_diff(\" Paris\", \" Rome\")"
  std::string method;
  std::vector<std::pair<std::string, std::string>> parameters;  ///< every one that was used
  std::string selection;
  std::string ablation = "resample: edges outside carry the corrupt prompt's activations";
  std::int64_t pairs = 0, model_edges = 0, pruned = 0;
  double m_clean = 0, m_corrupt = 0, m_circuit = 0, m_without = 0;
  Estimate faithfulness;  ///< (m_circuit − m_corrupt) / (m_clean − m_corrupt)
  Estimate completeness;  ///< (m_without − m_corrupt) / (m_clean − m_corrupt): what is left
  std::vector<CircuitCurvePoint> curve;
  double cpr = 0, cmd = 0;               ///< areas of f and of |1 − f| over the curve
  std::vector<CircuitEdgeResult> edges;  ///< the strongest first
  std::vector<CircuitNodeResult> nodes;  ///< the strongest first; none where edges are kept
  std::optional<std::int64_t> model_nodes;
  std::optional<CircuitFoundOn> found_on;
  std::optional<CircuitMinimalityResult> minimality;
  std::optional<CircuitStabilityResult> stability;
  std::vector<CircuitOverlapResult> overlaps;  ///< with the other circuits of the report
  double seconds = 0;
};

/// What became of a fault that `mutate` put into the model.
struct FaultResult {
  std::string kind;      ///< "fact", "trigger", "direction", "head", "noise"
  std::string strength;  ///< "removed", "30%"; "" of a kind that has one
  std::string what;      ///< "France -> \" Rome\""
  /// "caught": something that passes on the model as loaded fails or is an error; "doubted": it is inconclusive or
  /// vacuous; "missed"; "not planted": the fault could not be made, or moved the model too little to be one.
  std::string outcome;
  std::string reason;           ///< why it was not planted, or how the audit stopped
  std::optional<double> kl;     ///< KL(as loaded ‖ with the fault) on text that the audit does not read, nats a token
  std::vector<std::string> by;  ///< "check/knows_capitals": what no longer passes
};

struct FaultTally {
  std::string kind, strength;
  std::int64_t planted = 0, caught = 0, doubted = 0;
  Estimate share{};  ///< that does not get past the audit: caught or doubted, of those planted
};

/// The model with changes that mean nothing, under another seed: whatever no longer passes is a false alarm.
struct MutationControl {
  std::uint64_t seed = 0;
  double kl = 0;
  std::vector<std::string> alarms;  ///< "check/knows_capitals"
};

/// How much an audit catches (`proviso mutate`).
struct PlantedFaults {
  std::vector<std::string> watching;  ///< what passes on the model as loaded, and so can catch something
  std::vector<FaultTally> kinds;
  FaultTally all;
  std::vector<FaultResult> faults;
  std::vector<MutationControl> controls;
  std::vector<std::pair<std::string, std::string>> left_out;  ///< kinds of which nothing could be planted, and why
};

/// What a prompt set, a feature or a rule says of itself; checks, edits and examples carry their own.
struct Annotated {
  std::string declaration;  ///< "feature anger"
  std::string where;
  dsl::Annotations annotations;
};

/// What a run was made on; numbers of other machines may differ in their last digits.
struct MachineFacts {
  std::string processor, system;  ///< "Intel(R) Xeon(R) …", "Linux 6.1.0 x86_64"
  std::int64_t cores = 0;
  bool operator==(const MachineFacts&) const = default;
};

/// A report that went into a merged one.
struct MergedPart {
  std::string file, sha256;  ///< as named, and of its bytes
  std::string only, device;
  std::int64_t threads = 1;
  double seconds = 0;
};

struct RunFacts {
  std::uint64_t seed = 0;
  std::string device = "cpu", date;
  std::string only;  ///< `--only`: the part of the rule files that was run; "" is all
  std::int64_t threads = 1;
  std::int64_t sequences = 0, tokens = 0, tokens_saved = 0;
  double seconds = 0;
  std::optional<MachineFacts> machine{};  ///< null of a merged report: its parts may come from several
  std::vector<MergedPart> merged{};       ///< empty where one run made the report
};

struct ModelFacts {
  std::string name, family, dtype, sha256;
  std::int64_t parameters = 0;
};

struct Report {
  std::string version;
  std::string program_sha256, libtorch;  ///< of the program's file; the version that it ran on
  ModelFacts model;
  std::vector<std::pair<std::string, std::string>> rules;  ///< file as named, SHA-256
  std::vector<std::pair<std::string, std::string>> data;   ///< files that the rules read; as named, SHA-256
  RunFacts run;
  std::vector<FeatureResult> features;
  std::vector<CheckResult> checks;
  std::vector<RuleActivity> rule_activity;
  std::vector<EditResult> edits;
  std::vector<CircuitResult> circuits;
  std::vector<ExampleResult> examples;
  std::optional<Coverage> coverage;  ///< of the examples, where they alone were run
  std::vector<Annotated> annotated;  ///< only declarations that say something
  std::optional<PlantedFaults> planted_faults;

  /// pass | fail | inconclusive | error: the worst status (vacuous counts as inconclusive, waived as
  /// pass; what is `experimental` does not count).
  Status verdict() const;
  /// The highest severity among what does not pass.
  std::optional<dsl::CheckSeverity> worst_severity() const;
};

enum class EvidenceForm { full, hash, none };

struct RenderOptions {
  bool reproducible = false;  ///< leaves out what two equal runs may differ in (`run.seconds`)
  EvidenceForm evidence = EvidenceForm::full;
};

/// The report as `evidence` allows it to leave the machine: prompts and outputs whole, as "sha256:…", or left out.
/// Whatever shows a report to anyone shows this.
Report redacted(Report report, EvidenceForm evidence);

std::string to_yaml(const Report& report, const RenderOptions& options);
/// The same tree as the YAML, indented JSON.
std::string to_json(const Report& report, const RenderOptions& options);
/// Reads a report back; throws `model::InputError` naming the key that is wrong. JSON is YAML and is read, too.
Report from_yaml(const std::string& text, const std::string& path);
/// The JSON Schema that every report satisfies: report.schema.json, as built into the program.
std::string_view report_schema();
/// For CI systems: a JUnit document, a test case for each check, edit and example. What is inconclusive or vacuous is a
/// failure there, what is waived or experimental is skipped. It satisfies Ant's schema and that of Jenkins' xUnit
/// plugin; `locations` adds the attributes `file` and `line`, which other readers link by, and neither schema knows.
std::string to_junit(const Report& report, bool locations = false);
/// For code scanning: SARIF 2.1.0, a result for each check, edit and example at its place in the rule file. What is
/// waived is suppressed, what is experimental is informational. `problems_only` leaves out what passes, is waived or is
/// experimental, which readers that know neither kinds nor suppressions would show as alerts.
std::string to_sarif(const Report& report, bool problems_only = false);
/// For a browser: one HTML file that needs nothing else, no script either. Redact the report first.
std::string to_html(const Report& report);
/// For a pull request or a job's summary: GitHub's Markdown. Redact the report first.
std::string to_markdown(const Report& report);
/// A draft of the technical documentation of the EU AI Act's Annex IV in Markdown: what this audit can fill in, and
/// what the provider has to write.
std::string to_annex_iv(const Report& report);
/// For supply chains: an in-toto statement (v1, predicate Test Result 0.1) on the model and on the report itself, the
/// file at `path` whose bytes have this hash. It is not signed.
std::string to_attestation(const Report& report, const std::string& path, const std::string& sha256);
/// An expectation in one line: "accuracy(capitals) >= 90%: 71.88% [54.63%, 84.44%], 32 prompts; …".
std::string expectation_line(const ExpectationResult& expectation);
/// For people: width at most `columns`, colour by ANSI codes where `colour`. Redact the report first.
std::string to_text(const Report& report, std::size_t columns, bool colour);

}  // namespace proviso::audit
