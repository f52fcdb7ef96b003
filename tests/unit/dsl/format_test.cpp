#include "dsl/format.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "dsl/parse.hpp"
#include "dsl/render.hpp"
#include "tests/support/ptest.hpp"

namespace proviso::dsl {
namespace {

std::string read_all(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The words of the comments, in any order: formatting may move one, and never loses or doubles one.
std::vector<std::string> marks(const std::string& text) {
  std::vector<std::string> found;
  for (std::size_t at = text.find("#mark"); at != std::string::npos; at = text.find("#mark", at + 1)) {
    found.push_back(text.substr(at, text.find_first_of(" \n", at) - at));
  }
  std::sort(found.begin(), found.end());
  return found;
}

void check_format(const std::string& text) {
  SourceSet sources;
  const Parsed read = parse(sources, sources.add("a.proviso", text));
  if (!read.diagnostics.empty()) return;
  const std::string once = format(read.file, sources);
  const Parsed again = parse(sources, sources.add("formatted", once));
  INFO(text << "\n---- formatted\n" << once << render_text(again.diagnostics, sources));
  REQUIRE(again.diagnostics.empty());
  REQUIRE(again.file == read.file);
  REQUIRE(format(again.file, sources) == once);
  REQUIRE(marks(once) == marks(text));
  REQUIRE(std::count(once.begin(), once.end(), '#') >= static_cast<std::ptrdiff_t>(marks(text).size()));
  REQUIRE(once.find(" \n") == std::string::npos);
  REQUIRE(once.find("\n\n\n") == std::string::npos);
}

TEST_CASE("a file with Windows' line ends means what it means with Unix's, and is formatted to the same bytes") {
  const std::string unix_text =
      "# one\n\nprompts a = [\n  \"x y\"  # two\n  \"z w\"\n]\nrule r {\n  suppress f when prompt matches /a/\n\n  # "
      "three\n  steer f by 2\n}\n";
  std::string windows_text = "\xEF\xBB\xBF";
  for (const char c : unix_text) windows_text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  SourceSet sources;
  const Parsed left = parse(sources, sources.add("a.proviso", unix_text));
  const Parsed right = parse(sources, sources.add("b.proviso", windows_text));
  REQUIRE(left.diagnostics.empty());
  REQUIRE(right.diagnostics.empty());
  CHECK(left.file == right.file);
  CHECK(format(left.file, sources) == unix_text);
  CHECK(format(right.file, sources) == unix_text);
}

TEST_CASE("formatting keeps the meaning of every golden and shipped rule, and settles at once") {
  std::size_t files = 0;
  for (const char* folder : {"/tests/golden", "/rules", "/docs"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(PROVISO_SOURCE_DIR + std::string(folder))) {
      if (entry.path().extension() == ".proviso") {
        check_format(read_all(entry.path()));
        ++files;
      } else if (entry.path().extension() == ".ptest") {
        for (const auto& [name, text] : test::parse_ptest(entry.path().string(), read_all(entry.path())).files) {
          if (!name.ends_with(".proviso")) continue;
          check_format(text);
          ++files;
        }
      }
    }
  }
  CHECK(files > 20);
}

/// Writes random files of the language, laid out at random, with a numbered comment here and there.
class Generator {
 public:
  explicit Generator(unsigned seed) : random_(seed) {}

  std::string file() {
    text_.clear();
    for (int n = pick(4) + 1; n > 0; --n) {
      gap();
      declaration();
    }
    gap();
    return text_;
  }

 private:
  int pick(int count) { return std::uniform_int_distribution<int>(0, count - 1)(random_); }
  bool maybe() { return pick(2) == 0; }

  void gap() {
    for (int n = pick(3); n > 0; --n) {
      switch (pick(6)) {
        case 0:
          text_ += "\n";
          break;
        case 1:
          text_ += "\n\n\n";
          break;
        case 2:
          text_ += "#mark" + std::to_string(next_mark_++) + "\n";
          break;
        default:
          text_ += pick(5) == 0 ? "\t" : " ";
      }
    }
  }
  void put(const std::string& token) {
    gap();
    const auto word = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '%';
    };
    if (!text_.empty() && (word(text_.back()) || text_.back() == '/') && word(token.front())) text_ += ' ';
    text_ += token;
  }
  void comma() {
    gap();
    text_ += ",";
  }

  template <class Item>
  void list(Item item) {
    put("[");
    const int count = pick(4);
    for (int i = 0; i < count; ++i) {
      item();
      if (i + 1 < count) {
        if (maybe()) {
          comma();
        } else {
          text_ += "\n";
        }
      } else if (pick(3) == 0) {
        comma();
      }
    }
    put("]");
  }

  void name() { put(one_of({"anger", "calm", "suppress", "resid_post", "pack.fear", "expect", "from", "head"})); }
  void own_name() { put(one_of({"anger", "calm", "keep", "effect", "std", "x9"})); }
  void number() { put(one_of({"1", "0", "-2", "0.5", "80%", "-1.5e-3", "1e2%", "007"})); }
  void string() {
    put(one_of({"\"\"", "\" Paris\"", "\"#mark in a string\"", "\"\\\"/\\\\\"", "\"{} {{\"", "\"日本 \\u202e\"",
                "\"a text that is long enough to make its list break over lines\""}));
  }
  void regex() { put(one_of({"/a/", "/#\\/\"/i", "/[\\/]\\\\/sm", "/\"[^\"]*\"/"})); }
  void site() {
    put(one_of({"embed", "mlp_out[*]", "attn_out[1,4..6]", "z[3] head 2", "q[ 0 ] head [1,2]",
                "blocks.3.hook_resid_pre", "k[1] head *"}));
  }
  void strings() {
    list([&] { string(); });
  }
  void prompt_list() {
    list([&] {
      string();
      if (maybe()) {
        put("->");
        if (maybe()) {
          string();
        } else {
          text_ += "[\"a\", \"b\"]";
        }
      }
    });
  }
  void prompts() { maybe() ? name() : prompt_list(); }

  void operand(int depth) {
    switch (pick(4)) {
      case 0:
        return number();
      case 1:
        return put("position");
      case 2:
        return depth > 0 ? call(depth - 1) : name();
      default:
        return name();
    }
  }
  void condition(int depth) {
    switch (depth > 0 ? pick(11) : pick(5)) {
      case 0:
        operand(depth);
        put(one_of({"<", "<=", "!=", "=="}));
        return operand(depth);
      case 1:
        operand(depth);
        put(">");
        operand(depth);
        put(">=");
        return operand(depth);
      case 2:
        put("prompt");
        put("matches");
        return regex();
      case 3:
        put("token");
        if (maybe()) {
          put("is");
          return string();
        }
        put("in");
        return strings();
      case 4:
        return put("generated");
      case 5:
      case 6:
        put("(");
        condition(depth - 1);
        return put(")");
      case 7:
        put(one_of({"not", "any", "last"}));
        put("(");
        condition(depth - 1);
        return put(")");
      default:
        condition(depth - 1);
        put(one_of({"and", "or"}));
        return condition(depth - 1);
    }
  }
  void intervention(bool inside, int depth) {
    const std::string operation = one_of({"suppress", "amplify", "clamp", "steer", "cap"});
    put(operation);
    name();
    if (operation != "suppress" || maybe()) {
      put(operation == "clamp" || operation == "cap" ? "to" : "by");
      number();
    }
    if (maybe()) {
      put("at");
      if (inside || maybe()) {
        put("[");
        site();
        comma();
        site();
        put("]");
      } else {
        site();
        comma();
        site();
      }
    }
    if (maybe()) {
      put("when");
      condition(depth);
    }
  }
  void value(int depth) {
    switch (pick(depth > 0 ? 12 : 7)) {
      case 0:
        return number();
      case 1:
        return string();
      case 2:
        return regex();
      case 3:
        return put(one_of({"4..12", "[1, 4..6]", "[3]", "*"}));
      case 4:
        return prompt_list();
      case 5:
        string();
        put("-");
        return string();
      case 6:
        return name();
      case 7:
        return intervention(true, depth - 1);
      case 8:
        put(one_of({"rule", "edit"}));
        return name();
      case 9:
        name();
        put(">");
        return number();
      default:
        return call(depth - 1);
    }
  }
  void call(int depth) {
    name();
    text_ += "(";
    for (int n = pick(3); n >= 0; --n) {
      if (maybe()) {
        put(one_of({"on", "zero", "token", "by"}));
        put(":");
      }
      value(depth);
      if (n > 0 || pick(4) == 0) comma();
    }
    put(")");
  }
  void note() {
    switch (pick(4)) {
      case 0:
        put("description");
        return string();
      case 1:
        put("tags");
        return strings();
      case 2:
        put("meta");
        put("{");
        if (maybe()) {
          put("owner");
          string();
        }
        return put("}");
      default:
        put("status");
        return put("experimental");
    }
  }
  void title() {
    if (pick(3) == 0) string();
  }
  void tail() {
    if (pick(3) != 0) return;
    const bool braces = maybe();
    if (braces) put("{");
    note();
    if (braces) put("}");
  }
  void expectation() {
    put("expect");
    maybe() ? call(2) : name();
    put(one_of({"<=", ">", "=="}));
    number();
    if (maybe()) put("relative");
    if (maybe()) {
      put("beyond");
      put("control");
    }
    if (maybe()) {
      put("at");
      put("95%");
      put("confidence");
    }
    if (maybe()) {
      put("across");
      call(1);
      comma();
      name();
    }
  }

  void declaration() {
    text_ += "\n";
    switch (pick(9)) {
      case 0:
        put("use");
        put(one_of({"\"a.proviso\"", "std/gender", "std/a/b"}));
        if (maybe()) {
          put("as");
          own_name();
        }
        title();
        return tail();
      case 1:
        put("model");
        put("{");
        put("family");
        own_name();
        if (maybe()) note();
        put("layers");
        put("30");
        return put("}");
      case 2:
        put("prompts");
        own_name();
        title();
        if (maybe()) {
          put("as");
          put("chat");
        }
        put("=");
        switch (pick(3)) {
          case 0:
            prompt_list();
            break;
          case 1:
            put("from");
            string();
            if (maybe()) {
              put("{");
              put("seed");
              put("3");
              if (maybe()) note();
              put("take");
              put("4");
              put("}");
              return;
            }
            break;
          default:
            put("each");
            put("who");
            put("in");
            strings();
            put("\"{who} {{x}}\"");
        }
        return tail();
      case 3:
        put("feature");
        own_name();
        title();
        put("=");
        call(2);
        if (maybe()) {
          put("token");
          put(one_of({"last", "all", "-2"}));
        }
        put("at");
        site();
        return tail();
      case 4:
        put("rule");
        own_name();
        title();
        put("{");
        for (int n = pick(4); n > 0; --n) {
          if (pick(3) == 0) {
            put(one_of({"fires", "silent"}));
            put("on");
            prompts();
          } else {
            intervention(false, 3);
          }
        }
        if (maybe()) note();
        return put("}");
      case 5:
        put("edit");
        own_name();
        put("{");
        put("fact");
        string();
        put("in");
        put("\"{} is {{}}\"");
        put("to");
        string();
        if (maybe()) {
          put("remove");
          name();
          put("at");
          site();
        }
        put("using");
        call(1);
        expectation();
        return put("}");
      case 6:
        put("circuit");
        own_name();
        put("{");
        put("clean");
        string();
        put("corrupt");
        string();
        put("measure");
        call(1);
        put("using");
        name();
        put("keep");
        put("5");
        put("edges");
        return put("}");
      case 7:
        put("check");
        own_name();
        title();
        put("{");
        if (maybe()) {
          put("under");
          put("attack");
          call(1);
          comma();
          call(1);
        }
        expectation();
        expectation();
        return put("}");
      default:
        put("waive");
        name();
        put("until");
        put("2027-03-31");
        put("by");
        string();
        put("because");
        string();
        return tail();
    }
  }

  std::string one_of(std::initializer_list<const char*> choices) {
    return choices.begin()[pick(static_cast<int>(choices.size()))];
  }

  std::mt19937 random_;
  std::string text_;
  int next_mark_ = 0;
};

TEST_CASE("formatting keeps the meaning and the comments of random files, and settles at once") {
  int read = 0;
  for (unsigned seed = 0; seed < 1500; ++seed) {
    const std::string text = Generator(seed).file();
    SourceSet sources;
    const Parsed parsed = parse(sources, sources.add("a.proviso", text));
    INFO("seed " << seed << "\n" << text << "\n" << render_text(parsed.diagnostics, sources));
    REQUIRE(parsed.diagnostics.empty());
    check_format(text);
    ++read;
  }
  CHECK(read == 1500);
}

}  // namespace
}  // namespace proviso::dsl
