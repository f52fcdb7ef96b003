#pragma once

// The report as a tree of maps, lists and scalars: what YAML and JSON write down and the schema describes. Each
// struct's keys are listed once, in report_tree.cpp, for writing and reading alike.

#include <nlohmann/json.hpp>
#include <string>

#include "audit/report.hpp"

namespace proviso::audit {

using Tree = nlohmann::ordered_json;

/// NaN and infinities are the strings "NaN", "Infinity" and "-Infinity".
Tree tree_of(const Report& report, const RenderOptions& options);
/// One part of a report: a `CheckResult`, `EditResult`, `ExampleResult`, `RuleActivity` or `Annotated`.
template <class Part>
Tree tree_of_part(const Part& part);
/// A number as reports write it.
Tree number_tree(double value);
/// Throws `model::InputError` naming `path` and the key. Unknown keys are errors, as is a verdict that the checks do
/// not amount to.
Report report_of(const Tree& tree, const std::string& path);

std::string yaml_text(const Tree& tree);
/// YAML 1.2's core types. Anchors, aliases, tags, doubled keys and deep nesting are errors: no report has them.
Tree parse_yaml_tree(const std::string& text, const std::string& path);

}  // namespace proviso::audit
