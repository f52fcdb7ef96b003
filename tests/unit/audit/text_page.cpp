#include "audit/text_page.hpp"

#include <catch2/catch.hpp>
#include <sstream>
#include <string>

namespace proviso::audit {
namespace {

std::size_t widest_line(const std::string& text) {
  std::size_t widest = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) widest = std::max(widest, display_width(line));
  return widest;
}

}  // namespace

TEST_CASE("What could steer a terminal is shown, not obeyed") {
  CHECK(harmless("\x1b[31mred\x07") == "\\x1b[31mred\\x07");
  CHECK(harmless("two\nlines\t\r") == "two\\nlines\\t\\x0d");
  CHECK(harmless("a\u202eb\u2066\u0085\ufeff") == "a\\u202eb\\u2066\\x85\\ufeff");
  CHECK(harmless("naïve 日本 …") == "naïve 日本 …");
  CHECK(harmless("\x9b") == "\\x9b");

  TextPage page(80, true);
  page.line(0, {{"\x1b[2J", Style::bad}});
  page.labelled(0, "label", {"\x1b[2J"});
  page.table(0, {{"a"}}, {{{"\x1b[2J"}}});
  CHECK(page.take().find("\x1b[2J") == std::string::npos);
}

TEST_CASE("Width counts columns, not bytes") {
  CHECK(display_width("naïve…") == 6);
  CHECK(display_width("日本") == 4);
  CHECK(shortened("日本語", 5) == "日本…");
  CHECK(shortened("abcdef", 4) == "abc…");
  CHECK(shortened("abcd", 4) == "abcd");
}

TEST_CASE("Nothing runs over the edge") {
  for (const std::size_t columns : {0, 40, 57, 80, 120}) {
    TextPage page(columns, false);
    page.line(2, {{"status"}, {std::string(200, 'x')}, {"and some more words after it"}});
    page.labelled(4, "label", {"a " + std::string(150, 'y') + " of words and then many more words to fill the lines"});
    page.table(2, {{"first"}, {"second", false, true}, {"third", true, false, true}, {"fourth", false, true, true}},
               {{{"fixed"}, {std::string(60, 'z')}, {"12345678"}, {std::string(60, 'w')}}});
    CHECK(widest_line(page.take()) <= std::max<std::size_t>(columns, 40));
  }
}

TEST_CASE("A table aligns, drops what is spare and what is empty") {
  TextPage page(40, false);
  page.table(0, {{"name", false, true}, {"empty"}, {"n", true}, {"spare", false, false, true}},
             {{{"short"}, {""}, {"7"}, {std::string(30, 's')}}, {{"a name that is long"}, {""}, {"1234"}, {""}}});
  CHECK(page.take() ==
        "name                    n\n"
        "short                   7\n"
        "a name that is long  1234\n");
}

TEST_CASE("Colour is asked for") {
  TextPage plain(80, false), coloured(80, true);
  for (TextPage* page : {&plain, &coloured}) page->line(0, {{"fail", Style::bad}, {"name"}});
  CHECK(plain.take() == "fail  name\n");
  CHECK(coloured.take() == "\x1b[1;31mfail\x1b[0m  name\n");
}

}  // namespace proviso::audit
