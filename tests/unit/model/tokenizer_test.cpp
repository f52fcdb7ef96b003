#include "runtime/tokenizer/tokenizer.hpp"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "runtime/formats/tensor_file.hpp"
#include "tests/support/gguf_builder.hpp"
#include "tests/support/temporary_folder.hpp"

using nlohmann::json;
using proviso::model::InputError;
using proviso::model::Tokenizer;
using proviso::test::GgufBuilder;
using proviso::test::read_bytes;
using proviso::test::TemporaryFolder;
using proviso::test::write_bytes;

namespace {

using Ids = std::vector<std::int64_t>;

const std::string kSmall = PROVISO_SOURCE_DIR "/tests/parity/tokenizer/small/";

std::shared_ptr<const Tokenizer> small(const std::string& name) { return Tokenizer::load(kSmall + name); }

json small_json(const std::string& name) { return json::parse(read_bytes(kSmall + name + "/tokenizer.json")); }

std::shared_ptr<const Tokenizer> load_files(const std::vector<std::pair<std::string, std::string>>& files) {
  const TemporaryFolder folder;
  for (const auto& [name, bytes] : files) write_bytes(folder / name, bytes);
  return Tokenizer::load(folder.path());
}

std::shared_ptr<const Tokenizer> load_json(const json& tokenizer) {
  return load_files({{"tokenizer.json", tokenizer.dump()}});
}

std::shared_ptr<const Tokenizer> load_gguf(const GgufBuilder& builder) {
  const TemporaryFolder folder;
  write_bytes(folder / "model.gguf", builder.bytes());
  return Tokenizer::load(folder / "model.gguf");
}

template <typename T>
std::string gguf_array(std::uint32_t type, const std::vector<T>& values) {
  std::string bytes = GgufBuilder::raw(type) + GgufBuilder::raw(std::uint64_t{values.size()});
  for (const T value : values) bytes += GgufBuilder::raw(value);
  return bytes;
}

// "ab", "abc" and their parts, after a special token.
GgufBuilder byte_level_gguf() {
  GgufBuilder gguf;
  gguf.set("general.architecture", "llama");
  gguf.set("tokenizer.ggml.model", "gpt2");
  gguf.set("tokenizer.ggml.pre", "gpt-2");
  gguf.set("tokenizer.ggml.tokens", std::vector<std::string>{"<end>", "a", "b", "c", "ab", "abc", "Ġ", "<user>"});
  gguf.pair("tokenizer.ggml.token_type", 9, gguf_array<std::int32_t>(5, {3, 1, 1, 1, 1, 1, 1, 4}));
  gguf.set("tokenizer.ggml.merges", std::vector<std::string>{"a b", "ab c"});
  gguf.set("tokenizer.ggml.eos_token_id", 0u);
  gguf.set("tokenizer.ggml.bos_token_id", 0u);
  return gguf;
}

// A vocabulary of pieces with scores, as SentencePiece makes them.
GgufBuilder scored_gguf() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<std::int32_t> kinds = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    tokens.push_back(text);
    kinds.push_back(6);
  }
  std::vector<float> scores(tokens.size(), 0.0f);
  for (const char* piece : {"▁t", "he", "▁the", "▁", "t", "h", "e", "n", "en", "▁then"}) {
    scores.push_back(-static_cast<float>(tokens.size()));
    tokens.push_back(piece);
    kinds.push_back(1);
  }
  GgufBuilder gguf;
  gguf.set("tokenizer.ggml.model", "llama");
  gguf.set("tokenizer.ggml.tokens", tokens);
  gguf.pair("tokenizer.ggml.token_type", 9, gguf_array(5, kinds));
  gguf.pair("tokenizer.ggml.scores", 9, gguf_array(6, scores));
  gguf.set("tokenizer.ggml.bos_token_id", 1u);
  gguf.set("tokenizer.ggml.eos_token_id", 2u);
  gguf.set("tokenizer.ggml.unknown_token_id", 0u);
  return gguf;
}

}  // namespace

