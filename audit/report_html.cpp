// The report as one HTML page: no script, nothing loaded, everything that a rule file or a model said escaped.

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "audit/circuits.hpp"
#include "audit/html_page.hpp"
#include "audit/markup.hpp"
#include "audit/report.hpp"
#include "audit/report_plot.hpp"
#include "audit/report_words.hpp"
#include "audit/verdict.hpp"

namespace proviso::audit {
namespace {

// ---- parts of a report --------------------------------------------------------------------------------

std::string_view sign_of(Status status) {
  constexpr std::array<std::string_view, 6> kSigns = {"✓", "⊘", "?", "○", "✗", "!"};
  return kSigns.at(static_cast<std::size_t>(status));
}

std::string signed_name(Status status) {
  return element("span", attribute("aria-hidden", "true"), sign_of(status)) + " " + std::string(status_name(status));
}

std::string badge(Status status) {
  return element("span", of_class("badge " + std::string(status_name(status))), signed_name(status));
}

/// "check-knows_capitals": where the page tells of it.
std::string anchor(const Judgement& judgement) {
  std::string id = std::string(kind_name(judgement.kind)) + "-";
  for (const char c : judgement.name) id += std::isalnum(static_cast<unsigned char>(c)) || c == '.' ? c : '_';
  return id;
}

std::string numbers_table(const std::string& caption, const std::vector<std::pair<std::string, double>>& numbers) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : numbers) rows.push_back({markup(name), number_text(value)});
  return table(caption, {{"quantity"}, {"value", "number"}}, rows);
}

// ---- expectations --------------------------------------------------------------------------------------

std::string evidence_table(const std::vector<Evidence>& evidence, const std::string& caption, bool percent) {
  std::vector<std::vector<std::string>> rows;
  for (const Evidence& item : evidence)
    rows.push_back({item.prompt.empty() ? element("span", of_class("soft"), "left out") : markup(item.prompt),
                    item.before ? number_text(*item.before, percent) : "–", number_text(item.after, percent),
                    item.output.empty() ? "–" : markup(item.output)});
  return table(caption, {{"prompt", "text"}, {"without it", "number"}, {"value", "number"}, {"generated", "text"}},
               rows);
}

std::string expectation_part(const ExpectationResult& expectation) {
  const Written written = read_expectation(expectation.text);
  const Estimate& estimate = expectation.estimate;
  std::string known = fact("measured", markup(measurement_text(expectation, written)));
  known += fact("asked", markup(asked_text(expectation, written)));
  if (!estimate.interval) known += fact("interval", markup("none: " + estimate.why_no_interval));
  if (expectation.control) known += fact("control", markup(control_text(*expectation.control, written)));
  known += fact("attacks", markup(attacked_text(expectation)));
  for (const SearchResult& search : expectation.searched) known += fact("searched", markup(searched_text(search)));
  known += fact("moved", markup(moved_text(expectation)));
  known += fact("evaded", markup(evaded_text(expectation)));
  if (expectation.across) known += fact("across", markup(across_text(*expectation.across, written)));
  known += fact("reason", markup(expectation.reason));
  const std::string side = element("div", of_class("side"), facts(known) + element("div", "", plot(expectation)));
  const std::string evidence = evidence_table(expectation.evidence, "The prompts that speak most against it",
                                              prompts_in_percent(written, expectation.text));
  return element(
      "div", of_class("expectation"),
      element("h4", "", badge(expectation.status) + " " + code(expectation.text)) + "\n" + side + "\n" +
          (evidence.empty() ? "" : fold("evidence", expectation.status != Status::pass, "Evidence", evidence)));
}

/// What a line of the overview shows of several expectations: the first of the worst.
const ExpectationResult* speaking(const std::vector<ExpectationResult>& expectations) {
  const auto found = std::max_element(expectations.begin(), expectations.end(),
                                      [](const auto& a, const auto& b) { return a.status < b.status; });
  return found == expectations.end() ? nullptr : &*found;
}

