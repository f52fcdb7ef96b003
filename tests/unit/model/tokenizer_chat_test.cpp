#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/tokenizer/tokenizer.hpp"
#include "tests/support/temporary_folder.hpp"

using proviso::model::apply_chat_template;
using proviso::model::ChatMessage;
using proviso::model::InputError;
using proviso::model::Tokenizer;

namespace {

const std::string kFixtures = PROVISO_SOURCE_DIR "/tests/parity/tokenizer/";

// A model folder whose tokenizer has this chat template.
std::shared_ptr<const Tokenizer> tokenizer_with(const nlohmann::json& chat_template, const nlohmann::json& special) {
  const proviso::test::TemporaryFolder folder;
  std::filesystem::copy(kFixtures + "small/gpt2/tokenizer.json", folder / "tokenizer.json");
  nlohmann::json config = special;
  config["chat_template"] = chat_template;
  std::ofstream(folder / "tokenizer_config.json") << config;
  return Tokenizer::load(folder.path());
}

std::string render(const std::string& source) {
  return apply_chat_template(*tokenizer_with(source, {{"bos_token", "<s>"}}), {{"user", "Hi"}, {"assistant", "Ho"}});
}

}  // namespace

TEST_CASE("chat templates give transformers' prompts", "[tokenizer][chat][parity]") {
  std::ifstream file(kFixtures + "chat.json");
  const auto fixture = nlohmann::json::parse(file);
  for (const auto& test : fixture["cases"]) {
    const auto tokenizer = tokenizer_with(test["template"], fixture["special"]);
    for (std::size_t i = 0; i < test["prompts"].size(); ++i) {
      INFO(test["name"] << ", conversation " << i);
      std::vector<ChatMessage> messages;
      for (const auto& message : fixture["conversations"][i]) messages.push_back({message[0], message[1]});
      if (test["prompts"][i].is_null()) {
        CHECK_THROWS_AS(apply_chat_template(*tokenizer, messages), InputError);
      } else {
        CHECK(apply_chat_template(*tokenizer, messages) == test["prompts"][i].get<std::string>());
      }
    }
  }
}

TEST_CASE("a model without a chat template says so", "[tokenizer][chat]") {
  const auto tokenizer = Tokenizer::load(kFixtures + "small/gpt2");
  CHECK_THROWS_WITH(apply_chat_template(*tokenizer, {{"user", "Hi"}}), Catch::Contains("has no chat template"));
}

TEST_CASE("the default of several named chat templates is taken", "[tokenizer][chat]") {
  const nlohmann::json templates = {{{"name", "tool_use"}, {"template", "tools"}},
                                    {{"name", "default"}, {"template", "{{ messages[0].content }}"}}};
  CHECK(apply_chat_template(*tokenizer_with(templates, nlohmann::json::object()), {{"user", "Hi"}}) == "Hi");
}

TEST_CASE("what a chat template uses beyond the known is refused by name", "[tokenizer][chat]") {
  const auto refusal = [](const std::string& source, const std::string& named) {
    INFO(source);
    CHECK_THROWS_AS(render(source), InputError);
    CHECK_THROWS_WITH(render(source), Catch::Contains(named));
  };
  refusal("{% macro f() %}{% endmacro %}", "'macro'");
  refusal("{{ messages | tojson }}", "'tojson'");
  refusal("{{ messages[0].content.title() }}", "'title'");
  refusal("{{ range(3) }}", "'range'");
  refusal("{{ 1 is divisibleby 2 }}", "2");
  refusal("{{ messages[0].content + 1 }}", "'+'");
  refusal("{{ nothing.member }}", "not defined");
  refusal("{% for m in messages %}", "endfor");
  refusal("{{ 'open", "not closed");
  refusal("{% if true %}{% endfor %}", "'endfor'");
  refusal("{{ raise_exception('roles must alternate') }}", "roles must alternate");
  // What has no use in a branch that is not taken does not matter.
  CHECK(render("{% if tools %}{{ tools | tojson }}{% endif %}{{ bos_token }}") == "<s>");
}

TEST_CASE("hostile chat templates end in an error", "[tokenizer][chat][hostile]") {
  const auto repeated = [](const std::string& text, int times) {
    std::string out;
    for (int i = 0; i < times; ++i) out += text;
    return out;
  };
  CHECK_THROWS_AS(render("{{ " + repeated("(", 100000)), InputError);
  CHECK_THROWS_AS(render("{{ " + repeated("not ", 400) + "true }}"), InputError);
  CHECK_THROWS_AS(render("{{ 1" + repeated(" + 1", 60000) + " }}"), InputError);
  CHECK_THROWS_AS(render(repeated("{% if true %}", 10000)), InputError);
  CHECK_THROWS_AS(render(repeated("{% if false %}{% elif true %}", 5000)), InputError);
  CHECK_THROWS_AS(render("{% set ns = namespace(x='ab') %}" + repeated("{% set ns.x = ns.x + ns.x %}", 60)),
                  InputError);
  CHECK_THROWS_AS(render(repeated("{% for m in messages %}", 40) + repeated("{% endfor %}", 40)), InputError);
  CHECK_THROWS_AS(render("{% set x = messages %}" + repeated("{% set x = x + x %}", 60)), InputError);
  CHECK_THROWS_AS(render("{{ 9223372036854775807 }}"), InputError);
  CHECK_THROWS_AS(render("{{ 999999999999999 * 999999999999999 }}"), InputError);
  CHECK_THROWS_AS(render("{{ 1 % 0 }}"), InputError);
}
