#include "dsl/source.hpp"

#include <catch2/catch.hpp>

#include "dsl/diagnostic.hpp"

namespace proviso::dsl {
namespace {

TEST_CASE("positions count lines and code points from 1") {
  SourceSet sources;
  const SourceId id = sources.add("a", "x\né日b\n");
  const auto at = [&](std::uint32_t offset) {
    const Position position = sources.position(id, offset);
    return std::pair(position.line, position.column);
  };
  CHECK(at(0) == std::pair<std::size_t, std::size_t>(1, 1));
  CHECK(at(1) == std::pair<std::size_t, std::size_t>(1, 2));
  CHECK(at(2) == std::pair<std::size_t, std::size_t>(2, 1));
  CHECK(at(4) == std::pair<std::size_t, std::size_t>(2, 2));
  CHECK(at(7) == std::pair<std::size_t, std::size_t>(2, 3));
  CHECK(at(9) == std::pair<std::size_t, std::size_t>(3, 1));
  CHECK(at(1000) == std::pair<std::size_t, std::size_t>(3, 1));
}

TEST_CASE("lines are given without their breaks") {
  SourceSet sources;
  const Source& source = sources.at(sources.add("a", "one\r\ntwo\n"));
  CHECK(source.line(1) == "one");
  CHECK(source.line(2) == "two");
  CHECK(source.line(3).empty());
  CHECK(source.line(0).empty());
  CHECK(source.line(4).empty());
}

TEST_CASE("a span's text ends with the source") {
  SourceSet sources;
  const SourceId id = sources.add("a", "text");
  CHECK(sources.text({id, 1, 3}) == "ex");
  CHECK(sources.text({id, 2, 100}) == "xt");
  CHECK(sources.text({id, 100, 200}).empty());
}

TEST_CASE("a misspelt name finds its nearest") {
  const std::vector<std::string> names = {"prompts", "feature", "rule", "check"};
  CHECK(nearest_name("promts", names) == "prompts");
  CHECK(nearest_name("cehck", names) == "check");
  CHECK(nearest_name("featrue", names) == "feature");
  CHECK_FALSE(nearest_name("circuit", names));
  CHECK_FALSE(nearest_name("", {}));
}

}  // namespace
}  // namespace proviso::dsl
