#include "dsl/check.hpp"

#include <algorithm>
#include <memory>
#include <ostream>

#include "cli/files.hpp"
#include "cli/models.hpp"
#include "cli/rule_files.hpp"
#include "dsl/fix.hpp"
#include "dsl/resolve.hpp"
#include "runtime/bind.hpp"
#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::cli {

namespace {

struct CheckOptions {
  std::vector<std::string> files;
  std::string model, explain;
  bool fix = false;
};

int explain(const Invocation& invocation, const std::string& slug) {
  const auto code = dsl::code_from_slug(slug);
  if (!code) {
    std::vector<std::string> slugs;
#define PROVISO_DIAGNOSTIC(name, text, severity, explanation) slugs.push_back(text);
#include "dsl/diagnostic_codes.def"
#undef PROVISO_DIAGNOSTIC
    const auto nearest = dsl::nearest_name(slug, slugs);
    throw model::InputError("there is no diagnostic `" + slug + "`" +
                            (nearest ? "\n  help: did you mean `" + *nearest + "`?" : ""));
  }
  invocation.out << dsl::slug(*code) << "\n\n" << dsl::explanation(*code) << "\n";
  return kDone;
}

/// What fixes made of the files named: their texts before and after, in order, and a line about each fix.
struct Fixing {
  std::vector<std::string> before, after;
  std::vector<std::string> made;
};

/// "a.proviso:3:7: fixed[unknown-name]: `clam` is now `calm`"
std::string fixed_line(const dsl::SourceSet& sources, const dsl::FixedText::Made& made) {
  const std::string before(sources.text(made.fix.span)), &after = made.fix.replacement;
  return dsl::place_text(sources, made.fix.span) + ": fixed[" + std::string(dsl::slug(made.code)) + "]: " +
         (before.empty()  ? "`" + after + "` is put in"
          : after.empty() ? "`" + before + "` is taken out"
                          : "`" + before + "` is now `" + after + "`");
}

/// Makes the safe fixes of the files named, again and again until none is left: what a fix makes readable may need
/// fixes of its own. `sources` and `checked` become those of the last round.
Fixing fix(const Invocation& invocation, const CheckOptions& options, dsl::SourceSet& sources,
           dsl::CheckedParts& checked) {
  constexpr int kMostRounds = 100;
  Fixing fixing;
  for (const std::string& path : options.files) {
    if (path == "-") throw model::InputError("`--fix` rewrites files, and `-` is none\n  help: name the files");
    fixing.before.push_back(read_text(invocation, path));
  }
  fixing.after = fixing.before;
  bool changed = true;
  for (int round = 0; changed && round < kMostRounds; ++round) {
    sources = {};
    std::vector<dsl::SourceId> files;
    for (std::size_t i = 0; i < options.files.size(); ++i) {
      files.push_back(sources.add(options.files[i], fixing.after[i]));
    }
    checked = dsl::check_source_parts(sources, files, load_options(invocation));
    changed = false;
    for (const dsl::SourceId file : files) {
      dsl::FixedText fixed = dsl::make_safe_fixes(sources, file, checked.diagnostics);
      for (const auto& made : fixed.made) fixing.made.push_back(fixed_line(sources, made));
      changed |= !fixed.made.empty();
      fixing.after[file] = std::move(fixed.text);
    }
  }
  return fixing;
}

/// Writes the files that fixes have changed: all can be written, or none is.
void write_fixed(const CheckOptions& options, const Fixing& fixing) {
  std::vector<std::pair<std::string, const std::string*>> changed;
  for (std::size_t i = 0; i < options.files.size(); ++i) {
    if (fixing.before[i] != fixing.after[i]) changed.emplace_back(written_file(options.files[i]), &fixing.after[i]);
  }
  for (const auto& [path, text] : changed) model::require_writable(path);
  for (const auto& [path, text] : changed) model::write_file_atomically(path, *text);
}

int check(const Invocation& invocation, const CheckOptions& options) {
  if (!options.explain.empty()) return explain(invocation, options.explain);
  if (options.files.empty()) {
    throw model::InputError("no rule file is named\n  help: `proviso check FILE…`, or `--explain CODE`");
  }
  const bool text = invocation.options.output.value_or(OutputFormat::text) == OutputFormat::text;
  dsl::SourceSet sources;
  dsl::CheckedParts checked;
  if (options.fix) {
    const Fixing fixing = fix(invocation, options, sources, checked);
    write_fixed(options, fixing);
    // Beside a document for programs the changes are told where people read.
    for (const std::string& line : fixing.made) (text ? invocation.out : invocation.err) << line << "\n";
  } else {
    checked = check_rules(invocation, sources, options.files);
  }
  auto found = checked.diagnostics;
  if (!options.model.empty()) {
    const auto model = open_model(options.model);
    const auto on_model =
        runtime::bind_parts(std::make_shared<const dsl::CheckedParts>(std::move(checked)), model->card,
                            model->tokenizer, invocation.options.cache, invocation.options.seed);
    found.insert(found.end(), on_model.begin(), on_model.end());
    dsl::sort_by_place(found);
  }
  print_diagnostics(invocation, invocation.out, sources, found);
  return stops(invocation, found) ? kInputAtFault : kDone;
}

}  // namespace

void register_check(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand("check", "Read and check rule files; print every diagnostic");
  auto options = std::make_shared<CheckOptions>();
  command->add_option("FILE", options->files, "rule files; `-`, alone, is standard input")->check(kNotEmpty);
  command
      ->add_option("--model", options->model,
                   "check against this model, too: its layers, widths, heads and tokens (no weights are read)")
      ->check(kNotEmpty)
      ->type_name("M");
  command->add_flag(
      "--fix", options->fix,
      "make the safe fixes in the files named (misspelt names, missing commas, `85` for `85%`), tell what "
      "changed, and print what is left");
  command->add_option("--explain", options->explain, "tell what a diagnostic's code means, with an example")
      ->check(kNotEmpty)
      ->type_name("CODE");
  add_common_options(*command, invocation.options);
  command->callback(
      [options, &invocation] { invocation.action = [options, &invocation] { return check(invocation, *options); }; });
}

}  // namespace proviso::cli