TEST_CASE("text that is not UTF-8 is refused with its byte", "[tokenizer]") {
  const auto tokenizer = small("llama3");
  const auto refusal = [&](const std::string& text, const std::string& named) {
    CHECK_THROWS_AS(tokenizer->encode(text), InputError);
    CHECK_THROWS_WITH(tokenizer->encode(text), Catch::Contains(named));
  };
  refusal("abc\xFF", "byte 0xFF at offset 3");
  refusal("\xC3", "byte 0xC3 at offset 0");              // cut short
  refusal("aé\xC0\xAF", "byte 0xC0 at offset 3");        // longer than needed
  refusal("\xED\xA0\x80", "byte 0xED at offset 0");      // a surrogate
  refusal("\xF4\x90\x80\x80", "byte 0xF4 at offset 0");  // beyond U+10FFFF
  refusal("0123456789abcdef\x80", "byte 0x80 at offset 16");
  CHECK_NOTHROW(tokenizer->encode("\xF4\x8F\xBF\xBF"));
}

TEST_CASE("special tokens are found in text, by text and by id", "[tokenizer]") {
  const auto tokenizer = small("llama3");
  const auto start = tokenizer->special("<|im_start|>");
  REQUIRE(start);
  CHECK(tokenizer->is_special(*start));
  CHECK(tokenizer->encode("<|im_start|>") == Ids{*start});
  CHECK(tokenizer->token_text(*start) == "<|im_start|>");
  CHECK_FALSE(tokenizer->special("over"));  // added, but not special
  CHECK_FALSE(tokenizer->special("the"));
  CHECK_FALSE(tokenizer->is_special(300));
  CHECK_FALSE(tokenizer->eos());
  CHECK(tokenizer->encode("over").front() == tokenizer->size() - 3);
}

TEST_CASE("add_special adds what the tokenizer's template has", "[tokenizer]") {
  const auto with = [](const std::shared_ptr<const Tokenizer>& tokenizer) { return tokenizer->encode("", true); };
  CHECK(with(small("llama3")) == Ids{0});
  CHECK(with(small("llama2")) == Ids{1, 2});
  CHECK(with(small("gpt2")).empty());
  const std::string tokenizer = small_json("llama2").dump();
  // Llama's own class in transformers goes by its flags.
  const auto llama_class = [&](const char* flags) {
    return with(load_files({{"tokenizer.json", tokenizer}, {"tokenizer_config.json", flags}}));
  };
  CHECK(llama_class(R"({"tokenizer_class": "LlamaTokenizerFast"})") == Ids{1});
  CHECK(llama_class(R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": false})").empty());
  CHECK(llama_class(R"({"tokenizer_class": "LlamaTokenizer", "add_eos_token": true})") == Ids{1, 2});
  CHECK(llama_class(R"({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": false})") == Ids{1, 2});
}

TEST_CASE("the end of text comes from the configuration", "[tokenizer]") {
  const std::string tokenizer = small_json("llama3").dump();
  const auto loaded = load_files({{"tokenizer.json", tokenizer},
                                  {"tokenizer_config.json", R"({"eos_token": {"content": "</s>"}})"},
                                  {"generation_config.json", R"({"eos_token_id": [1, 588]})"},
                                  {"config.json", R"({"eos_token_id": 587})"}});
  CHECK(loaded->eos() == 1);
  CHECK(loaded->is_eos(588));
  CHECK(loaded->is_eos(587));
  CHECK_FALSE(loaded->is_eos(0));
  CHECK_THROWS_WITH(load_files({{"tokenizer.json", tokenizer}, {"config.json", R"({"eos_token_id": 99999})"}}),
                    Catch::Contains("config.json: eos_token_id: no token has the id 99999"));
}

TEST_CASE("ids decode to their bytes", "[tokenizer]") {
  const auto tokenizer = small("llama3");
  const Ids ids = tokenizer->encode("漢");  // three bytes
  REQUIRE(ids.size() > 1);
  const Ids first(ids.begin(), ids.begin() + 1);
  CHECK(tokenizer->decode(first, false) == std::string("漢").substr(0, tokenizer->decode(first, false).size()));
  CHECK(tokenizer->decode(first) == "\uFFFD");
  CHECK(tokenizer->token_text(first[0]) == "\uFFFD");
  CHECK(tokenizer->decode(ids, false) == "漢");
  CHECK(small("llama2")->token_text(small("llama2")->encode("the").front()).front() == ' ');
  CHECK_THROWS_AS(tokenizer->decode(Ids{tokenizer->size()}), InputError);
  CHECK_THROWS_AS(tokenizer->decode(Ids{-1}), InputError);
  CHECK_THROWS_AS(tokenizer->token_text(1'000'000), InputError);
}

