// tests/golden/parse: what reading says of a text, and the canonical form of one without an error. With
// `option: escapes`, `\xHH` in an input is a byte and `\repeat{N}{TEXT}` is TEXT, N times; with `option: json`
// the diagnostics are also rendered for editors.

#include <catch2/catch.hpp>
#include <string>

#include "dsl/format.hpp"
#include "dsl/parse.hpp"
#include "dsl/render.hpp"
#include "tests/support/ptest.hpp"

namespace proviso::dsl {
namespace {

std::string unescaped(const std::string& text) {
  const std::string kByte = "\\x", kRepeat = "\\repeat{";
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (text.compare(i, kByte.size(), kByte) == 0) {
      out += static_cast<char>(std::stoi(text.substr(i + 2, 2), nullptr, 16));
      i += 4;
    } else if (text.compare(i, kRepeat.size(), kRepeat) == 0) {
      const std::size_t count_end = text.find('}', i), end = text.find('}', count_end + 1);
      const std::size_t count = std::stoul(text.substr(i + kRepeat.size(), count_end - i - kRepeat.size()));
      const std::string piece = unescaped(text.substr(count_end + 2, end - count_end - 2));
      for (std::size_t n = 0; n < count; ++n) out += piece;
      i = end + 1;
    } else {
      out += text[i++];
    }
  }
  return out;
}

TEST_CASE("reading a rule file", "[golden]") {
  test::for_each_ptest("tests/golden/parse", [](const test::Ptest& golden) -> test::Sections {
    SourceSet sources;
    std::vector<Diagnostic> diagnostics;
    std::string formatted;
    for (const auto& [name, text] : golden.files) {
      const SourceId id = sources.add(name, golden.option("escapes").empty() ? text : unescaped(text));
      const Parsed parsed = parse(sources, id);
      if (parsed.diagnostics.empty()) formatted += format(parsed.file, sources);
      diagnostics.insert(diagnostics.end(), parsed.diagnostics.begin(), parsed.diagnostics.end());
    }
    test::Sections produced = {{"diagnostics", render_text(diagnostics, sources)}};
    if (!golden.option("json").empty()) produced.emplace_back("json", render_json(diagnostics, sources));
    produced.emplace_back("formatted", formatted);
    return produced;
  });
}

}  // namespace
}  // namespace proviso::dsl