std::string says(const Judgement& judgement) {
  const dsl::Annotations& annotations = *judgement.annotations;
  std::string known = fact("where", code(judgement.where));
  if (judgement.under) known += fact("under", markup(joined(*judgement.under)));
  std::vector<std::string> tags;
  for (const std::string& tag : annotations.tags) tags.push_back(code(tag));
  known += fact("tags", joined(tags));
  for (const auto& [name, value] : annotations.meta) known += fact(markup(name), markup(value));
  known += fact("status", markup(remarks(annotations)));
  if (judgement.waiver)
    known += fact(judgement.waiver->expired ? "waiver, expired" : "waived", markup(waiver_text(*judgement.waiver)));
  return paragraph(annotations.title) + paragraph(annotations.description) + facts(known);
}

/// `own` is what only its kind has: an edit's certificate.
std::string judgement_part(const Judgement& judgement, const std::string& shown, const std::string& own) {
  std::string weight(judgement.kind == Judgement::Kind::check ? dsl::severity_name(judgement.severity) : "");
  if (judgement.experimental) weight += (weight.empty() ? "" : ", ") + std::string("experimental");
  // Spaces between, for who reads it without the style.
  std::string summary = badge(judgement.status) + " " + element("h3", "", markup(judgement.name)) + " " +
                        element("span", of_class("severity soft"), weight) + " ";
  std::string content = says(judgement) + own;
  const ExpectationResult* first = judgement.expectations ? speaking(*judgement.expectations) : nullptr;
  if (first) {
    const Written written = read_expectation(first->text);
    const std::size_t more = judgement.expectations->size() - 1;
    summary +=
        element("span", of_class("measured"),
                markup(measured_text(first->estimate, written)) + " " +
                    element("span", of_class("soft"),
                            markup("asked " + asked_text(*first, written)) +
                                (more > 0 ? ", and " + grouped(static_cast<std::int64_t>(more)) + " more" : ""))) +
        small_plot(*first);
    for (const ExpectationResult& expectation : *judgement.expectations) content += expectation_part(expectation);
  } else {
    summary += element("span", of_class("measured"), markup(shown));
  }
  return element("details",
                 of_class("judgement " + std::string(status_name(judgement.status))) +
                     attribute("id", anchor(judgement)) + (judgement.status == Status::pass ? "" : " open"),
                 element("summary", "", summary) + "\n" + content) +
         "\n";
}

std::string certificate(const EditResult& edit) {
  std::vector<std::vector<std::string>> changes;
  for (const TensorChange& change : edit.changes) {
    std::vector<std::string> shape;
    for (const std::int64_t size : change.shape) shape.push_back(std::to_string(size));
    changes.push_back({code(change.tensor), joined(shape, " × "), grouped(change.rank), number_text(change.norm),
                       number_text(change.relative_norm, true),
                       "before " + code(change.sha256_before) + "<br>after " + code(change.sha256_after)});
  }
  std::string content = facts(fact("method", code(method_text(edit)))) + table("What changed",
                                                                               {{"tensor", "text"},
                                                                                {"shape", "number"},
                                                                                {"rank", "number"},
                                                                                {"norm of the change", "number"},
                                                                                {"of the tensor's", "number"},
                                                                                {"SHA-256", "text"}},
                                                                               changes);
  if (changes.empty()) content += paragraph("It changed nothing.");
  for (const CertificatePart& part : edit.parts) {
    content += numbers_table("What the algebra says at the site, in float64", part.algebra) +
               numbers_table("Predicted to first order", part.predicted) + numbers_table("Measured", part.measured);
  }
  content += numbers_table("What it cost, on text that it never saw", edit.costs);
  return fold("certificate", false, "Certificate", content);
}

// ---- sections ------------------------------------------------------------------------------------------