TEST_CASE("one tokenizer serves many threads", "[tokenizer]") {
  const auto tokenizer = small("llama3");
  const std::string text = "The river rose in the night, 水が来た and 12 sacks were lost. ";
  const Ids expected = tokenizer->encode(text);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) wrong += tokenizer->encode(text) != expected;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("a long word takes no more than its share of time", "[tokenizer]") {
  const std::string word(200'000, 'a');
  const auto tokenizer = small("gpt2");
  CHECK(tokenizer->decode(tokenizer->encode(word)) == " " + word);
}

TEST_CASE("a Hugging Face tokenizer's files are carried on as they are", "[tokenizer]") {
  const std::string tokenizer = small_json("llama3").dump(3), config = R"({"eos_token": "</s>"})";
  const TemporaryFolder folder;
  write_bytes(folder / "tokenizer.json", tokenizer);
  write_bytes(folder / "tokenizer_config.json", config);
  write_bytes(folder / "chat_template.jinja", "{{ bos_token }}");
  write_bytes(folder / "model.safetensors", "");
  const auto loaded = Tokenizer::load(folder / "model.safetensors");
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"tokenizer.json", tokenizer}, {"tokenizer_config.json", config}, {"chat_template.jinja", "{{ bos_token }}"}};
  CHECK(loaded->files() == expected);
  CHECK(loaded->chat_template() == "{{ bos_token }}");
}

TEST_CASE("a tokenizer in GGUF encodes, and its written form does too", "[tokenizer][gguf]") {
  GgufBuilder gguf = byte_level_gguf();
  gguf.set("tokenizer.chat_template", "{{ eos_token }}");
  const auto tokenizer = load_gguf(gguf);
  CHECK(tokenizer->size() == 8);
  CHECK(tokenizer->encode("abcab a<user><end>") == Ids{5, 4, 6, 1, 7, 0});
  CHECK(tokenizer->encode("a", true) == Ids{1});
  CHECK(tokenizer->eos() == 0);
  CHECK(tokenizer->is_special(0));
  CHECK_FALSE(tokenizer->is_special(7));
  CHECK(tokenizer->decode(Ids{5, 6, 4}) == "abc ab");
  const auto written = load_files(tokenizer->files());
  CHECK(written->encode("abcab a<user><end>", true) == Ids{5, 4, 6, 1, 7, 0});
  CHECK(written->eos() == 0);
  CHECK(written->chat_template() == "{{ eos_token }}");
}

TEST_CASE("add_bos_token and the pre-tokenizer's own rule decide on a BOS", "[tokenizer][gguf]") {
  GgufBuilder asked = byte_level_gguf();
  asked.set("tokenizer.ggml.add_bos_token", true);
  CHECK(load_gguf(asked)->encode("a", true) == Ids{0, 1});
  CHECK(load_files(load_gguf(asked)->files())->encode("a", true) == Ids{0, 1});
  CHECK(load_gguf(asked)->encode("a") == Ids{1});
}

TEST_CASE("SentencePiece scores in GGUF become merges", "[tokenizer][gguf]") {
  const auto tokenizer = load_gguf(scored_gguf());
  const auto id = [&](const char* text) {  // by their order above
    const std::vector<std::string> pieces = {"▁t", "he", "▁the", "▁", "t", "h", "e", "n", "en", "▁then"};
    return 259 + (std::find(pieces.begin(), pieces.end(), text) - pieces.begin());
  };
  CHECK(tokenizer->encode("the") == Ids{id("▁the")});
  CHECK(tokenizer->encode("then the") == Ids{id("▁then"), id("▁the")});
  CHECK(tokenizer->encode("é", true) == Ids{1, id("▁"), 3 + 0xC3, 3 + 0xA9});
  CHECK(tokenizer->decode(tokenizer->encode("then é")) == "then é");
  CHECK(tokenizer->encode("<s>the") == Ids{1, id("▁the")});
  const auto written = load_files(tokenizer->files());
  CHECK(written->encode("then thé the", true) == tokenizer->encode("then thé the", true));
}

