#include "tests/support/ptest.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>

namespace proviso::test {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDashes = "---";
constexpr std::string_view kWildcard = "<…>";

std::string read_all(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void write_all(const fs::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path.string());
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::string with_line_break(std::string text) {
  if (!text.empty() && text.back() != '\n') text += '\n';
  return text;
}

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1));
}

/// Inputs and outputs may hold lines that look like a section's head.
std::string escaped(std::string_view text) {
  std::string out;
  for (const std::string_view line : lines_of(text)) {
    const std::size_t bar = line.find_first_not_of('\\');
    if (bar != std::string_view::npos && line.substr(bar).starts_with(kDashes)) out += '\\';
    out.append(line).append("\n");
  }
  return out;
}

std::string_view unescaped(std::string_view line) {
  const std::size_t bar = line.find_first_not_of('\\');
  const bool is_escaped = bar != std::string_view::npos && bar > 0 && line.substr(bar).starts_with(kDashes);
  return is_escaped ? line.substr(1) : line;
}

const std::string* find(const Sections& sections, std::string_view name) {
  const auto found = std::find_if(sections.begin(), sections.end(), [&](const auto& s) { return s.first == name; });
  return found == sections.end() ? nullptr : &found->second;
}

struct Parsed {
  double value;
  std::size_t length;
};

std::optional<Parsed> front_number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return Parsed{value, static_cast<std::size_t>(end - text.data())};
}

/// `0.7391 ~1e-3` at the front of an expectation.
struct Tolerant {
  double value;
  double tolerance;
  std::size_t length;
};

std::optional<Tolerant> front_tolerant(std::string_view text) {
  const auto value = front_number(text);
  if (!value || !text.substr(value->length).starts_with(" ~")) return std::nullopt;
  std::size_t length = value->length + 2;
  const auto tolerance = front_number(text.substr(length));
  if (!tolerance) return std::nullopt;
  length += tolerance->length;
  if (!text.substr(length).starts_with('%')) return Tolerant{value->value, tolerance->value, length};
  return Tolerant{value->value, std::abs(value->value) * tolerance->value / 100, length + 1};
}

bool updates_goldens() {
  const char* update = std::getenv("PROVISO_UPDATE_GOLDEN");
  if (!update || std::string_view(update) != "1") return false;
  if (std::getenv("CI"))
    throw std::runtime_error("PROVISO_UPDATE_GOLDEN is refused where CI is set: goldens are rewritten by people");
  return true;
}

void rewrite(Ptest test, const Sections& produced) {
  Sections expected;
  for (const auto& [name, text] : produced) {
    const std::string* before = find(test.expected, name);
    if (!before && text.empty()) continue;
    expected.emplace_back(name, before ? updated(*before, text) : text);
  }
  test.expected = std::move(expected);
  write_all(test.path, to_text(test));
}

}  // namespace

const std::string& Ptest::file(std::string_view name) const {
  if (const std::string* text = find(files, name)) return *text;
  throw std::runtime_error(path + ": there is no section `file: " + std::string(name) + "`");
}

std::string Ptest::option(std::string_view name, std::string_view otherwise) const {
  const std::string* text = find(options, name);
  return text ? *text : std::string(otherwise);
}

Ptest parse_ptest(std::string path, std::string_view text) {
  Ptest test;
  test.path = std::move(path);
  std::string* section = &test.description;
  for (const std::string_view line : lines_of(text)) {
    if (!line.starts_with(kDashes)) {
      section->append(unescaped(line)).append("\n");
      continue;
    }
    const std::string head = trimmed(line.substr(line.find_first_not_of('-')));
    const std::size_t colon = head.find(':');
    const std::string kind = head.substr(0, colon);
    const std::string name = colon == std::string::npos ? "" : trimmed(head.substr(colon + 1));
    Sections* into = kind == "file"     ? &test.files
                     : kind == "option" ? &test.options
                     : kind == "expect" ? &test.expected
                                        : nullptr;
    if (!into || name.empty())
      throw std::runtime_error(test.path + ": `" + std::string(line) +
                               "` is no section: `--- file: PATH`, `--- option: NAME` or `--- expect: NAME`");
    if (find(*into, name)) throw std::runtime_error(test.path + ": `" + std::string(line) + "` stands twice");
    section = &into->emplace_back(name, "").second;
  }
  for (auto& [name, value] : test.options) value = trimmed(value);
  return test;
}

