#include "dsl/fix.hpp"

#include <algorithm>
#include <tuple>

namespace proviso::dsl {

FixedText make_safe_fixes(const SourceSet& sources, SourceId source, const std::vector<Diagnostic>& diagnostics) {
  std::vector<FixedText::Made> wanted;
  for (const Diagnostic& diagnostic : diagnostics) {
    const auto safe = std::find_if(diagnostic.fixes.begin(), diagnostic.fixes.end(),
                                   [&](const Fix& fix) { return fix.safe && fix.span.source == source; });
    if (safe != diagnostic.fixes.end()) wanted.push_back({diagnostic.code, *safe});
  }
  std::stable_sort(wanted.begin(), wanted.end(), [](const FixedText::Made& a, const FixedText::Made& b) {
    return std::tie(a.fix.span.begin, a.fix.span.end) < std::tie(b.fix.span.begin, b.fix.span.end);
  });

  const std::string& text = sources.at(source).text;
  FixedText fixed;
  std::size_t copied = 0;
  for (FixedText::Made& each : wanted) {
    const Span span = each.fix.span;
    // Two that touch would leave open which comes first.
    const bool apart = fixed.made.empty() || span.begin > fixed.made.back().fix.span.end;
    if (!apart || span.end > text.size()) continue;
    fixed.text.append(text, copied, span.begin - copied).append(each.fix.replacement);
    copied = span.end;
    fixed.made.push_back(std::move(each));
  }
  fixed.text.append(text, copied);
  return fixed;
}

}  // namespace proviso::dsl
