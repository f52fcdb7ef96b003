#include "dsl/grammar.hpp"

#include <catch2/catch.hpp>
#include <tao/pegtl/contrib/analyze.hpp>

TEST_CASE("the grammar has no rule that can loop without progress") {
  CHECK(tao::pegtl::analyze<proviso::dsl::grammar::file>() == 0);
  CHECK(tao::pegtl::analyze<proviso::dsl::grammar::lone_site>() == 0);
}