std::string to_text(const Ptest& test) {
  std::string text = test.description;
  const auto add = [&](std::string_view kind, const Sections& sections) {
    for (const auto& [name, body] : sections) {
      text.append(kDashes).append(" ").append(kind).append(": ").append(name).append("\n");
      text += escaped(with_line_break(body));
    }
  };
  add("file", test.files);
  add("option", test.options);
  add("expect", test.expected);
  return text;
}

bool line_matches(std::string_view expected, std::string_view produced) {
  while (!expected.empty()) {
    if (expected.starts_with(kWildcard)) {
      expected.remove_prefix(kWildcard.size());
      const std::size_t space = std::min(produced.find(' '), produced.size());
      const std::size_t end = expected.empty() ? produced.size() : produced.find(expected.front());
      const std::size_t length = expected.empty() || end == std::string_view::npos ? space : std::min(space, end);
      if (length == 0) return false;
      produced.remove_prefix(length);
    } else if (const auto tolerant = front_tolerant(expected)) {
      const auto number = front_number(produced);
      if (!number || !(std::abs(number->value - tolerant->value) <= tolerant->tolerance)) return false;
      expected.remove_prefix(tolerant->length);
      produced.remove_prefix(number->length);
    } else {
      // A number is read whole: its later digits must not be taken for the start of a tolerant one.
      const auto number = front_number(expected);
      const std::size_t length = number ? number->length : 1;
      if (!produced.starts_with(expected.substr(0, length))) return false;
      expected.remove_prefix(length);
      produced.remove_prefix(length);
    }
  }
  return produced.empty();
}

std::string difference(std::string_view expected, std::string_view produced) {
  const auto wanted = lines_of(expected), got = lines_of(produced);
  std::ostringstream out;
  for (std::size_t i = 0; i < std::max(wanted.size(), got.size()); ++i) {
    if (i < wanted.size() && i < got.size() && line_matches(wanted[i], got[i])) continue;
    out << "line " << i + 1 << "\n";
    if (i < wanted.size()) out << "  expected: " << wanted[i] << "\n";
    if (i < got.size()) out << "  produced: " << got[i] << "\n";
  }
  return out.str();
}

std::string updated(std::string_view expected, std::string_view produced) {
  const auto wanted = lines_of(expected);
  std::size_t next = 0;
  std::string text;
  for (const std::string_view line : lines_of(produced)) {
    const auto found =
        std::find_if(wanted.begin() + next, wanted.end(), [&](std::string_view w) { return line_matches(w, line); });
    if (found == wanted.end()) {
      text.append(line);
    } else {
      text.append(*found);
      next = static_cast<std::size_t>(found - wanted.begin()) + 1;
    }
    text += '\n';
  }
  return text;
}

void for_each_ptest(std::string_view folder, const Runner& run) {
  const fs::path root = fs::path(PROVISO_SOURCE_DIR) / folder;
  std::set<fs::path> paths;
  if (fs::is_directory(root)) {
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (entry.path().extension() == ".ptest") paths.insert(entry.path());
    }
  }
  INFO(root.string());
  REQUIRE_FALSE(paths.empty());

  for (const fs::path& path : paths) {
    DYNAMIC_SECTION(fs::relative(path, root).string()) {
      INFO(path.string());
      const Ptest test = parse_ptest(path.string(), read_all(path));
      const Sections produced = run(test);
      if (updates_goldens()) rewrite(test, produced);
      const Ptest current = parse_ptest(path.string(), read_all(path));
      for (const auto& [name, text] : produced) {
        const std::string* expected = find(current.expected, name);
        INFO("expect: " << name);
        if (!expected && text.empty()) continue;
        const std::string found = difference(expected ? *expected : "", text);
        if (!found.empty()) {
          FAIL_CHECK(found << (expected ? "" : "the test has no such section\n")
                           << "PROVISO_UPDATE_GOLDEN=1 rewrites it; read what changes");
        } else {
          SUCCEED();
        }
      }
      for (const auto& [name, text] : current.expected) {
        INFO("`expect: " << name << "` is expected and nothing produced it");
        CHECK(find(produced, name) != nullptr);
      }
    }
  }
}

}  // namespace proviso::test
