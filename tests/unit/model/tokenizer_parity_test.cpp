#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "runtime/tokenizer/tokenizer.hpp"

using proviso::model::Tokenizer;

namespace {

using Ids = std::vector<std::int64_t>;

const std::string kFixtures = PROVISO_SOURCE_DIR "/tests/parity/tokenizer/";

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> lines_of(const std::string& path) {
  std::istringstream file(read_file(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

std::string joined(const Ids& ids) {
  std::string out;
  for (const auto id : ids) out += (out.empty() ? "" : " ") + std::to_string(id);
  return out;
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) return put(0xC0 | c >> 6), put(0x80 | (c & 63));
  if (c < 0x10000) return put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 63)), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
}

// As `plane_hashes` of generate.py.
std::string hash_of_block(const Tokenizer& tokenizer, char32_t block) {
  std::uint64_t value = 0xCBF29CE484222325u;
  for (char32_t low = block; low < block + 0x1000; low += 0x100) {
    std::string text;
    for (char32_t c = low; c < low + 0x100; ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      append_utf8(text, c);
      text += 'a';
      append_utf8(text, c);
      text += ' ';
      append_utf8(text, c);
      text += '1';
    }
    for (const auto id : tokenizer.encode(text)) value = (value ^ static_cast<std::uint64_t>(id)) * 0x100000001B3u;
  }
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(value));
  return hex;
}

void check_texts(const Tokenizer& tokenizer, const std::string& name) {
  const auto texts = nlohmann::json::parse(read_file(kFixtures + "texts.json"));
  const auto expected = lines_of(kFixtures + name + ".ids");
  REQUIRE(texts.size() >= 2000);
  REQUIRE(texts.size() == expected.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    INFO(name << ", text " << i << ": " << texts[i].dump());
    CHECK(joined(tokenizer.encode(texts[i].get<std::string>())) == expected[i]);
  }
  for (const auto& [ids, text] : nlohmann::json::parse(read_file(kFixtures + name + ".decodings.json"))
                                     .get<std::vector<std::pair<Ids, std::string>>>()) {
    INFO(name << ", ids " << joined(ids));
    CHECK(tokenizer.decode(ids) == text);
  }
}

void check_all_code_points(const Tokenizer& tokenizer, const std::string& name) {
  const auto planes = lines_of(kFixtures + name + ".planes");
  REQUIRE(planes.size() == 0x110);
  for (std::size_t block = 0; block < planes.size(); ++block) {
    INFO(name << ", code points from " << block * 0x1000);
    CHECK(hash_of_block(tokenizer, static_cast<char32_t>(block * 0x1000)) == planes[block]);
  }
}

std::shared_ptr<const Tokenizer> small(const std::string& name) { return Tokenizer::load(kFixtures + "small/" + name); }

}  // namespace

TEST_CASE("ids and texts are those of the tokenizers library", "[tokenizer][parity]") {
  for (const char* name : {"llama3", "gpt2", "llama2", "metaspace", "qwen2", "gpt_neox"})
    check_texts(*small(name), name);
}

TEST_CASE("every code point is split as in the tokenizers library", "[tokenizer][parity]") {
  for (const char* name : {"llama3", "metaspace", "qwen2"}) check_all_code_points(*small(name), name);
}

TEST_CASE("SmolLM2's ids and texts are those of the tokenizers library", "[tokenizer][parity][model]") {
  const std::string path = PROVISO_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  INFO("the model file is missing: run `make model`");
  REQUIRE(std::filesystem::exists(path));
  const auto tokenizer = Tokenizer::load(path);
  check_texts(*tokenizer, "smollm2");
  check_all_code_points(*tokenizer, "smollm2");
}
