#include "cli/rule_files.hpp"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cli/files.hpp"
#include "cli/output.hpp"
#include "dsl/render.hpp"

namespace proviso::cli {

void print_diagnostics(const Invocation& invocation, std::ostream& out, const dsl::SourceSet& sources,
                       const std::vector<dsl::Diagnostic>& diagnostics) {
  const OutputFormat format = invocation.options.output.value_or(OutputFormat::text);
  if (format != OutputFormat::yaml && format != OutputFormat::json) {
    out << dsl::render_text(diagnostics, sources, {terminal(out).colour});
  } else {
    out << render_document(nlohmann::ordered_json::parse(dsl::render_json(diagnostics, sources)), format);
  }
}

bool stops(const Invocation& invocation, const std::vector<dsl::Diagnostic>& diagnostics) {
  return invocation.options.strict ? !diagnostics.empty() : dsl::has_errors(diagnostics);
}

dsl::LoadOptions load_options(const Invocation& invocation) {
  return {invocation.options.allowed_paths, shipped_rules(), /*look_for_data=*/true};
}

dsl::CheckedParts check_rules(const Invocation& invocation, dsl::SourceSet& sources,
                              const std::vector<std::string>& paths) {
  const dsl::LoadOptions options = load_options(invocation);
  if (std::find(paths.begin(), paths.end(), "-") == paths.end()) return dsl::check_file_parts(sources, paths, options);
  if (paths.size() > 1) throw model::InputError("`-` is standard input and stands alone: name no other file");
  return dsl::check_source_parts(sources, {sources.add("-", read_text(invocation, "-"))}, options);
}

std::unique_ptr<RuleFiles> load_rules(const Invocation& invocation, const std::vector<std::string>& paths) {
  auto loaded = std::make_unique<RuleFiles>();
  auto checked = check_rules(invocation, loaded->sources, paths);
  if (!checked.diagnostics.empty()) print_diagnostics(invocation, invocation.err, loaded->sources, checked.diagnostics);
  if (!stops(invocation, checked.diagnostics)) {
    loaded->rules = std::make_shared<const dsl::RuleSet>(std::move(checked.rules));
  }
  return loaded;
}

std::string shipped_rules() {
  std::error_code unknown;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", unknown);
  const auto installed = program.parent_path().parent_path() / "share" / "proviso" / "rules";
  return std::filesystem::is_directory(installed, unknown) ? installed.string() : PROVISO_RULES_DIRECTORY;
}

}  // namespace proviso::cli
