// docs/tutorial.md is run as a reader would: its files are written, its commands run, its output is what comes out.

#include <catch2/catch.hpp>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <optional>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.hpp"
#include "tests/unit/cli/run_program.hpp"

namespace proviso {
namespace {

namespace fs = std::filesystem;

const std::string kModel = PROVISO_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";

struct Block {
  std::string language;
  std::vector<std::string> lines;
};

std::vector<Block> fenced_blocks(const std::string& path) {
  std::vector<Block> blocks;
  std::ifstream file(path);
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("```")) {
      inside = !inside;
      if (inside) blocks.push_back({line.substr(3), {}});
    } else if (inside) {
      blocks.back().lines.push_back(line);
    }
  }
  return blocks;
}

/// The tutorial's commands need no more of a shell than double quotes and $MODEL.
std::vector<std::string> words(const std::string& command) {
  std::vector<std::string> words;
  static const std::regex word(R"rx("([^"]*)"|(\S+))rx");
  for (std::sregex_iterator at(command.begin(), command.end(), word), end; at != end; ++at) {
    const std::string text = (*at)[1].matched ? (*at)[1].str() : (*at)[2].str();
    words.push_back(text == "$MODEL" ? kModel : text);
  }
  return words;
}

std::optional<double> number(std::string text) {
  while (!text.empty() && (text.back() == ',' || text.back() == ']' || text.back() == '%')) text.pop_back();
  if (text.starts_with('[')) text.erase(0, 1);
  double value = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || read.ec != std::errc() || read.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Equal but for spaces and for what another processor's rounding moves.
bool same_line(const std::string& expected, const std::string& actual) {
  std::istringstream left(expected), right(actual);
  for (std::string a, b; true;) {
    const bool more = static_cast<bool>(left >> a);
    if (more != static_cast<bool>(right >> b)) return false;
    if (!more) return true;
    const auto x = number(a), y = number(b);
    if (x && y ? std::abs(*x - *y) > 0.02 + 0.02 * std::abs(*x) : a != b) return false;
  }
}

/// The expected lines stand in the output in their order; "…" stands for lines left out.
void hold_to(const std::vector<std::string>& expected, const std::string& output) {
  std::vector<std::string> lines;
  std::istringstream stream(output);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  std::size_t at = 0;
  for (const auto& line : expected) {
    if (line.empty() || line == "…") continue;
    while (at < lines.size() && !same_line(line, lines[at])) ++at;
    INFO("the tutorial shows: " << line << "\nthe program prints:\n" << output);
    REQUIRE(at < lines.size());
    ++at;
  }
}

/// The reader's folder: relative paths are meant from there.
class InFolder {
 public:
  explicit InFolder(const fs::path& folder) : before_(fs::current_path()) { fs::current_path(folder); }
  ~InFolder() { fs::current_path(before_); }

 private:
  fs::path before_;
};

void run_commands(const Block& block, Ran& last) {
  for (std::size_t i = 0; i < block.lines.size();) {
    const std::string& line = block.lines[i];
    REQUIRE(line.starts_with("$ "));
    std::vector<std::string> expected;
    while (++i < block.lines.size() && !block.lines[i].starts_with("$ ")) expected.push_back(block.lines[i]);
    INFO(line);
    if (line == "$ echo $?") {
      CHECK(expected == std::vector{std::to_string(last.code)});
      continue;
    }
    auto arguments = words(line.substr(2));
    REQUIRE(arguments.front() == "proviso");
    arguments.erase(arguments.begin());
    last = run_program(arguments);
    hold_to(expected, last.out + last.err);
  }
}

}  // namespace

TEST_CASE("the tutorial does what it shows", "[model]") {
  const test::TemporaryFolder folder;
  const InFolder here(folder.path());
  Ran last;
  std::size_t commands = 0;
  static const std::regex named(R"(# (\w+\.proviso))");
  for (const Block& block : fenced_blocks(PROVISO_SOURCE_DIR "/docs/tutorial.md")) {
    if (block.language == "proviso") {
      std::smatch name;
      REQUIRE(std::regex_match(block.lines.front(), name, named));
      std::ofstream file(folder / name[1].str());
      for (const auto& line : block.lines) file << line << '\n';
    } else if (block.language == "console") {
      run_commands(block, last);
      ++commands;
    }
  }
  CHECK(commands >= 5);
}

}  // namespace proviso