std::string share_bar(std::int64_t part, std::int64_t all) {
  const double share = all > 0 ? static_cast<double>(part) / static_cast<double>(all) : 0;
  const auto bar = [](const char* kind, const std::string& width) {
    return element("rect", of_class(kind) + attribute("width", width) + attribute("height", "12"), "");
  };
  return element("svg",
                 of_class("bar") + attribute("viewBox", "0 0 100 12") + attribute("preserveAspectRatio", "none") +
                     attribute("aria-hidden", "true"),
                 bar("all", "100") + bar("part", number_text(100 * share)));
}

std::string activity_table(const std::vector<RuleActivity>& activity) {
  std::vector<std::vector<std::string>> rows;
  for (const RuleActivity& rule : activity) {
    std::string branches;
    for (const auto& [branch, count] : rule.branches) branches += "<br>" + code(branch) + " " + grouped(count);
    rows.push_back({markup(rule.rule), code(rule.sentence) + branches, code(rule.site), markup(rule.form),
                    grouped(rule.active) + " of " + grouped(rule.positions) + share_bar(rule.active, rule.positions),
                    number_text(rule.mean), number_text(rule.max), number_text(rule.relative_change, true),
                    number_text(rule.relative_change_at_0, true)});
  }
  return table(
      "Positions that each sentence acted at (the first left out), the activation before, and the change ‖Δx‖/‖x‖ "
      "where it acted and at the first position",
      {{"rule", "text"},
       {"sentence", "text"},
       {"site"},
       {"form"},
       {"acted at", "number"},
       {"mean", "number"},
       {"largest", "number"},
       {"change", "number"},
       {"at 0", "number"}},
      rows);
}

std::string features_table(const std::vector<FeatureResult>& features) {
  std::vector<std::vector<std::string>> rows;
  for (const FeatureResult& feature : features)
    rows.push_back({markup(feature.name), code(feature.site), markup(feature.constructor), number_text(feature.b),
                    number_text(feature.c), grouped(feature.built_on), markup(listed(feature.measures))});
  std::vector<std::vector<std::string>> candidates;
  for (const FeatureResult& feature : features) {
    if (!feature.select) continue;
    for (const SiteScore& score : feature.select->candidates) {
      candidates.push_back({markup(feature.name), code(score.site) + (score.site == feature.site ? " ✓" : ""),
                            score.auroc ? number_text(*score.auroc) : "–",
                            score.separation ? number_text(*score.separation) : "–",
                            markup(score.left_out.empty() ? feature.select->by : "left out: it " + score.left_out)});
    }
  }
  const std::string chosen =
      candidates.empty()
          ? ""
          : table("Sites that were tried for features",
                  {{"feature", "text"}, {"site"}, {"AUROC", "number"}, {"separation", "number"}, {"by", "text"}},
                  candidates);
  return chosen + table("Directions as built: activation = (d·x − b) / c",
                        {{"feature", "text"},
                         {"site"},
                         {"constructor"},
                         {"b", "number"},
                         {"c", "number"},
                         {"prompts", "number"},
                         {"measures", "text"}},
                        rows);
}

std::string circuit_part(const CircuitResult& circuit, std::size_t number) {
  std::string known = fact("where", code(circuit.where));
  for (const auto& [label, text] : circuit_facts(circuit)) known += fact(label, markup(text));
  std::string nodes;
  if (circuit.model_nodes) {
    std::vector<std::vector<std::string>> rows;
    for (const CircuitNodeResult& node : circuit.nodes) rows.push_back({code(node.name), number_text(node.score)});
    nodes = fold("nodes", false, counted(std::ssize(circuit.nodes), "node"),
                 table("What m changes by where all that one node writes is corrupted, the strongest first",
                       {{"node", "text"}, {"score", "number"}}, rows));
  }
  std::vector<std::vector<std::string>> rows;
  for (const CircuitEdgeResult& edge : circuit.edges)
    rows.push_back({code(edge.from), code(edge.to), edge.score ? number_text(*edge.score) : ""});
  const std::string edges = table("What m changes by where one edge alone is corrupted, the strongest first",
                                  {{"from", "text"}, {"to", "text"}, {"score", "number"}}, rows);
  return element("h3", "", markup(circuit.name)) + paragraph(circuit.annotations.title) +
         paragraph(circuit.annotations.description) + facts(known) + circuit_drawing(circuit, number) + nodes +
         (has_latents(circuit) ? "" : fold("edges", false, counted(std::ssize(circuit.edges), "edge"), edges));
}

