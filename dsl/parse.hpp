#pragma once

#include <string>
#include <vector>

#include "dsl/ast.hpp"
#include "dsl/diagnostic.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl {

/// What could be read of a file, and what could not. `file` holds every declaration that was read to
/// its end, so that `check` can report on those too; a file with an error must go no further than that.
struct Parsed {
  ast::File file;
  std::vector<Diagnostic> diagnostics;
  std::vector<std::string> lost;  ///< names of declarations that could not be read
  bool lost_use = false;          ///< a `use`, or the whole text, could not be read: nobody knows what it names
};

/// Reads one rule file. After an error, reading resumes at the next declaration word in column 1.
/// Never throws and takes time linear in the text, whatever the text.
Parsed parse(const SourceSet& sources, SourceId source);

}  // namespace proviso::dsl
