// Whatever the text: reading it, showing what is wrong with it and formatting it neither crash nor hang, and a
// file without an error means the same once formatted, and formats the same again.
//
// The goldens are a corpus: fuzz_parse -max_total_time=60 CORPUS tests/golden/parse

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "dsl/format.hpp"
#include "dsl/parse.hpp"
#include "dsl/render.hpp"
#include "dsl/site.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace proviso::dsl;
  SourceSet sources;
  const Parsed read = parse(sources, sources.add("a.proviso", std::string(reinterpret_cast<const char*>(bytes), size)));
  render_text(read.diagnostics, sources);
  render_json(read.diagnostics, sources);
  parse_site(std::string_view(reinterpret_cast<const char*>(bytes), size));
  if (!read.diagnostics.empty()) return 0;
  const std::string formatted = format(read.file, sources);
  const Parsed again = parse(sources, sources.add("formatted", formatted));
  require(again.diagnostics.empty());
  require(again.file == read.file);
  require(format(again.file, sources) == formatted);
  return 0;
}