std::string circuits_part(const std::vector<CircuitResult>& circuits) {
  std::string content;
  for (std::size_t i = 0; i < circuits.size(); ++i) content += circuit_part(circuits[i], i);
  return content;
}

std::string planted_part(const PlantedFaults& planted) {
  std::vector<std::vector<std::string>> tallies, faults;
  for (const FaultTally& tally : planted.kinds)
    tallies.push_back({markup(tally.kind), markup(tally.strength), grouped(tally.planted), grouped(tally.caught),
                       grouped(tally.doubted),
                       markup(tally_share_text(tally)) + share_bar(tally.caught + tally.doubted, tally.planted)});
  for (const FaultResult& fault : planted.faults)
    faults.push_back({markup(fault.outcome), markup(fault.kind), markup(fault.strength), markup(fault.what),
                      fault.kl ? number_text(*fault.kl) : "–", markup(fault_result_text(fault))});
  std::string known = fact("watching", markup(joined(planted.watching)));
  for (const std::string& alarm : alarms_text(planted)) known += fact("false alarm", markup(alarm));
  for (const auto& [kind, why] : planted.left_out) known += fact(kind, markup("none planted: " + why));
  return paragraph(planted_text(planted)) + facts(known) +
         table("By kind and strength: caught is what fails, doubted what is only inconclusive or vacuous",
               {{"fault"},
                {"strength"},
                {"planted", "number"},
                {"caught", "number"},
                {"doubted", "number"},
                {"found", "number"}},
               tallies) +
         table("Every fault, with KL(as loaded ‖ with it) on text that the audit does not read, in nats a token",
               {{"outcome"}, {"fault"}, {"strength"}, {"where", "text"}, {"kl", "number"}, {"how", "text"}}, faults);
}

std::string annotations_table(const std::vector<Annotated>& annotated) {
  std::vector<std::vector<std::string>> rows;
  for (const Annotated& one : annotated)
    rows.push_back({code(one.declaration), code(one.where),
                    paragraph(one.annotations.title) + paragraph(one.annotations.description) +
                        paragraph(joined(one.annotations.tags)) + paragraph(remarks(one.annotations))});
  return table("What the rule files say of them", {{"declaration", "text"}, {"where", "text"}, {"says", "text"}}, rows);
}

std::string tags_table(const std::vector<Judgement>& all) {
  std::map<std::string, std::string> by_tag;
  for (const Judgement& judgement : all)
    for (const std::string& tag : judgement.annotations->tags)
      by_tag[tag] += element("p", "",
                             badge(judgement.status) + " " +
                                 element("a", attribute("href", "#" + anchor(judgement)), markup(judgement.name)));
  std::vector<std::vector<std::string>> rows;
  for (const auto& [tag, shown] : by_tag) rows.push_back({code(tag), shown});
  return table("What bears each tag", {{"tag", "text"}, {"checks, edits and examples", "text"}}, rows);
}

std::string provenance(const Report& report) {
  std::string known = fact("model", markup(model_text(report.model)) + "<br>" + code(report.model.sha256));
  known += fact("program", markup("Proviso " + report.version) +
                               (report.program_sha256.empty() ? "" : "<br>" + code(report.program_sha256)));
  if (!report.libtorch.empty()) known += fact("LibTorch", markup(report.libtorch));
  known += fact("run", markup(run_text(report.run)));
  if (const auto& machine = report.run.machine)
    known +=
        fact("machine", markup(machine->processor + ", " + counted(machine->cores, "core") + ", " + machine->system));
  known += fact("only", markup(report.run.only));
  std::vector<std::vector<std::string>> files, parts;
  for (const auto& [file, sha256] : report.rules) files.push_back({"rules", code(file), code(sha256)});
  for (const auto& [file, sha256] : report.data) files.push_back({"data", code(file), code(sha256)});
  for (const MergedPart& part : report.run.merged)
    parts.push_back(
        {code(part.file), code(part.sha256), markup(part.only), markup(part.device), grouped(part.threads)});
  return facts(known) + table("Files", {{"kind"}, {"file", "text"}, {"SHA-256", "text"}}, files) +
         table("Merged from",
               {{"report", "text"}, {"SHA-256", "text"}, {"only", "text"}, {"device"}, {"threads", "number"}}, parts);
}

