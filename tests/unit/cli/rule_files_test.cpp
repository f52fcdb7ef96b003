// `check` and `fmt` on files.

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/unit/cli/run_program.hpp"

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

class RuleFolder {
 public:
  RuleFolder() : path_(fs::temp_directory_path() / ("proviso-cli-" + std::to_string(::getpid()))) {
    fs::create_directories(path_);
  }
  ~RuleFolder() { fs::remove_all(path_); }

  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
    return (path_ / name).string();
  }
  std::string read(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(path_ / name).rdbuf();
    return text.str();
  }

 private:
  fs::path path_;
};

constexpr const char* kTidy = "# kept\ncheck capitals { expect accuracy([\"a\" -> \" b\"]) >= 90% }\n";
constexpr const char* kUntidy = "# kept\ncheck   capitals { expect accuracy( [\"a\"->\" b\"] ) >=90% }\n";

}  // namespace

TEST_CASE("check says nothing of a sound file and everything of a bad one, on standard output") {
  const RuleFolder folder;
  const Ran good = run_program({"check", folder.write("good.proviso", kTidy)});
  CHECK(good.code == 0);
  CHECK(good.out.empty());

  const std::string bad =
      folder.write("bad.proviso", "check c {\n  expect accuracy(capitals) >= 90%\n  expect kl(rulers) <= 1\n}\n");
  const Ran ran = run_program({"check", bad});
  CHECK(ran.code == 2);
  CHECK(ran.err.empty());
  CHECK_THAT(ran.out, Contains(bad + ":2:19: error[") && Contains("`capitals`") && Contains(bad + ":3:13: error["));
}

TEST_CASE("check --output json gives editors code, place and help") {
  const RuleFolder folder;
  const std::string bad = folder.write("bad.proviso", "check c {\n  expect accuracy(capitals) >= 90%\n}\n");
  const Ran ran = run_program({"check", "--output", "json", bad});
  CHECK(ran.code == 2);
  const auto document = nlohmann::json::parse(ran.out);
  REQUIRE(document.size() == 1);
  const auto& diagnostic = document[0];
  CHECK(diagnostic["file"] == bad);
  CHECK(diagnostic["severity"] == "error");
  CHECK(diagnostic["span"]["begin"]["line"] == 2);
  CHECK(diagnostic["span"]["begin"]["column"] == 19);
  CHECK(diagnostic["span"]["end"]["column"] == 27);
}

TEST_CASE("check explains a code, and knows the nearest of a misspelt one") {
  const Ran known = run_program({"check", "--explain", "read-after-intervention"});
  CHECK(known.code == 0);
  CHECK_THAT(known.out, Contains("read-after-intervention\n\n"));
  const Ran misspelt = run_program({"check", "--explain", "read-after-intervntion"});
  CHECK(misspelt.code == 2);
  CHECK_THAT(misspelt.err, Contains("did you mean `read-after-intervention`?"));
}

TEST_CASE("a file that is not there is named, with exit code 2") {
  const Ran check = run_program({"check", "/nowhere/a.proviso"});
  CHECK(check.code == 2);
  CHECK_THAT(check.out, Contains("/nowhere/a.proviso"));
  const Ran fmt = run_program({"fmt", "/nowhere/a.proviso"});
  CHECK(fmt.code == 2);
  CHECK_THAT(fmt.err, Contains("/nowhere/a.proviso"));
  CHECK_THAT(run_program({"check"}).err, Contains("no rule file is named"));
}

TEST_CASE("fmt rewrites in place, once, and --check only tells") {
  const RuleFolder folder;
  const std::string tidy = folder.write("tidy.proviso", kTidy), untidy = folder.write("untidy.proviso", kUntidy);

  const Ran told = run_program({"fmt", "--check", tidy, untidy});
  CHECK(told.code == 1);
  CHECK(told.out == untidy + "\n");
  CHECK(folder.read("untidy.proviso") == kUntidy);

  CHECK(run_program({"fmt", tidy, untidy}).code == 0);
  CHECK(folder.read("tidy.proviso") == kTidy);
  CHECK(folder.read("untidy.proviso") == kTidy);
  CHECK(run_program({"fmt", "--check", tidy, untidy}).code == 0);
}

TEST_CASE("fmt - formats standard input to standard output") {
  const Ran ran = run_program({"fmt", "-"}, kUntidy);
  CHECK(ran.code == 0);
  CHECK(ran.out == kTidy);
}

TEST_CASE("fmt writes nothing where one file cannot be read") {
  const RuleFolder folder;
  const std::string untidy = folder.write("untidy.proviso", kUntidy), bad = folder.write("bad.proviso", "check {\n");
  const Ran ran = run_program({"fmt", untidy, bad});
  CHECK(ran.code == 2);
  CHECK_THAT(ran.err, Contains("bad.proviso:1:"));
  CHECK(folder.read("untidy.proviso") == kUntidy);
}

