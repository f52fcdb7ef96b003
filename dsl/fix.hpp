#pragma once

#include <string>
#include <vector>

#include "dsl/diagnostic.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl {

/// A text with fixes made in it, and which: pairs of a diagnostic and its fix, in the order of the text.
struct FixedText {
  struct Made {
    Code code;
    Fix fix;
  };
  std::string text;
  std::vector<Made> made;
};

/// The text of `source` with the safe fixes of its diagnostics made. Of fixes that overlap the first is made; the
/// others wait until the text is read again, since what they cure may have gone.
FixedText make_safe_fixes(const SourceSet& sources, SourceId source, const std::vector<Diagnostic>& diagnostics);

}  // namespace proviso::dsl