std::string head(const Report& report) {
  const Summary summary = summarise(report);
  const Status verdict = report.verdict();
  std::string counts;
  const auto count = [&counts](const char* what, const Counts& of) {
    if (of.total > 0) counts += element("li", "", element("strong", "", what) + " " + counts_text(of));
  };
  count("Checks", summary.checks);
  count("Edits", summary.edits);
  count("Examples", summary.examples);
  const std::string worst =
      summary.worst ? "The worst that does not pass is " + std::string(dsl::severity_name(*summary.worst)) + "." : "";
  return element(
             "header", of_class("verdict " + std::string(status_name(verdict))),
             element("p", of_class("soft"), markup("Proviso audit of " + report.model.name + ", " + report.run.date)) +
                 element("h1", "", "Verdict: " + signed_name(verdict)) + paragraph(worst) +
                 (report.run.only.empty() ? "" : paragraph("Only a part was run: " + report.run.only)) +
                 element("ul", of_class("counts"), counts)) +
         "\n";
}

}  // namespace

std::string to_html(const Report& report) {
  const std::vector<Judgement> all = judgements(report);
  std::array<std::string, 3> of_kind;
  std::size_t edit = 0, example = 0;
  for (const Judgement& judgement : all) {
    std::string shown, own;
    if (judgement.kind == Judgement::Kind::edit) own = certificate(report.edits[edit++]);
    if (judgement.kind == Judgement::Kind::example) {
      const ExampleResult& result = report.examples[example++];
      shown = "fired on " + grouped(result.fired) + " of " + counted(result.prompts, "prompt");
      own =
          evidence_table(result.evidence, "The prompts that it is wrong on, and at how many positions it fired", false);
    }
    of_kind.at(static_cast<std::size_t>(judgement.kind)) += judgement_part(judgement, shown, own);
  }
  const std::array<std::array<std::string, 3>, 11> sections = {
      {{"checks", "Checks", of_kind[0]},
       {"edits", "Edits", of_kind[1]},
       {"examples", "Examples", of_kind[2]},
       {"circuits", "Circuits", circuits_part(report.circuits)},
       {"planted", "Planted faults", report.planted_faults ? planted_part(*report.planted_faults) : ""},
       {"activity", "Rule activity", activity_table(report.rule_activity)},
       {"features", "Features", features_table(report.features)},
       {"tags", "Tags", tags_table(all)},
       {"annotations", "Titles and notes", annotations_table(report.annotated)},
       {"provenance", "Provenance", provenance(report)},
       {"whole", "The whole report",
        fold("whole", false, "Every number as the report holds it, in YAML",
             element("pre", attribute("tabindex", "0"), markup_lines(to_yaml(report, {}))))}}};
  std::string links, main;
  for (const auto& [id, title, content] : sections) {
    if (!content.empty()) links += element("li", "", element("a", attribute("href", "#" + id), title));
    main += section(id, title, content);
  }
  const std::string title =
      std::string(status_name(report.verdict())) + ": " + report.model.name + ", audited " + report.run.date;
  return page(title, element("a", of_class("skip") + attribute("href", "#main"), "Skip to the results") + "\n" +
                         head(report) + element("nav", attribute("aria-label", "Sections"), element("ul", "", links)) +
                         "\n" + element("main", attribute("id", "main"), "\n" + main));
}

}  // namespace proviso::audit
