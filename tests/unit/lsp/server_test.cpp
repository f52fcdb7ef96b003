// The language server, as an editor drives it: every answer over the protocol's messages.

#include "lsp/server.hpp"

#include <algorithm>
#include <chrono>

#include "lsp/serve.hpp"
#include "tests/unit/lsp/editor.hpp"

namespace proviso::lsp {
namespace {

using Catch::Matchers::Contains;
using test::Editor;
using test::offers;

const std::string kSets =
    "prompts angry = [\"You idiot\", \"Go away\"]\nprompts calm = [\"Fine\"]\n"
    "feature anger \"How angry\" = contrast(angry, calm) at resid_post[3]\n";

Json position(int line, int character) { return {{"line", line}, {"character", character}}; }

std::string hovered(Editor& editor) {
  const Json result = editor.at_cursor("textDocument/hover").at("result");
  return result.is_null() ? "" : result.at("contents").at("value").get<std::string>();
}

}  // namespace

TEST_CASE("what is wrong with a buffer is told as it is typed, and gone once it is mended") {
  Editor editor;
  editor.write("a.proviso", "what is on the disk does not count");
  editor.open("a.proviso", kSets + "rule r { suppress agner }\n");
  REQUIRE(editor.codes("a.proviso") == std::vector<std::string>{"unknown-name"});
  const Json& found = editor.diagnostics_of("a.proviso")[0];
  CHECK(found.at("severity") == 1);
  CHECK(found.at("source") == "proviso");
  CHECK(found.at("range") == Json{{"start", position(3, 18)}, {"end", position(3, 23)}});
  CHECK_THAT(found.at("message").get<std::string>(), Contains("did you mean `anger`?"));

  const Json range = {{"start", position(3, 18)}, {"end", position(3, 23)}};
  editor.notify("textDocument/didChange", {{"textDocument", {{"uri", editor.uri("a.proviso")}, {"version", 2}}},
                                           {"contentChanges", Json::array({{{"range", range}, {"text", "anger"}}})}});
  CHECK(editor.codes("a.proviso").empty());

  editor.notify("textDocument/didChange", {{"textDocument", {{"uri", editor.uri("a.proviso")}, {"version", 3}}},
                                           {"contentChanges", Json::array({{{"text", "rul"}}})}});
  CHECK(editor.codes("a.proviso") == std::vector<std::string>{"unknown-declaration"});
  editor.notify("textDocument/didClose", {{"textDocument", {{"uri", editor.uri("a.proviso")}}}});
  CHECK(editor.codes("a.proviso").empty());
}

TEST_CASE("places are counted in UTF-16") {
  Editor editor;
  // U+1F600 takes two units, four bytes and one code point; é one, two and one.
  editor.open("a.proviso", "prompts p = [\"\U0001F600é\"]  check c { expect perplexity(zz) >= 1.5 }\n");
  REQUIRE(editor.codes("a.proviso") == std::vector<std::string>{"unknown-name"});
  CHECK(editor.diagnostics_of("a.proviso")[0].at("range").at("start") == position(0, 49));

  const Json range = {{"start", position(0, 49)}, {"end", position(0, 51)}};
  editor.notify("textDocument/didChange", {{"textDocument", {{"uri", editor.uri("a.proviso")}, {"version", 2}}},
                                           {"contentChanges", Json::array({{{"range", range}, {"text", "p"}}})}});
  CHECK(editor.codes("a.proviso").empty());
}

TEST_CASE("a place of a text is the byte that it came from") {
  std::string long_line(5000, 'x');
  for (std::size_t i = 0; i < long_line.size(); i += 7) long_line.replace(i, 1, "é\U0001F600");
  const Text text("ab\r\n" + long_line + "\nend");
  for (std::size_t at = 0; at <= text.str().size(); ++at) {
    const bool inside = at < text.str().size() && (static_cast<unsigned char>(text.str()[at]) & 0xC0) == 0x80;
    const bool in_break = at == 3;  // between CR and LF
    if (!inside && !in_break) REQUIRE(text.offset(text.position(at)) == at);
  }
  CHECK(text.offset(position(0, 99)) == 2);
  CHECK(text.offset(position(99, 0)) == text.str().size());
}

TEST_CASE("a file that is used is read from its buffer, and tells its users what it breaks") {
  Editor editor;
  editor.write("sets.proviso", "");
  editor.open("sets.proviso", kSets);
  editor.open("rules.proviso", "use \"sets.proviso\"\nrule r { suppress anger }\n");
  CHECK(editor.codes("rules.proviso").empty());
  editor.notify("textDocument/didChange", {{"textDocument", {{"uri", editor.uri("sets.proviso")}, {"version", 2}}},
                                           {"contentChanges", Json::array({{{"text", "prompts angry = [\"a\"]\n"}}})}});
  CHECK(editor.codes("rules.proviso") == std::vector<std::string>{"unknown-name"});
}

TEST_CASE("diagnostics name the other places that they speak of") {
  Editor editor;
  editor.open("a.proviso", "prompts p = [\"a\"]\nprompts p = [\"b\"]\n");
  const Json& related = editor.diagnostics_of("a.proviso")[0].at("relatedInformation");
  REQUIRE(related.size() == 1);
  CHECK(related[0].at("location").at("uri") == editor.uri("a.proviso"));
  CHECK(related[0].at("location").at("range").at("start") == position(0, 8));
}

TEST_CASE("hovering tells what stands there") {
  Editor editor;
  const auto [text, told] = GENERATE(table<std::string, std::string>({
      {"rule r { suppress an|ger }", "How angry"},
      {"rule r { supp|ress anger }", "becomes 0"},
      {"rule r { suppress anger at mlp_o|ut[*] }", "adds to the stream"},
      {"check c { expect perpl|exity(calm) <= 9 }", "exp of the total"},
      {"check c { expect mean(anger, o|n: [\"x\"]) <= 9 }", "on: P"},
      {"feature f = pro|be(angry, calm) at embed", "logistic regression"},
      {"rule r { suppress anger when prom|pt matches /x/ }", "never generated text"},
      {"rule r { supp|ress ", "becomes 0"},  // while it is being written
      {"prom|pts p = [\"x\"]", "expected continuations"},
  }));
  editor.open("a.proviso", kSets + text + "\n");
  CAPTURE(text);
  CHECK_THAT(hovered(editor), Contains(told));
  editor.open("a.proviso", kSets + "rule r { suppress anger } # he|re\n");
  CHECK(hovered(editor).empty());
}

TEST_CASE("what a model has is told and offered, and rules are checked against it when opened and saved") {
  ServerOptions options;
  options.model = "some";
  int checks = 0;
  options.open_model = [&](const std::string& path) {
    CHECK(path == "some");
    auto model = std::make_shared<ModelView>();
    model->name = "tiny";
    model->layers = 4;
    model->sites[dsl::SiteKind::mlp_out] = {64, 0, ""};
    model->sites[dsl::SiteKind::z] = {64, 8, ""};
    model->sites[dsl::SiteKind::resid_mid] = {0, 0, "attention and MLP run in parallel"};
    model->check = [&](const std::shared_ptr<const dsl::CheckedParts>& parts) {
      if (parts->rules.rules.empty()) return std::vector<dsl::Diagnostic>();
      ++checks;
      auto found = dsl::make_diagnostic(dsl::Code::missing_site, parts->rules.rules.at(0).span, "no such site");
      found.fixes = {{found.span, "renamed", /*safe=*/false}};
      return std::vector{found};
    };
    model->calibration = [](const std::shared_ptr<const dsl::RuleSet>& rules, const std::string& feature) {
      return feature + ", one of " + std::to_string(rules->features.size());
    };
    return model;
  };
  Editor editor(options);
  editor.open("a.proviso", kSets + "rule r { suppress anger at mlp_o|ut[*] }\n");
  CHECK(editor.codes("a.proviso") == std::vector<std::string>{"missing-site"});
  CHECK_THAT(hovered(editor), Contains("width 64") && Contains("layers 0 to 3"));
  const Json sites = editor.at_cursor("textDocument/completion");
  CHECK(offers(sites, "mlp_out"));
  CHECK_FALSE(offers(sites, "resid_mid"));
  editor.open("c.proviso", kSets + "feature f = neuron(1) at mlp_post[|");
  CHECK(offers(editor.at_cursor("textDocument/completion"), "3"));
  CHECK_FALSE(offers(editor.at_cursor("textDocument/completion"), "4"));
  editor.open("c.proviso", kSets + "feature f = contrast(angry, calm) at z[2] head |");
  CHECK(offers(editor.at_cursor("textDocument/completion"), "7"));

  editor.notify("textDocument/didChange",
                {{"textDocument", {{"uri", editor.uri("a.proviso")}, {"version", 2}}},
                 {"contentChanges", Json::array({{{"text", kSets + "rule r { suppress anger }\n"}}})}});
  CHECK(checks == 1);
  CHECK(editor.codes("a.proviso").empty());
  editor.notify("textDocument/didSave", {{"textDocument", {{"uri", editor.uri("a.proviso")}}}});
  CHECK(checks == 2);
  CHECK(editor.codes("a.proviso") == std::vector<std::string>{"missing-site"});

  editor.open("b.proviso", kSets + "rule r { suppress an|ger }\n");
  CHECK_THAT(hovered(editor), Contains("anger, one of 1"));

  // What is wrong with the text itself hides nothing of what is wrong on the model.
  editor.open("d.proviso", kSets + "rule r { suppress anger }\nrule s { suppress agner }\n");
  CHECK(editor.codes("d.proviso") == std::vector<std::string>{"unknown-name", "missing-site"});

  // What cures it on the model is offered, too.
  const Json everywhere = {{"start", {{"line", 0}, {"character", 0}}}, {"end", {{"line", 9}, {"character", 0}}}};
  const Json actions =
      editor.of_document("textDocument/codeAction", {{"range", everywhere}, {"context", Json::object()}}).at("result");
  CHECK(std::any_of(actions.begin(), actions.end(),
                    [](const Json& each) { return each["title"] == "Write `renamed` for `r`"; }));
}

TEST_CASE("a model that cannot be read is told, and everything else goes on") {
  ServerOptions options;
  options.model = "nowhere";
  options.open_model = [](const std::string&) -> std::shared_ptr<const ModelView> {
    throw std::runtime_error("there is no such file");
  };
  Editor editor(options);
  editor.open("a.proviso", kSets + "rule r { suppress agner }\n");
  CHECK(editor.codes("a.proviso") == std::vector<std::string>{"unknown-name"});
}

TEST_CASE("completion offers what can stand at the cursor") {
  Editor editor;
  std::filesystem::create_directories(editor.path("data"));
  editor.write("data/held.jsonl", "");
  editor.write("pack.proviso", "feature rage = neuron(1) at mlp_post[0]\n");
  struct Case {
    std::string text, offered, other;
  };
  const Case each = GENERATE(values<Case>({
      {"ru|", "rule", "anger"},
      {"rule r { | }", "suppress", "expect"},
      {"check c { | }", "expect", "suppress"},
      {"edit e { | }", "using", "severity"},
      {"rule r { suppress | }", "anger", "calm"},
      {"rule r { suppress an|", "anger", "calm"},
      {"rule r { suppress anger at | }", "mlp_out", "anger"},
      {"rule r { suppress anger at mlp_out[*], | }", "embed", "anger"},
      {"rule r { suppress anger when | }", "quantile", "calm"},
      {"rule r { suppress anger when anger > 1 and | }", "anger", "calm"},
      {"rule r { suppress anger when anger > quantile(99%, | }", "calm", "anger"},
      {"rule r { suppress anger when last anger > 1 fires on | }", "angry", "anger"},
      {"rule late { }\ncheck c { under | }", "attack", "anger"},
      {"rule late { suppress anger }\ncheck c { under rule | }", "late", "anger"},
      {"check c { expect | }", "auroc", "anger"},
      {"check c { expect auroc(| }", "anger", "calm"},
      {"check c { expect auroc(anger, | }", "calm", "anger"},
      {"check c { expect mean(anger, | }", "on: ", "calm"},
      {"check c { expect mean(anger, on: | }", "calm", "anger"},
      {"check c { expect rate(calm, generates: /x/, | }", "temperature: ", "generates: "},
      {"check c { expect effect(| }", "suppress", "calm"},
      {"check c { expect effect(suppress | }", "anger", "calm"},
      {"check c { expect effect(suppress anger, on: | }", "kl", "calm"},
      {"check c { severity | }", "critical", "stable"},
      {"check c { status | }", "experimental", "critical"},
      {"edit e { using | }", "rome", "auroc"},
      {"edit e { using rome(| }", "layer: ", "covariance_weight: "},
      {"edit e { using rome(variant: | }", "original", "anger"},
      {"feature f = | ", "contrast", "auroc"},
      {"feature f = contrast(| ", "angry", "anger"},
      {"feature f = contrast(angry, calm, zero: | ", "midpoint", "anger"},
      {"check known { }\nwaive | ", "known", "anger"},
      {"prompts p = from \"|", "data", "pack.rage"},
      {"prompts p = from \"data/|", "held.jsonl", "data"},
      {"use \"|", "pack.proviso", "anger"},
      {"use \"pack.proviso\" as pack\nrule r { suppress pack.r| }", "pack.rage", "calm"},
      {"use \"pack.proviso\" as pack\nrule r { suppress pack.| }", "pack.rage", "clamp"},
      {"rule r { suppress anger when anger > | }", "quantile", "clamp"},
      {"prompts p as | ", "chat", "anger"},
      {"prompts p = each who in [\"He\"] \"{w|", "who", "data"},
      {"check known { }\nwaive known until 2027-03-31 by \"me\" | ", "because", "anger"},
  }));
  editor.open("a.proviso", kSets + each.text + "\n");
  const Json answer = editor.at_cursor("textDocument/completion");
  CAPTURE(each.text, test::labels(answer));
  CHECK(offers(answer, each.offered));
  CHECK_FALSE(offers(answer, each.other));
}

TEST_CASE("completion offers the packs of the shipped library") {
  ServerOptions options;
  const proviso::test::TemporaryFolder library;
  proviso::test::write_bytes(library / "french/french.proviso", "");
  options.load.library_path = library.path().string();
  Editor editor(options);
  const std::string text = GENERATE("use |", "use s|", "use std/|", "use std/fr|");
  editor.open("a.proviso", text + "\n");
  CAPTURE(text);
  CHECK(offers(editor.at_cursor("textDocument/completion"), "std/french"));
}

TEST_CASE("completion replaces what is written of the word, and offers nothing in texts and comments") {
  Editor editor;
  editor.open("a.proviso", kSets + "rule r { suppress an|\n");
  const Json offered = editor.at_cursor("textDocument/completion");
  for (const Json& item : offered.at("result")) {
    CHECK(item.at("textEdit").at("range") == Json{{"start", position(3, 18)}, {"end", position(3, 20)}});
  }
  const std::string text =
      GENERATE("# sup|", "prompts p = [\"sup|\"]", "rule r { suppress anger when prompt matches /a|");
  editor.open("a.proviso", kSets + text + "\n");
  CAPTURE(text);
  CHECK(editor.at_cursor("textDocument/completion").at("result").empty());
}

TEST_CASE("a name leads to its declaration and to all its places, over files") {
  Editor editor;
  editor.write("sets.proviso", kSets);
  editor.write("other.proviso", "use \"sets.proviso\" as s\nrule other { steer s.anger by 2 }\n");
  editor.open("rules.proviso", "use \"sets.proviso\"\nrule r { suppress an|ger when anger > 1 }\n");
  const Json found = editor.at_cursor("textDocument/definition").at("result");
  CHECK(found.at("uri") == editor.uri("sets.proviso"));
  CHECK(found.at("range").at("start") == position(2, 8));

  const Json all =
      editor.at_cursor("textDocument/references", {{"context", {{"includeDeclaration", true}}}}).at("result");
  CHECK(all.size() == 4);  // the declaration, two here, one in a file that is not open
  const Json uses =
      editor.at_cursor("textDocument/references", {{"context", {{"includeDeclaration", false}}}}).at("result");
  CHECK(uses.size() == 3);

  editor.open("rules.proviso", "use \"se|ts.proviso\"\n");
  CHECK(editor.at_cursor("textDocument/definition").at("result").at("uri") == editor.uri("sets.proviso"));
  editor.open("rules.proviso", "rule r { suppress no|where }\n");
  CHECK(editor.at_cursor("textDocument/definition").at("result").is_null());
}

TEST_CASE("renaming changes a name wherever it stands, and nothing else") {
  Editor editor;
  editor.open("other.proviso", "use \"sets.proviso\" as s\nrule anger { steer s.anger by 2 }\n");
  editor.open("sets.proviso", kSets + "check anger { expect mean(anger, on: [\"anger\"]) >= 0.1 }\n");
  editor.open("rules.proviso", "use \"sets.proviso\"\nrule r { suppress an|ger when anger > 1 }  # anger\n");
  CHECK(editor.at_cursor("textDocument/prepareRename").at("result").at("start") == position(1, 18));
  const Json answer = editor.at_cursor("textDocument/rename", {{"newName", "rage"}});
  REQUIRE(answer.contains("result"));
  const Json& changes = answer.at("result").at("changes");
  CHECK(editor.edited("rules.proviso", changes.at(editor.uri("rules.proviso"))) ==
        "use \"sets.proviso\"\nrule r { suppress rage when rage > 1 }  # anger\n");
  CHECK(editor.edited("other.proviso", changes.at(editor.uri("other.proviso"))) ==
        "use \"sets.proviso\" as s\nrule anger { steer s.rage by 2 }\n");
  CHECK_THAT(editor.edited("sets.proviso", changes.at(editor.uri("sets.proviso"))),
             Contains("feature rage \"How angry\" = contrast(angry, calm)") &&
                 Contains("check anger { expect mean(rage, on: [\"anger\"]) >= 0.1 }"));
}

TEST_CASE("a rename that would break a file is refused, with why") {
  Editor editor;
  editor.open("a.proviso",
              kSets + "feature joy = contrast(calm, angry) at resid_post[3]\nrule r { suppress an|ger }\n");
  const auto refusal = [&](const std::string& name) {
    return editor.at_cursor("textDocument/rename", {{"newName", name}}).at("error").at("message").get<std::string>();
  };
  CHECK_THAT(refusal("rule"), Contains("word of the language"));
  CHECK_THAT(refusal("2nd"), Contains("is no name"));
  CHECK_THAT(refusal("joy"), Contains("declared already"));
  editor.open("a.proviso", kSets + "rule r { suppress an|ger }\nrule s { suppress anger by }\n");
  CHECK_THAT(refusal("rage"), Contains("mend them first"));
  editor.open("a.proviso", kSets + "rule r { sup|press anger }\n");
  CHECK_THAT(refusal("rage"), Contains("no name"));
  editor.write("pack.proviso", "feature rage = neuron(1) at mlp_post[0]\n");
  editor.open("a.proviso", "use \"pack.proviso\" as pack\nrule r { suppress pa|ck.rage }\n");
  CHECK(editor.at_cursor("textDocument/prepareRename").at("result").is_null());
  CHECK_THAT(refusal("p"), Contains("change it there"));
}

TEST_CASE("formatting gives the canonical text, of what can be read") {
  Editor editor;
  editor.open("a.proviso", kSets + "rule   r {suppress anger   by 80%}  # why\n");
  const Json edits = editor.of_document("textDocument/formatting").at("result");
  REQUIRE(edits.size() == 1);
  CHECK(edits[0].at("range").at("start").at("line") != 0);  // what is canonical already stays
  const std::string once = editor.edited("a.proviso", edits);
  CHECK_THAT(once, Contains("rule r { suppress anger by 80% }"));
  editor.open("a.proviso", once);
  CHECK(editor.of_document("textDocument/formatting").at("result").empty());
  editor.open("a.proviso", kSets + "rule   r { suppress }\n");
  CHECK(editor.of_document("textDocument/formatting").at("result").empty());
}

TEST_CASE("fixes are offered where they cure, and all safe ones at once") {
  Editor editor;
  editor.open("a.proviso", kSets + "rule r { suppress agner by 80 }\n");
  const Json everywhere = {{"start", position(0, 0)}, {"end", position(9, 0)}};
  const Json actions =
      editor.of_document("textDocument/codeAction", {{"range", everywhere}, {"context", Json::object()}}).at("result");
  const auto all =
      std::find_if(actions.begin(), actions.end(), [](const Json& each) { return each.at("kind") == "source.fixAll"; });
  REQUIRE(actions.size() == 3);
  REQUIRE(all != actions.end());
  CHECK_THAT(editor.edited("a.proviso", all->at("edit").at("changes").at(editor.uri("a.proviso"))),
             Contains("suppress anger by 80%"));
  const Json one = {{"start", position(3, 20)}, {"end", position(3, 20)}};
  const Json here =
      editor.of_document("textDocument/codeAction", {{"range", one}, {"context", Json::object()}}).at("result");
  CHECK(here[0].at("title") == "Write `anger` for `agner`");
  CHECK(here[0].at("isPreferred") == true);
}

TEST_CASE("the outline lists declarations, and what they say") {
  Editor editor;
  editor.open(
      "a.proviso",
      kSets + "rule r { suppress anger by 80%  steer anger by 2 }\nwaive c until 2027-01-01 by \"a\" because \"b\"\n");
  const Json symbols = editor.of_document("textDocument/documentSymbol").at("result");
  REQUIRE(symbols.size() == 5);
  CHECK(symbols[3].at("name") == "r");
  CHECK(symbols[3].at("detail") == "rule");
  CHECK(symbols[3].at("children").size() == 2);
  CHECK(symbols[3].at("children")[0].at("name") == "suppress anger by 80%");
}

TEST_CASE("semantic tokens tell names from words by what they stand for") {
  Editor editor;
  editor.open("a.proviso", "prompts take = [\"é\"]\nfeature layers = contrast(take, [\"b\"]) at resid_post[3]\n");
  const Json types = editor.capabilities.at("semanticTokensProvider").at("legend").at("tokenTypes");
  const Json data = editor.of_document("textDocument/semanticTokens/full").at("result").at("data");
  REQUIRE(data.size() % 5 == 0);
  std::vector<std::string> shown;
  int line = 0, character = 0;
  for (std::size_t i = 0; i < data.size(); i += 5) {
    character = data[i] == 0 ? character + data[i + 1].get<int>() : data[i + 1].get<int>();
    line += data[i].get<int>();
    shown.push_back(std::to_string(line) + ":" + std::to_string(character) + "+" + data[i + 2].dump() + " " +
                    types[data[i + 3].get<std::size_t>()].get<std::string>());
  }
  CHECK(shown == std::vector<std::string>{"0:0+7 keyword", "0:8+4 variable", "0:13+1 operator", "0:16+3 string",
                                          "1:0+7 keyword", "1:8+6 property", "1:15+1 operator", "1:17+8 function",
                                          "1:26+4 variable", "1:33+3 string", "1:39+2 keyword", "1:42+10 type",
                                          "1:53+1 number"});
}

TEST_CASE("no message makes the server fail") {
  Editor editor;
  editor.open("a.proviso", kSets);
  const auto code = [&](const Json& message) {
    const auto out = editor.server.receive(message);
    REQUIRE(out.size() == 1);
    return out[0].at("error").at("code").get<int>();
  };
  CHECK(code({{"jsonrpc", "2.0"}, {"id", 9}, {"method", "textDocument/nothing"}}) == -32601);
  CHECK(code({{"jsonrpc", "2.0"}, {"id", 9}, {"method", "textDocument/hover"}}) == -32602);
  CHECK(code({{"jsonrpc", "2.0"}, {"id", 9}, {"method", "textDocument/hover"}, {"params", 7}}) == -32602);
  CHECK(code({{"jsonrpc", "2.0"}, {"id", 9}, {"method", 7}}) == -32600);
  CHECK(code({{"jsonrpc", "2.0"}, {"id", 9}}) == -32600);
  CHECK(code({{"id", Json::array()}, {"method", "x"}}) == -32600);
  CHECK(code(Json::array()) == -32600);
  CHECK(code("text") == -32600);
  CHECK(code({{"id", 9}, {"method", "initialize"}, {"params", Json::object()}}) == -32600);
  CHECK(editor.server.receive({{"method", "textDocument/didOpen"}, {"params", {{"textDocument", 3}}}}).size() == 1);
  CHECK(editor.server.receive({{"method", "$/setTrace"}, {"params", {{"value", "off"}}}}).empty());
  CHECK(editor.server.receive({{"id", 1}, {"result", nullptr}}).empty());
  const Json outside = {{"textDocument", {{"uri", editor.uri("a.proviso")}}}, {"position", position(1000, 1000)}};
  for (const char* method : {"textDocument/hover", "textDocument/completion", "textDocument/definition",
                             "textDocument/references", "textDocument/prepareRename"}) {
    CHECK(editor.request(method, outside).contains("result"));
  }
  Server fresh({});
  CHECK(fresh.receive({{"id", 1}, {"method", "textDocument/hover"}, {"params", outside}})[0].at("error").at("code") ==
        -32002);
}

TEST_CASE("every request is answered at every place of a text cut short anywhere") {
  const std::string whole =
      kSets +
      "rule r \"t\" { cap anger at 1.5 at [mlp_out[*]] when not prompt matches /a\\/b/i fires on angry }\n"
      "check c { expect effect(suppress anger, on: rate(angry, generates: /x/)) <= -10% }\n";
  Editor editor;
  for (std::size_t end = 0; end <= whole.size(); end += 3) {
    editor.open("a.proviso", whole.substr(0, end) + "|");
    for (const char* method : {"textDocument/hover", "textDocument/completion", "textDocument/definition"}) {
      REQUIRE(editor.at_cursor(method).contains("result"));
    }
    REQUIRE(editor.of_document("textDocument/semanticTokens/full").contains("result"));
    REQUIRE(editor.of_document("textDocument/documentSymbol").contains("result"));
    REQUIRE(editor.of_document("textDocument/formatting").contains("result"));
  }
}

TEST_CASE("a long file is answered at once, and a huge one at all") {
  std::string text = kSets;
  for (int i = 0; i < 120; ++i) {
    text += "rule r" + std::to_string(i) + " {\n  suppress anger by 80% when last anger > " + std::to_string(i) +
            "\n  fires on angry\n}\n";
  }
  Editor editor;
  const auto begin = std::chrono::steady_clock::now();
  editor.open("a.proviso", text);
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
  CHECK(editor.codes("a.proviso").empty());
  WARN("483 lines were checked in " << took.count() << " ms");
  CHECK(took.count() < 1000);  // of a machine that does other things, too

  const std::string huge = "prompts p = [" + std::string(3 << 20, '"') + "|";
  editor.open("a.proviso", huge);
  CHECK(editor.codes("a.proviso") == std::vector<std::string>{"too-large"});
  CHECK(editor.at_cursor("textDocument/completion").contains("result"));
}

// ---- the protocol's frame --------------------------------------------------------------------

namespace {

std::string framed(const std::string& body) {
  return "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

std::vector<Json> unframed(std::string text) {
  std::vector<Json> all;
  while (!text.empty()) {
    const std::size_t body = text.find("\r\n\r\n") + 4;
    const std::size_t length = std::stoul(text.substr(std::string("Content-Length: ").size()));
    all.push_back(Json::parse(text.substr(body, length)));
    text.erase(0, body + length);
  }
  return all;
}

}  // namespace

TEST_CASE("messages that are none are answered, and those behind them are read") {
  Server server({});
  std::istringstream in(framed("{not json") + "Content-Length: oops\r\n\r\nContent-Type: x\r\n" +
                        framed(R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})") +
                        framed(R"({"jsonrpc":"2.0","id":2,"method":"shutdown"})") +
                        framed(R"({"jsonrpc":"2.0","method":"exit"})") + framed("never read"));
  std::ostringstream out;
  CHECK(serve(server, in, out) == 0);
  const auto answers = unframed(out.str());
  REQUIRE(answers.size() == 3);
  CHECK(answers[0].at("error").at("code") == -32700);
  CHECK(answers[1].at("id") == 1);
  CHECK(answers[2].at("result").is_null());
}

TEST_CASE("the server's exit code is 1 where the editor went away without a word") {
  Server server({});
  std::istringstream in(framed(R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})") +
                        "Content-Length: 99\r\n\r\n{");
  std::ostringstream out;
  CHECK(serve(server, in, out) == 1);
}

}  // namespace proviso::lsp
