#include "dsl/prompt_file.hpp"

#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <vector>

#include "dsl/record_file.hpp"
#include "dsl/utf8.hpp"

namespace proviso::dsl {
namespace {

PromptFile file(const std::string& path) {
  PromptFile result;
  result.path = path;
  return result;
}

std::string said(const Outcome<std::vector<Prompt>>& outcome) {
  return outcome.diagnostics.empty()
             ? ""
             : std::string(slug(outcome.diagnostics.front().code)) + ": " + outcome.diagnostics.front().message;
}

std::vector<std::string> texts(const Outcome<std::vector<Prompt>>& outcome) {
  INFO(said(outcome));
  REQUIRE(outcome.value);
  std::vector<std::string> result;
  for (const Prompt& prompt : *outcome.value) result.push_back(prompt.text);
  return result;
}

std::string numbered(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += std::to_string(i) + "\n";
  return text;
}

}  // namespace

TEST_CASE("prompt files: the ending says the format, in any case") {
  CHECK(record_format("a.txt") == RecordFormat::text);
  CHECK(record_format("a.b/c.JSONL") == RecordFormat::json_lines);
  CHECK(record_format("a.ndjson") == RecordFormat::json_lines);
  CHECK(record_format("a.json") == RecordFormat::json);
  CHECK(record_format("a.Csv") == RecordFormat::csv);
  CHECK_FALSE(record_format("a.tsv"));
  CHECK_FALSE(record_format("a.txt/b"));
  CHECK_FALSE(record_format("txt"));
}

TEST_CASE("prompt files: byte order marks and line breaks of other systems") {
  CHECK(texts(read_prompt_file(file("a.txt"), "\xef\xbb\xbfone\r\ntwo\r\n")) == std::vector<std::string>{"one", "two"});
  CHECK(texts(read_prompt_file(file("a.csv"), "\xef\xbb\xbfp\r\none\r\n\"tw\"\"o\"")) ==
        std::vector<std::string>{"one", "tw\"o"});
}

TEST_CASE("prompt files: what is wrong is said with its line") {
  CHECK(said(read_prompt_file(file("d/a.txt"), "one\ntw\xff\n")) ==
        "prompt-file-syntax: d/a.txt, line 2: these bytes are not UTF-8");
  CHECK(said(read_prompt_file(file("a.json"), "[\n\"one\",\n]")) ==
        "prompt-file-syntax: a.json, line 3: this is not JSON");
  CHECK(said(read_prompt_file(file("a.jsonl"), "\"one\"\n\n{")) ==
        "prompt-file-syntax: a.jsonl, line 3: this is not JSON");
  const std::string deep(1'000'000, '[');
  CHECK(said(read_prompt_file(file("a.json"), deep)).starts_with("prompt-file-syntax"));
}

TEST_CASE("prompt files: larger ones than 64 MiB are refused unread") {
  const std::string bytes(kMaxRecordFileBytes + 1, 'x');
  CHECK(said(read_prompt_file(file("a.txt"), bytes)).starts_with("prompt-file-too-large"));
}

TEST_CASE("prompt files: draws depend on the seed alone, keep the file's order and are without replacement") {
  PromptFile drawn = file("a.txt");
  drawn.take = 100;
  drawn.seed = 7;
  const auto first = texts(read_prompt_file(drawn, numbered(1000)));
  CHECK(first.size() == 100);
  CHECK(std::set<std::string>(first.begin(), first.end()).size() == 100);
  for (std::size_t i = 1; i < first.size(); ++i) CHECK(std::stoi(first[i - 1]) < std::stoi(first[i]));
  CHECK(texts(read_prompt_file(drawn, numbered(1000))) == first);

  drawn.seed = 8;
  CHECK(texts(read_prompt_file(drawn, numbered(1000))) != first);
  CHECK(texts(read_prompt_file(drawn, numbered(50))).size() == 50);

  // Over many seeds every text is drawn about as often: 5 of 20 is a quarter of 4,000 draws.
  std::vector<int> times(20);
  drawn.take = 5;
  for (std::uint64_t seed = 0; seed < 4000; ++seed) {
    drawn.seed = seed;
    for (const std::string& text : texts(read_prompt_file(drawn, numbered(20)))) ++times[std::stoi(text)];
  }
  for (const int count : times) CHECK((count > 880 && count < 1120));  // 4.4 standard deviations
}

TEST_CASE("utf8: what is no code point is found at its first byte") {
  CHECK_FALSE(invalid_utf8("plain, \u00e9, \u4e2d, \U0001F600"));
  CHECK_FALSE(invalid_utf8(""));
  CHECK(invalid_utf8("a\x80") == 1u);
  CHECK(invalid_utf8("ab\xc0\xaf") == 2u);        // overlong
  CHECK(invalid_utf8("\xed\xa0\x80") == 0u);      // a surrogate
  CHECK(invalid_utf8("\xf4\x90\x80\x80") == 0u);  // beyond U+10FFFF
  CHECK(invalid_utf8("abc\xe4\xb8") == 3u);       // cut short
}

}  // namespace proviso::dsl
