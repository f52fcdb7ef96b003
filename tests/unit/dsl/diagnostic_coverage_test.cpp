#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "dsl/diagnostic.hpp"

namespace proviso::dsl {
namespace {

std::string all_goldens() {
  std::string text;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(PROVISO_SOURCE_DIR "/tests/golden")) {
    if (entry.path().extension() != ".ptest") continue;
    std::ifstream file(entry.path(), std::ios::binary);
    text.append(std::istreambuf_iterator<char>(file), {});
  }
  return text;
}

constexpr Code kCodes[] = {
#define PROVISO_DIAGNOSTIC(name, slug, severity, explanation) Code::name,
#include "dsl/diagnostic_codes.def"
#undef PROVISO_DIAGNOSTIC
};

TEST_CASE("every diagnostic is shown by a golden") {
  const std::string goldens = all_goldens();
  std::string missing;
  for (const Code code : kCodes) {
    const std::string shown = "[" + std::string(slug(code)) + "]: ";
    if (goldens.find(shown) == std::string::npos) missing += "  " + std::string(slug(code)) + "\n";
  }
  INFO("no *.ptest below tests/golden shows:\n" << missing);
  CHECK(missing.empty());
}

TEST_CASE("every diagnostic has a slug of its own and an explanation with an example") {
  for (const Code code : kCodes) {
    INFO(slug(code));
    CHECK(code_from_slug(slug(code)) == code);
    CHECK(slug(code).find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string_view::npos);
    CHECK(explanation(code).size() > 40);
    CHECK(explanation(code).find('\n') != 0);
    CHECK(explanation(code).find("\n    ") != std::string_view::npos);
  }
  CHECK_FALSE(code_from_slug("no-such-code"));
}

}  // namespace
}  // namespace proviso::dsl
