#include <memory>
#include <ostream>

#include "cli/files.hpp"
#include "cli/rule_files.hpp"
#include "cli/unified_diff.hpp"
#include "dsl/format.hpp"
#include "dsl/parse.hpp"
#include "runtime/formats/atomic_file.hpp"

namespace proviso::cli {

namespace {

struct FmtOptions {
  std::vector<std::string> files;
  bool check = false, diff = false;
};

int format_files(const Invocation& invocation, const FmtOptions& options) {
  dsl::SourceSet sources;
  std::vector<std::string> formatted;
  bool readable = true;
  for (const std::string& path : options.files) {
    const dsl::SourceId source = sources.add(path, read_text(invocation, path));
    const dsl::Parsed parsed = dsl::parse(sources, source);
    print_diagnostics(invocation, invocation.err, sources, parsed.diagnostics);
    readable &= !dsl::has_errors(parsed.diagnostics);
    formatted.push_back(readable ? dsl::format(parsed.file, sources) : "");
  }
  if (!readable) return kInputAtFault;

  bool would_change = false;
  std::vector<std::pair<std::string, std::string>> rewritten;  // path, text
  for (dsl::SourceId source = 0; source < formatted.size(); ++source) {
    const std::string& path = options.files[source];
    const bool differs = formatted[source] != sources.at(source).text;
    if (options.diff) {
      invocation.out << unified_diff(path, sources.at(source).text, formatted[source]);
      would_change |= options.check && differs;
    } else if (options.check) {
      if (differs) invocation.out << path << "\n";
      would_change |= differs;
    } else if (path == "-") {
      invocation.out << formatted[source];
    } else if (differs) {
      rewritten.emplace_back(written_file(path), formatted[source]);
    }
  }
  for (const auto& [path, text] : rewritten) model::require_writable(path);
  for (const auto& [path, text] : rewritten) model::write_file_atomically(path, text);
  return would_change ? kFailed : kDone;
}

}  // namespace

void register_fmt(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand("fmt", "Rewrite rule files in the one canonical style, comments kept");
  auto options = std::make_shared<FmtOptions>();
  command->add_option("FILE", options->files, "rule files; `-` formats standard input to standard output")
      ->check(kNotEmpty)
      ->required();
  command->add_flag("--diff", options->diff, "write nothing; print what would change, as a unified diff");
  command->add_flag("--check", options->check, "write nothing; name the files that would change, and exit with 1");
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] { return format_files(invocation, *options); };
  });
}

}  // namespace proviso::cli
