#pragma once

#include <set>
#include <string>
#include <vector>

#include "dsl/diagnostic.hpp"
#include "dsl/rule_set.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl {

struct LoadOptions {
  std::vector<std::string> allowed_paths;  ///< folders that paths may lead to beside the rule file's own
  std::string library_path;                ///< the folder of the shipped rules that `use std/NAME` names
  bool look_for_data = false;              ///< files of prompts, facts, directions and autoencoders must be there
};

/// The declarations that say something else than their text does, because part of it is wrong.
struct Unsound {
  std::set<PromptsId> prompts;
  std::set<FeatureId> features;
  std::set<EditId> edits;
  std::set<CircuitId> circuits;
};

/// Rule files as far as they are right, and all that is wrong with them. Rules and checks hold those of their
/// sentences and expectations that are sound; what these name may be among the `unsound`.
struct CheckedParts {
  RuleSet rules;
  Unsound unsound;
  std::vector<Diagnostic> diagnostics;

  /// The rule set where nothing is wrong.
  Outcome<RuleSet> whole() &&;
};

/// Reads rule files, follows what they `use` and checks everything that needs no model. Each file sees its own
/// names and those it uses; files given together may not declare rules, edits or checks of one name. A file that
/// is not there is a diagnostic (`unreadable-file`), as is everything else that is wrong: all of them are returned,
/// in the order of files and lines. One file given twice is read once.
Outcome<RuleSet> check_files(SourceSet& sources, const std::vector<std::string>& paths,
                             const LoadOptions& options = {});
CheckedParts check_file_parts(SourceSet& sources, const std::vector<std::string>& paths,
                              const LoadOptions& options = {});

/// The same over texts already in `sources` (an editor's buffers, a test's). A `use` finds a text there before
/// it looks on the disk.
Outcome<RuleSet> check_sources(SourceSet& sources, const std::vector<SourceId>& files, const LoadOptions& options = {});
CheckedParts check_source_parts(SourceSet& sources, const std::vector<SourceId>& files,
                                const LoadOptions& options = {});

/// The same over files that `resolve` (dsl/resolve.hpp) has read already, with what it found: for who needs their names
/// as well as what they say.
struct Module;
CheckedParts check_modules(const SourceSet& sources, const std::vector<Module>& modules, const LoadOptions& options,
                           std::vector<Diagnostic> found);

/// Diagnostics of several stages in the order of files and lines.
void sort_by_place(std::vector<Diagnostic>& diagnostics);

/// The interventions of `rules`, and of an effect's `change` where there is one, in force together, that ask one
/// feature at one site for unequal targets at positions that are sure to exist (`must_meet`: both unconditional, or one
/// condition within the other, or two ranges of positions or of one feature's values that overlap).
/// `check` has asked this of every rule and of what each check is `under`; who puts other rules in force together asks
/// again.
std::vector<Diagnostic> contradictions(const RuleSet& rule_set, const std::vector<RuleId>& rules,
                                       const Change* change = nullptr);

/// The sets that a feature is built from.
std::vector<PromptsId> built_from(const FeatureDecl& feature);

/// Whether two sets are known to share a text before files are read: they are one set, one file read the same way, or
/// lists that do.
bool share_texts(const RuleSet& rule_set, PromptsId a, PromptsId b);

/// What a feature was built from it separates by construction. `code` is `measured_on_training` or `auroc_on_training`.
/// `check` says it of what `share_texts` tells; who has read the files says it of the rest.
Diagnostic built_from_these(Code code, Span span, const FeatureDecl& feature, const PromptsDecl& measured);

}  // namespace proviso::dsl