// ---- fixes and differences -------------------------------------------------------------------

TEST_CASE("check --fix makes the safe fixes, tells them, and has nothing left to make") {
  const RuleFolder folder;
  const std::string text =
      "prompts calm = [\"a\" \"b\"]\n"
      "check c { severty minor expect accuracy([\"x\" -> \" y\"]) >= 90 expect perplexity(clam) <= 30 }\n";
  const std::string path = folder.write("a.proviso", text);
  const std::string sound = folder.write("b.proviso", kUntidy);

  const Ran ran = run_program({"check", "--fix", path, sound});
  CHECK(ran.code == 0);
  CHECK_THAT(ran.out, Contains(path + ":1:20: fixed[missing-separator]"));
  CHECK_THAT(ran.out, Contains("fixed[unknown-statement]: `severty` is now `severity`"));
  CHECK_THAT(ran.out, Contains("fixed[bound-out-of-range]: `90` is now `90%`"));
  CHECK_THAT(ran.out, Contains("fixed[unknown-name]: `clam` is now `calm`"));
  CHECK(folder.read("a.proviso") ==
        "prompts calm = [\"a\", \"b\"]\n"
        "check c { severity minor expect accuracy([\"x\" -> \" y\"]) >= 90% expect perplexity(calm) <= 30 }\n");
  CHECK(folder.read("b.proviso") == kUntidy);

  const Ran again = run_program({"check", "--fix", path});
  CHECK(again.code == 0);
  CHECK(again.out.empty());
}

TEST_CASE("check --fix leaves what it cannot cure, says it of the text as fixed, and exits with 2") {
  const RuleFolder folder;
  const std::string path =
      folder.write("a.proviso", "prompts calm = [\"a\" \"b\"]\ncheck c { expect kl(zz) >= 0.1 }\n");
  const Ran ran = run_program({"check", "--fix", "--output", "json", path});
  CHECK(ran.code == 2);
  CHECK_THAT(ran.err, Contains("fixed[missing-separator]"));
  const auto left = nlohmann::json::parse(ran.out);
  REQUIRE(left.size() == 1);
  CHECK(left[0].at("code") == "unknown-name");
  CHECK(folder.read("a.proviso").starts_with("prompts calm = [\"a\", \"b\"]"));
  CHECK(run_program({"check", "--fix", "-"}, "").code == 2);
}

TEST_CASE("fmt --diff shows what would change and writes nothing") {
  const RuleFolder folder;
  const std::string path = folder.write("a.proviso", kUntidy);
  const Ran ran = run_program({"fmt", "--diff", path});
  CHECK(ran.code == 0);
  CHECK(ran.out == "--- " + path + "\n+++ " + path + "\n@@ -1,2 +1,2 @@\n # kept\n-" +
                       std::string(kUntidy).substr(std::string("# kept\n").size()) + "+" +
                       std::string(kTidy).substr(std::string("# kept\n").size()));
  CHECK(folder.read("a.proviso") == kUntidy);
  CHECK(run_program({"fmt", "--diff", "--check", path}).code == 1);
  CHECK(run_program({"fmt", "--diff", folder.write("b.proviso", kTidy)}).out.empty());
}

// ---- editors ---------------------------------------------------------------------------------

TEST_CASE("proviso lsp speaks to an editor over its streams") {
  const auto framed = [](const nlohmann::json& message) {
    const std::string body = message.dump();
    return "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  };
  const RuleFolder folder;
  const std::string uri = "file://" + folder.write("a.proviso", "");
  const Ran ran = run_program(
      {"lsp"}, framed({{"jsonrpc", "2.0"}, {"id", 1}, {"method", "initialize"}, {"params", {{"rootUri", nullptr}}}}) +
                   framed({{"jsonrpc", "2.0"}, {"method", "initialized"}, {"params", nlohmann::json::object()}}) +
                   framed({{"jsonrpc", "2.0"},
                           {"method", "textDocument/didOpen"},
                           {"params",
                            {{"textDocument",
                              {{"uri", uri},
                               {"languageId", "proviso"},
                               {"version", 1},
                               {"text", "check c { expect kl(zz) >= 1 }\n"}}}}}}) +
                   framed({{"jsonrpc", "2.0"}, {"id", 2}, {"method", "shutdown"}}) +
                   framed({{"jsonrpc", "2.0"}, {"method", "exit"}}));
  CHECK(ran.code == 0);
  CHECK_THAT(ran.out, Contains("\"name\":\"proviso\""));
  CHECK_THAT(ran.out, Contains("\"id\":2"));
  CHECK(ran.err.empty());
}
