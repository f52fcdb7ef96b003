#include "dsl/fact_file.hpp"

#include <catch2/catch.hpp>
#include <string>

#include "dsl/prompt_file.hpp"

namespace proviso::dsl {
namespace {

PromptFile file(const std::string& path) {
  PromptFile result;
  result.path = path;
  return result;
}

const std::string kCounterFact = R"([
  {"case_id": 0, "requested_rewrite": {"prompt": "The mother tongue of {} is", "subject": "Danielle Darrieux",
    "target_new": {"str": "English", "id": "Q1860"}, "target_true": {"str": "French", "id": "Q150"}},
   "paraphrase_prompts": ["Danielle Darrieux, a native", "Danielle Darrieux spoke the language"],
   "neighborhood_prompts": ["The mother tongue of Colette is"]},
  {"case_id": 1, "requested_rewrite": {"prompt": "{} is located in", "subject": "The Space Needle",
    "target_new": {"str": "Rome"}, "target_true": {"str": "Seattle"}},
   "paraphrase_prompts": [], "neighborhood_prompts": []}
])";

std::vector<Fact> facts(const PromptFile& from, const std::string& bytes) {
  const auto outcome = read_fact_file(from, bytes);
  if (!outcome.value) FAIL(outcome.diagnostics.front().message);
  return *outcome.value;
}

std::string said(const PromptFile& from, const std::string& bytes) {
  const auto outcome = read_fact_file(from, bytes);
  REQUIRE_FALSE(outcome.value);
  return std::string(slug(outcome.diagnostics.front().code)) + ": " + outcome.diagnostics.front().message;
}

}  // namespace

TEST_CASE("fact files: CounterFact's records, with the space that it leaves out") {
  const auto read = facts(file("c.json"), kCounterFact);
  REQUIRE(read.size() == 2);
  CHECK(read[0].subject == "Danielle Darrieux");
  CHECK(read[0].prompt_template == "The mother tongue of {} is");
  CHECK(read[0].from == " French");
  CHECK(read[0].to == " English");
}

TEST_CASE("fact files: zsRE's questions become templates, and `answer` names another target") {
  const std::string line =
      R"({"subject": "Ivo", "src": "Where does Ivo live, Ivo?", "answers": ["Pisa", "Pisa, Italy"], "alt": "Rome"})";
  auto read = facts(file("z.jsonl"), line);
  REQUIRE(read.size() == 1);
  CHECK(read[0].prompt_template == "Where does {} live, Ivo?");
  CHECK_FALSE(read[0].from);
  CHECK(read[0].to == " Pisa");
  PromptFile other = file("z.jsonl");
  other.answer = "alt";
  CHECK(facts(other, line)[0].to == " Rome");
  CHECK(facts(other, line)[0].from == " Pisa");  // what holds now is the record's own answer
}

TEST_CASE("fact files: known facts take the whole prompt, and are written as they are unless `answer` names others") {
  const std::string line =
      R"({"known_id": 0, "subject": "Vinson Massif", "attribute": "Antarctica", "template": "{} is in the continent",
          "prediction": " of Antarctica", "prompt": "Vinson Massif is in the continent of", "other": " Asia"})";
  const auto read = facts(file("k.json"), "[" + line + "]");
  REQUIRE(read.size() == 1);
  CHECK(read[0].prompt_template == "{} is in the continent of");
  CHECK(read[0].to == " Antarctica");
  CHECK_FALSE(read[0].from);
  PromptFile other = file("k.json");
  other.answer = "other";
  CHECK(facts(other, "[" + line + "]")[0].to == " Asia");
  CHECK(facts(other, "[" + line + "]")[0].from == " Antarctica");
  CHECK(said(file("k.json"), R"([{"subject": "A", "attribute": "b", "prompt": "It is in"}])").find("does not name") !=
        std::string::npos);
}

TEST_CASE("fact files: ours are taken as written") {
  const auto read = facts(file("f.csv"),
                          "subject,template,from,to\nBig Ben,The {} is in,\" London\",\" Rome\"\n"
                          "Ivo,\"Yes, {} is\",,here\n");
  REQUIRE(read.size() == 2);
  CHECK(read[0].from == " London");
  CHECK(read[1].prompt_template == "Yes, {} is");
  CHECK_FALSE(read[1].from);
  CHECK(read[1].to == "here");
}

TEST_CASE("fact files: what is wrong is said with its place") {
  CHECK(said(file("f.json"), R"([{"subject": "A", "template": "{} is", "to": " b"}, {"subjct": "A"}])") ==
        "prompt-file-field: f.json, item 2: no field `subject`");
  CHECK(said(file("f.json"), R"([{"subject": "A", "template": "It is", "to": " b"}])")
            .starts_with("template-slot: f.json, item 1"));
  CHECK(said(file("f.json"), R"([{"subject": "A", "template": "{} is", "from": " b", "to": " b"}])")
            .starts_with("same-sides: f.json, item 1"));
  CHECK(said(file("f.jsonl"), "\n\"text\"\n").starts_with("prompt-file-field: f.jsonl, line 2"));
  CHECK(said(file("f.json"), R"([{"subject": "A", "src": "Who is B?", "answers": ["C"]}])")
            .starts_with("template-slot: f.json, item 1"));
  CHECK(said(file("f.json"), R"([{"subject": "A", "src": "Who is A?", "answers": []}])")
            .starts_with("prompt-file-field: f.json, item 1"));
}

TEST_CASE("prompts beside the facts: lists of texts, fields within fields, and draws of the same records") {
  PromptFile paraphrases = file("c.json");
  paraphrases.field = "paraphrase_prompts";
  paraphrases.answer = "requested_rewrite.target_new.str";
  paraphrases.take = 1;
  const auto outcome = read_prompt_file(paraphrases, kCounterFact);
  REQUIRE(outcome.value);
  REQUIRE(outcome.value->size() == 2);
  CHECK((*outcome.value)[1].text == "Danielle Darrieux spoke the language");
  CHECK((*outcome.value)[1].answers == std::vector<std::string>{" English"});
  CHECK((*outcome.value)[0].cluster == (*outcome.value)[1].cluster);
  CHECK_FALSE((*outcome.value)[0].cluster.empty());

  paraphrases.answer = "requested_rewrite.target_nwe.str";
  const auto wrong = read_prompt_file(paraphrases, kCounterFact);
  REQUIRE_FALSE(wrong.value);
  CHECK(wrong.diagnostics.front().message == "c.json, item 1: no field `target_nwe.str`");
}

}  // namespace proviso::dsl
