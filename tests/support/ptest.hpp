#pragma once

// Golden tests as text files. A `*.ptest` pins one behaviour whole: its inputs and everything the program
// says about them. It is a sequence of sections, each opened by a line of at least three dashes:
//
//   What the test shows, in a sentence or two.
//
//   --- file: capitals.proviso
//   prompts calm = [ "Hello" ]
//   --- option: as-of
//   2027-03-31
//   --- expect: diagnostics
//   capitals.proviso:1:1: warning[…]: …
//   --- expect: report
//   value: 0.7391 ~1e-3
//
// - Text before the first section describes the test and is kept.
// - `file: PATH` is an input: a rule file, a prompt file, … in the order written.
// - `option: NAME` is a setting of the runner's own; its text is trimmed.
// - `expect: NAME` is one output of the program, compared whole. A runner that produces an output which the
//   file does not name, unless that is empty, fails; so does one that does not produce a named one.
// - A line of an input that itself begins with three dashes is written with a backslash before it: `\---`.
// - In an expectation a number may carry a tolerance: `0.7391 ~1e-3` accepts what differs from it by at most
//   0.001, `33.4 ~5%` what differs by at most 5 % of it. `<…>` accepts any text without spaces up to what follows
//   it. Everything else is literal.
//
// `PROVISO_UPDATE_GOLDEN=1` writes what the program said in place of the expectations that do not hold
// (tolerances of lines that still hold are kept); it is refused where `CI` is set.
//
// A test program makes each file one Catch2 section:
//
//   TEST_CASE("parse goldens") {
//     test::for_each_ptest("tests/golden/parse", [](const test::Ptest& golden) -> test::Sections {
//       return {{"diagnostics", diagnostics_of(golden.file("a.proviso"))}};
//     });
//   }

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace proviso::test {

/// Named texts, in order.
using Sections = std::vector<std::pair<std::string, std::string>>;

struct Ptest {
  std::string path;  ///< of the `.ptest` itself
  std::string description;
  Sections files;
  Sections options;
  Sections expected;

  const std::string& file(std::string_view name) const;  ///< fails the test where there is none
  std::string option(std::string_view name, std::string_view otherwise = "") const;
};

Ptest parse_ptest(std::string path, std::string_view text);
std::string to_text(const Ptest& test);

/// Whether a produced line is what an expected one, with its tolerances, asks for.
bool line_matches(std::string_view expected, std::string_view produced);

/// "" where `produced` is as expected; else the lines that differ, for a person.
std::string difference(std::string_view expected, std::string_view produced);

/// `expected` with every line that does not match replaced by what was produced.
std::string updated(std::string_view expected, std::string_view produced);

using Runner = std::function<Sections(const Ptest&)>;

/// Runs every `*.ptest` below a folder of the repository, each as a section of the calling test case.
/// A folder without any fails: a golden test that finds no goldens pins nothing.
void for_each_ptest(std::string_view folder, const Runner& run);

}  // namespace proviso::test
