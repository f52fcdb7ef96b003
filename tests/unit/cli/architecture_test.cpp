#include <catch2/catch.hpp>
#include <cstdlib>

TEST_CASE("docs/architecture.md names what is there, and nothing else") {
  CHECK(std::system("'" PROVISO_SOURCE_DIR "/scripts/check-architecture'") == 0);
}
