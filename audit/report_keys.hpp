#pragma once

// The keys of a report, struct by struct and in order: what is written is what is read. `A` is the writer or the reader
// of report_tree.cpp, and has key(), if_any() (left out where empty), group() and require().

#include <cstdint>
#include <string>
#include <vector>

#include "audit/report.hpp"
#include "audit/verdict.hpp"

namespace proviso::audit {

inline constexpr std::int64_t kReportVersion = 1;

struct NamedFile {
  std::string file, sha256;
};

template <class A>
void describe(A& a, ModelFacts& m) {
  a.key("name", m.name)
      .key("family", m.family)
      .key("parameters", m.parameters)
      .key("dtype", m.dtype)
      .key("sha256", m.sha256);
}

template <class A>
void describe(A& a, NamedFile& f) {
  a.key("file", f.file).key("sha256", f.sha256);
}

/// Files with their hashes, which a report holds as pairs.
template <class Key>
void describe_files(std::vector<std::pair<std::string, std::string>>& files, Key key) {
  std::vector<NamedFile> named;
  for (const auto& [file, sha256] : files) named.push_back({file, sha256});
  key(named);
  files.clear();
  for (NamedFile& one : named) files.emplace_back(std::move(one.file), std::move(one.sha256));
}

template <class A>
void describe(A& a, MachineFacts& m) {
  a.key("processor", m.processor).key("cores", m.cores).key("system", m.system);
}

template <class A>
void describe(A& a, MergedPart& p) {
  a.key("file", p.file)
      .key("sha256", p.sha256)
      .if_any("only", p.only)
      .key("device", p.device)
      .key("threads", p.threads)
      .key_unless_reproducible("seconds", p.seconds);
}

template <class A>
void describe(A& a, RunFacts& r) {
  a.key("seed", r.seed)
      .key("device", r.device)
      .key("threads", r.threads)
      .key("date", r.date)
      .if_any("only", r.only)
      .key("sequences", r.sequences)
      .key("tokens", r.tokens)
      .key("tokens_saved", r.tokens_saved)
      .key_unless_reproducible("seconds", r.seconds)
      .if_any_unless_reproducible("machine", r.machine)
      .if_any("merged", r.merged);
}

template <class A>
void describe(A& a, PositionControl& p) {
  a.key("n", p.n).key("value", p.value).key("spread", p.spread);
}

template <class A>
void describe(A& a, Control& c) {
  a.key("kind", c.kind)
      .key("n", c.n)
      .key("value", c.value)
      .key("spread", c.spread)
      .key("rank", c.rank)
      .key("p", c.p)
      .key("p_holm", c.p_holm)
      .if_any("wrong_sign", c.wrong_sign)
      .if_any("positions", c.positions)
      .if_any("values", c.values);
}

template <class A>
void describe(A& a, PromptNumbers& n) {
  a.key("kind", n.kind)
      .if_any("prompts", n.prompts)
      .key("values", n.values)
      .if_any("before", n.before)
      .if_any("weights", n.weights)
      .if_any("clusters", n.clusters);
}

template <class A>
void describe(A& a, Evidence& e) {
  a.if_any("prompt", e.prompt).if_any("before", e.before).key("after", e.after).if_any("output", e.output);
}

template <class A>
void describe(A& a, AcrossResult& r) {
  a.key("combinations", r.combinations).key("held", r.held).key("values", r.values).if_any("statuses", r.statuses);
}

template <class A>
void describe(A& a, SearchResult& s) {
  a.key("attack", s.attack)
      .if_any("toward", s.toward)
      .key("prompts", s.prompts)
      .key("nll_before", s.nll_before)
      .key("nll_after", s.nll_after)
      .if_any("evidence", s.evidence);
}

template <class A>
void describe(A& a, FeatureMove& m) {
  a.key("feature", m.feature).key("site", m.site).key("before", m.before).key("after", m.after);
}

template <class A>
void describe(A& a, Evaded& e) {
  a.key("prompts", e.prompts).key("of", e.of);
}

template <class A>
void describe(A& a, ExpectationResult& e) {
  a.key("text", e.text)
      .key("status", e.status)
      .if_any("reason", e.reason)
      .key("value", e.estimate.value)
      .key("interval", e.estimate.interval)
      .key("confidence", e.estimate.confidence)
      .key("n", e.estimate.n)
      .if_any("why_no_interval", e.estimate.why_no_interval)
      .if_any("p", e.estimate.p)
      .if_any("asked_confidence", e.asked_confidence)
      .if_any("baseline", e.baseline)
      .if_any("attacked", e.attacked)
      .if_any("searched", e.searched)
      .if_any("moved", e.moved)
      .if_any("evaded", e.evaded)
      .if_any("pairs_left_out", e.pairs_left_out)
      .if_any("control", e.control)
      .if_any("across", e.across)
      .if_any("sample", e.sample)
      .if_any("evidence", e.evidence);
}

template <class A>
void describe(A& a, WaiverResult& w) {
  a.key("until", w.until).key("by", w.by).key("because", w.because).key("expired", w.expired);
}

/// All but the tags, whose place differs.
template <class A>
A& describe_annotations(A& a, dsl::Annotations& n) {
  return a.if_any("title", n.title)
      .if_any("description", n.description)
      .if_any("meta", n.meta)
      .if_any("stability", n.status);
}

template <class A>
void describe(A& a, CheckResult& c) {
  a.key("name", c.name)
      .key("status", c.status)
      .key("severity", c.severity)
      .key("tags", c.annotations.tags)
      .key("where", c.where)
      .if_any("under", c.under);
  describe_annotations(a, c.annotations).if_any("waiver", c.waiver).key("expectations", c.expectations);
}

template <class A>
void describe(A& a, RuleActivity& r) {
  a.key("rule", r.rule)
      .key("sentence", r.sentence)
      .key("feature", r.feature)
      .key("site", r.site)
      .key("form", r.form)
      .key("positions", r.positions)
      .key("active", r.active)
      .key("mean", r.mean)
      .key("max", r.max)
      .key("relative_change", r.relative_change)
      .key("relative_change_at_0", r.relative_change_at_0)
      .if_any("branches", r.branches);
}

template <class A>
void describe(A& a, TensorChange& t) {
  a.key("tensor", t.tensor)
      .key("shape", t.shape)
      .key("rank", t.rank)
      .key("norm", t.norm)
      .key("relative_norm", t.relative_norm)
      .key("sha256_before", t.sha256_before)
      .key("sha256_after", t.sha256_after);
}

template <class A>
void describe(A& a, CertificatePart& p) {
  a.key("algebra", p.algebra).key("predicted", p.predicted).key("measured", p.measured);
}

template <class A>
void describe(A& a, EditResult& e) {
  a.key("name", e.name).key("status", e.status).key("tags", e.annotations.tags).key("where", e.where);
  describe_annotations(a, e.annotations).key("method", e.method).key("parameters", e.parameters);
  a.group("certificate", [&e](auto& certificate) {
    certificate.key("changes", e.changes).key("parts", e.parts).key("costs", e.costs);
  });
  a.key("expectations", e.expectations);
}

template <class A>
void describe(A& a, PromptMargin& m) {
  a.if_any("prompt", m.prompt).key("activation", m.activation).key("margin", m.margin).key("position", m.position);
}

template <class A>
void describe(A& a, ConditionResult& c) {
  a.key("condition", c.condition)
      .key("held", c.held)
      .key("activation", c.activation)
      .key("threshold", c.threshold)
      .key("margin", c.margin)
      .key("position", c.position)
      .if_any("prompt", c.prompt)
      .if_any("prompts", c.prompts);
}

template <class A>
void describe(A& a, Coverage& c) {
  a.key("rules", c.rules)
      .key("rules_covered", c.rules_covered)
      .key("branches", c.branches)
      .key("branches_covered", c.branches_covered)
      .if_any("uncovered", c.uncovered);
}

template <class A>
void describe(A& a, ExampleResult& e) {
  a.key("rule", e.rule)
      .key("kind", e.kind)
      .key("status", e.status)
      .key("where", e.where)
      .if_any("tags", e.annotations.tags);
  describe_annotations(a, e.annotations).key("prompts", e.prompts).key("fired", e.fired);
  a.if_any("evidence", e.evidence).if_any("conditions", e.conditions);
}

template <class A>
void describe(A& a, Annotated& n) {
  a.key("declaration", n.declaration).key("where", n.where).if_any("tags", n.annotations.tags);
  describe_annotations(a, n.annotations);
}

template <class A>
void describe(A& a, SiteScore& s) {
  a.key("site", s.site).if_any("auroc", s.auroc).if_any("separation", s.separation).if_any("left_out", s.left_out);
}

template <class A>
void describe(A& a, SelectResult& s) {
  a.key("by", s.by).key("candidates", s.candidates);
}

template <class A>
void describe(A& a, FeatureResult& f) {
  a.key("name", f.name)
      .key("site", f.site)
      .key("constructor", f.constructor)
      .key("b", f.b)
      .key("c", f.c)
      .key("built_on", f.built_on)
      .if_any("measures", f.measures)
      .if_any("spanned_by", f.spanned_by)
      .if_any("select", f.select);
}

template <class A>
void describe(A& a, CircuitEdgeResult& e) {
  a.key("from", e.from)
      .key("to", e.to)
      .if_any("score", e.score)
      .if_any("drop", e.drop)
      .if_any("inclusion", e.inclusion);
}

template <class A>
void describe(A& a, CircuitNodeResult& n) {
  a.key("name", n.name).key("score", n.score).if_any("drop", n.drop).if_any("inclusion", n.inclusion);
}

template <class A>
void describe(A& a, CircuitCurvePoint& p) {
  a.key("share", p.share).if_any("edges", p.edges).if_any("nodes", p.nodes).key("faithfulness", p.faithfulness);
}

template <class A>
void describe(A& a, Estimate& e) {
  a.key("value", e.value)
      .key("interval", e.interval)
      .key("confidence", e.confidence)
      .key("n", e.n)
      .if_any("why_no_interval", e.why_no_interval);
}

template <class A>
void describe(A& a, CircuitMinimalityResult& m) {
  a.key("needed", m.needed).key("threshold", m.threshold).key("compared", m.compared);
}

template <class A>
void describe(A& a, CircuitStabilityResult& s) {
  a.key("draws", s.draws)
      .key("overlap", s.overlap)
      .key("middle", s.middle)
      .key("ablations", s.ablations)
      .if_any("lines", s.lines);
}

template <class A>
void describe(A& a, CircuitOverlapResult& o) {
  a.key("circuit", o.circuit)
      .key("of", o.parts)
      .key("both", o.both)
      .key("either", o.either)
      .key("share", o.share)
      .key("by_chance", o.by_chance);
}

template <class A>
void describe(A& a, CircuitFoundOn& f) {
  a.key("pairs", f.pairs).key("faithfulness", f.faithfulness).key("completeness", f.completeness);
}

template <class A>
void describe(A& a, CircuitResult& c) {
  a.key("name", c.name).key("tags", c.annotations.tags).key("where", c.where);
  describe_annotations(a, c.annotations)
      .key("measure", c.measure)
      .key("method", c.method)
      .key("parameters", c.parameters)
      .key("selection", c.selection)
      .key("ablation", c.ablation)
      .key("pairs", c.pairs)
      .key("model_edges", c.model_edges)
      .if_any("model_nodes", c.model_nodes)
      .key("pruned", c.pruned)
      .key("m_clean", c.m_clean)
      .key("m_corrupt", c.m_corrupt)
      .key("m_circuit", c.m_circuit)
      .key("m_without", c.m_without)
      .key("faithfulness", c.faithfulness)
      .key("completeness", c.completeness)
      .if_any("found_on", c.found_on)
      .if_any("minimality", c.minimality)
      .if_any("found_again", c.stability)
      .if_any("overlaps", c.overlaps)
      .key("cpr", c.cpr)
      .key("cmd", c.cmd)
      .key_unless_reproducible("seconds", c.seconds)
      .key("curve", c.curve)
      .if_any("nodes", c.nodes)
      .key("edges", c.edges);
}

template <class A>
void describe(A& a, FaultResult& f) {
  a.key("kind", f.kind)
      .if_any("strength", f.strength)
      .if_any("what", f.what)
      .key("outcome", f.outcome)
      .if_any("reason", f.reason)
      .if_any("kl", f.kl)
      .if_any("by", f.by);
}

template <class A>
void describe(A& a, FaultTally& t) {
  a.if_any("kind", t.kind)
      .if_any("strength", t.strength)
      .key("planted", t.planted)
      .key("caught", t.caught)
      .key("doubted", t.doubted)
      .key("share", t.share);
}

template <class A>
void describe(A& a, MutationControl& c) {
  a.key("seed", c.seed).key("kl", c.kl).key("alarms", c.alarms);
}

template <class A>
void describe(A& a, PlantedFaults& p) {
  a.key("watching", p.watching)
      .key("all", p.all)
      .key("kinds", p.kinds)
      .key("faults", p.faults)
      .key("controls", p.controls)
      .if_any("left_out", p.left_out);
}

template <class A>
void describe(A& a, Counts& c) {
  a.key("passed", c.passed)
      .key("failed", c.failed)
      .key("inconclusive", c.inconclusive)
      .key("vacuous", c.vacuous)
      .key("waived", c.waived)
      .key("errors", c.errors);
}

/// `edits: {total: 2, passed: 1, …}`; the checks' own counts stand in the summary itself.
struct NamedCounts : Counts {};

template <class A>
void describe(A& a, NamedCounts& c) {
  a.key("total", c.total);
  describe(a, static_cast<Counts&>(c));
}

template <class A>
void describe(A& a, Summary& s) {
  a.key("checks", s.checks.total);
  describe(a, s.checks);
  a.key("worst", s.worst);
  NamedCounts edits{s.edits}, examples{s.examples};
  a.key("edits", edits).key("examples", examples);
  s.edits = edits;
  s.examples = examples;
}

/// What follows from the rest of the report.
struct Derived {
  std::int64_t report_version = kReportVersion;
  Status verdict = Status::pass;
  Summary summary;
};

template <class A>
void describe(A& a, Report& r, Derived& derived) {
  a.group("proviso", [&](auto& program) {
    program.key("version", r.version).key("report", derived.report_version);
    program.require(derived.report_version == kReportVersion, "report",
                    "this program reads reports of version " + std::to_string(kReportVersion));
    program.if_any("sha256", r.program_sha256).if_any("libtorch", r.libtorch);
  });
  a.key("verdict", derived.verdict).key("summary", derived.summary).key("model", r.model);
  describe_files(r.rules, [&a](auto& files) { a.key("rules", files); });
  describe_files(r.data, [&a](auto& files) { a.if_any("data", files); });
  a.key("run", r.run).key("checks", r.checks).key("rule_activity", r.rule_activity).key("edits", r.edits);
  a.key("circuits", r.circuits)
      .key("examples", r.examples)
      .if_any("coverage", r.coverage)
      .key("features", r.features)
      .if_any("annotated", r.annotated)
      .if_any("planted_faults", r.planted_faults);
}

}  // namespace proviso::audit