TEST_CASE("a GGUF tokenizer that is not reproduced or not sound is refused by name", "[tokenizer][gguf][hostile]") {
  const auto refusal = [](const GgufBuilder& gguf, const std::string& named) {
    CHECK_THROWS_AS(load_gguf(gguf), InputError);
    CHECK_THROWS_WITH(load_gguf(gguf), Catch::Contains(named));
  };
  const auto without = [](const std::string& key, const auto& replace) {
    // Later keys with an earlier one's name would be duplicates, so the file is put together anew.
    GgufBuilder gguf;
    const std::vector<std::string> tokens = {"<end>", "a", "b", "ab"};
    if (key != "model") gguf.set("tokenizer.ggml.model", "gpt2");
    if (key != "pre") gguf.set("tokenizer.ggml.pre", "gpt-2");
    if (key != "tokens") gguf.set("tokenizer.ggml.tokens", tokens);
    if (key != "token_type") gguf.pair("tokenizer.ggml.token_type", 9, gguf_array<std::int32_t>(5, {3, 1, 1, 1}));
    if (key != "merges") gguf.set("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
    replace(gguf);
    return gguf;
  };
  const auto nothing = [](GgufBuilder&) {};
  REQUIRE_NOTHROW(load_gguf(without("", nothing)));
  refusal(without("model", nothing), "tokenizer.ggml.model");
  refusal(without("model", [](auto& g) { g.set("tokenizer.ggml.model", "t5"); }), "'t5'");
  refusal(without("pre", [](auto& g) { g.set("tokenizer.ggml.pre", "viking"); }), "'viking'");
  refusal(without("pre", nothing), "tokenizer.ggml.pre");
  refusal(without("tokens", nothing), "tokens is missing");
  refusal(without("tokens", [](auto& g) { g.set("tokenizer.ggml.tokens", 7u); }), "wrong type");
  refusal(without("tokens",
                  [](auto& g) {
                    g.set("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "a", "ab"});
                  }),
          "same text");
  refusal(without("tokens",
                  [](auto& g) {
                    g.set("tokenizer.ggml.tokens", std::vector<std::string>{"\xFF", "a", "b", "ab"});
                  }),
          "not UTF-8");
  refusal(without("token_type", nothing), "token_type");
  refusal(without("merges", [](auto& g) { g.set("tokenizer.ggml.merges", std::vector<std::string>{"a z"}); }), "'z'");
  refusal(without("merges", [](auto& g) { g.set("tokenizer.ggml.merges", std::vector<std::string>{"b a"}); }), "'ba'");
  refusal(without("merges", [](auto& g) { g.set("tokenizer.ggml.merges", std::vector<std::string>{"ab"}); }),
          "not a pair");
  refusal(without("", [](auto& g) { g.set("tokenizer.ggml.eos_token_id", 4u); }), "eos_token_id is 4");
}

TEST_CASE("what a tokenizer.json has that is not reproduced is refused by name", "[tokenizer][hostile]") {
  const auto refusal = [](const char* pointer, const json& value, const std::string& named) {
    json tokenizer = small_json("llama3");
    tokenizer[json::json_pointer(pointer)] = value;
    INFO(pointer << " = " << value.dump());
    CHECK_THROWS_AS(load_json(tokenizer), InputError);
    CHECK_THROWS_WITH(load_json(tokenizer), Catch::Contains(named) && Catch::Contains("tokenizer.json"));
  };
  refusal("/model/type", "Unigram", "'Unigram'");
  refusal("/model/dropout", 0.1, "dropout");
  refusal("/model/end_of_word_suffix", "</w>", "end_of_word_suffix");
  refusal("/model/continuing_subword_prefix", "##", "continuing_subword_prefix");
  refusal("/model/unk_token", "<none>", "'<none>'");
  refusal("/model/vocab", nullptr, "model.vocab");
  refusal("/model/vocab", json::object(), "model.vocab");
  refusal("/model/vocab/~0", 7, "'~'");    // an id given twice
  refusal("/model/vocab/~0", 600, "'~'");  // beyond the last
  refusal("/model/vocab/~0", -1, "'~'");
  refusal("/model/vocab/~0", "x", "'~'");
  refusal("/model/merges", "a b", "model.merges");
  refusal("/model/merges/0", "a", "not a pair");
  refusal("/model/merges/0", "a b c", "not a pair");
  refusal("/model/merges/0", json::array({"a"}), "not a pair");
  refusal("/model/merges/0", json::array({"a", "nothing"}), "'nothing'");
  refusal("/normalizer", {{"type", "NFKC"}}, "'NFKC'");
  refusal("/normalizer", {{"type", "Replace"}, {"pattern", {{"String", ""}}}, {"content", "x"}}, "empty");
  refusal("/pre_tokenizer", {{"type", "Whitespace"}}, "'Whitespace'");
  refusal("/pre_tokenizer", {{"type", 7}}, "a string is expected");
  refusal("/pre_tokenizer/pretokenizers/0/behavior", "Sometimes", "'Sometimes'");
  refusal("/decoder", {{"type", "WordPiece"}}, "'WordPiece'");
  refusal("/post_processor", {{"type", "BertProcessing"}}, "'BertProcessing'");
  refusal("/post_processor/processors/1/special_tokens/<s>/ids/0", 9999, "9999");
  refusal("/post_processor/processors/1/single", json::array(), "leaves the text out");
  refusal("/added_tokens/0/id", 5, "'<s>' has the id 5");
  refusal("/added_tokens/0/content", "", "without text");
  refusal("/added_tokens/1/content", "<s>", "added twice");
  refusal("/added_tokens/0/special", "yes", "true or false");
  for (const char* expression :
       {R"(\w+)",        R"(\bword)", R"((?<name>a))", R"((a)\1)",   R"([[:alpha:]])", R"([a&&b])", R"(\p{Greek})",
        R"(^a)",         R"(a$)",     R"(a**)",        R"(a{1,2}?)", R"((?i:ss))",     R"((?i:é))", R"((?i:\p{L}))",
        R"((?i:[a-z]))", R"(a|)",     R"((?=a))",      R"(a)b)",     R"((a)",          R"([a)",     R"([z-a])",
        R"(a{2000})",    R"(\p{L)",   R"(\x{110000})", R"(\)"}) {
    refusal("/pre_tokenizer/pretokenizers/0/pattern", {{"Regex", expression}}, "is not reproduced");
  }
}

TEST_CASE("hostile tokenizer.json files end in an error", "[tokenizer][hostile]") {
  json nested = {{"type", "ByteLevel"}};
  for (int i = 0; i < 20; ++i) nested = {{"type", "Sequence"}, {"pretokenizers", json::array({nested})}};
  json tokenizer = small_json("gpt2");
  tokenizer["pre_tokenizer"] = nested;
  CHECK_THROWS_AS(load_json(tokenizer), InputError);
  json many = json::array();
  for (int i = 0; i < 1000; ++i) many.push_back({{"type", "ByteLevel"}});
  tokenizer["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", many}};
  CHECK_THROWS_AS(load_json(tokenizer), InputError);
  CHECK_THROWS_AS(load_files({{"tokenizer.json", std::string(100'000, '[')}}), InputError);
  CHECK_THROWS_AS(load_files({{"tokenizer.json", "[]"}}), InputError);
  CHECK_THROWS_AS(load_files({{"tokenizer.json", ""}}), InputError);
  CHECK_THROWS_AS(load_files({{"tokenizer.json", "{}"}}), InputError);
  CHECK_THROWS_WITH(load_files({}), Catch::Contains("save_pretrained"));
  CHECK_THROWS_WITH(Tokenizer::load("/nowhere/at/all"), Catch::Contains("/nowhere/at/all"));
}

TEST_CASE("a damaged tokenizer.json is read or refused, never more", "[tokenizer][hostile]") {
  std::mt19937 random(11);
  const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
  for (const char* name : {"llama3", "llama2", "metaspace"}) {
    const std::string sound = read_bytes(kSmall + name + "/tokenizer.json");
    for (int round = 0; round < 120; ++round) {
      std::string damaged = sound;
      for (std::size_t i = below(3) + 1; i > 0; --i) {
        switch (below(4)) {
          case 0:
            damaged[below(damaged.size())] = static_cast<char>(below(256));
            break;
          case 1:
            damaged.erase(below(damaged.size()), below(20));
            break;
          case 2:
            damaged.resize(damaged.size() - below(damaged.size() / 8));
            break;
          default:
            damaged.insert(below(damaged.size()), damaged.substr(below(damaged.size()), below(30)));
        }
      }
      try {
        const auto tokenizer = load_files({{"tokenizer.json", damaged}});
        tokenizer->decode(tokenizer->encode("The <s> river's 12 水\n\n over", true));
      } catch (const InputError&) {
      }
    }
  }
  SUCCEED();
}
