#include "tests/support/ptest.hpp"

#include <catch2/catch.hpp>

namespace proviso::test {
namespace {

TEST_CASE("a golden is read into its sections and written back as it was") {
  const std::string text =
      "What it shows.\n--- file: a.proviso\nrule r { }\n\\--- not a section\n--- option: as-of\n2027-03-31\n--- "
      "expect: report\nvalue: 1\n";
  const Ptest test = parse_ptest("x.ptest", text);
  CHECK(test.description == "What it shows.\n");
  CHECK(test.file("a.proviso") == "rule r { }\n--- not a section\n");
  CHECK(test.option("as-of") == "2027-03-31");
  CHECK(test.option("other", "none") == "none");
  CHECK(test.expected.at(0).second == "value: 1\n");
  CHECK(to_text(test) == text);
  CHECK_THROWS(parse_ptest("x.ptest", "--- nonsense\n"));
  CHECK_THROWS(parse_ptest("x.ptest", "--- file: a\n--- file: a\n"));
  CHECK_THROWS(test.file("b"));
}

TEST_CASE("numbers match within their tolerance only") {
  CHECK(line_matches("p: 0.7391 ~1e-3", "p: 0.7399"));
  CHECK_FALSE(line_matches("p: 0.7391 ~1e-3", "p: 0.7402"));
  CHECK(line_matches("[0.5 ~0.1, -2 ~5%]", "[0.55, -2.09]"));
  CHECK_FALSE(line_matches("[0.5 ~0.1, -2 ~5%]", "[0.55, -2.2]"));
  CHECK_FALSE(line_matches("p: 0.5 ~0.1", "p: nan"));
  CHECK_FALSE(line_matches("p: 0.5 ~0.1", "p: none"));
  CHECK_FALSE(line_matches("p: 0.5", "p: 0.50"));
  CHECK(line_matches("sha: <…>, n: 3", "sha: 1234ab, n: 3"));
  CHECK_FALSE(line_matches("sha: <…>, n: 3", "sha: , n: 3"));
  CHECK_FALSE(line_matches("a", "ab"));
}

TEST_CASE("rewriting keeps the lines that still hold") {
  CHECK(updated("a: 1 ~0.5\nb: 2\n", "a: 1.2\nb: 3\n") == "a: 1 ~0.5\nb: 3\n");
  CHECK(updated("a: 1 ~0.5\n", "new\na: 1.2\n") == "new\na: 1 ~0.5\n");
  CHECK(updated("gone\n", "") == "");
  CHECK(difference("a: 1 ~0.5\n", "a: 1.2\n").empty());
  CHECK_FALSE(difference("a\n", "a\nb\n").empty());
}

}  // namespace
}  // namespace proviso::test
