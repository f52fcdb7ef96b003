#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>

#include "runtime/formats/gguf.hpp"
#include "runtime/formats/quantize.hpp"
#include "runtime/formats/safetensors.hpp"
#include "runtime/formats/sha256.hpp"
#include "tests/support/gguf_builder.hpp"
#include "tests/support/temporary_folder.hpp"

using namespace proviso::model;
using proviso::test::GgufBuilder;
using proviso::test::read_bytes;
using proviso::test::TemporaryFolder;
using proviso::test::write_bytes;

namespace {

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

#define CHECK_REFUSED(action, part) CHECK_THAT(message_of([&] { (void)(action); }), Catch::Contains(part))

/// A safetensors file of any header and data.
std::string safetensors_bytes(const std::string& header, std::size_t data) {
  return GgufBuilder::raw(std::uint64_t{header.size()}) + header + std::string(data, 'x');
}

}  // namespace

TEST_CASE("dequantized values are those of the gguf package, to the bit") {
  const std::string folder = PROVISO_SOURCE_DIR "/tests/parity/formats/";
  const GgufFile blocks = read_gguf(folder + "dequantize.gguf");
  const SafetensorsFile expected = read_safetensors(folder + "dequantize.safetensors");
  REQUIRE(blocks.tensors.size() == 10);
  for (const StoredTensor& tensor : blocks.tensors) {
    INFO(tensor.name);
    CHECK(element_type_name(tensor.type) == tensor.name);
    const auto reference = std::find_if(expected.tensors.begin(), expected.tensors.end(),
                                        [&](const StoredTensor& other) { return other.name == tensor.name; });
    REQUIRE(reference != expected.tensors.end());
    REQUIRE(reference->shape == tensor.shape);
    std::vector<float> values(static_cast<std::size_t>(tensor.elements())), wanted(values.size());
    dequantize(tensor, values);
    dequantize(*reference, wanted);
    std::size_t different = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const bool same = std::bit_cast<std::uint32_t>(values[i]) == std::bit_cast<std::uint32_t>(wanted[i]);
      if (!same && !(std::isnan(values[i]) && std::isnan(wanted[i]))) ++different;
    }
    CHECK(different == 0);
  }
}

TEST_CASE("quantized bytes are those of the gguf package") {
  const std::string folder = PROVISO_SOURCE_DIR "/tests/parity/formats/";
  const SafetensorsFile file = read_safetensors(folder + "quantize.safetensors");
  std::vector<float> values(static_cast<std::size_t>(file.tensors[0].elements()));
  dequantize(file.tensors[0], values);
  const GgufFile expected = read_gguf(folder + "quantize.gguf");
  REQUIRE(expected.tensors.size() == 5);
  for (const StoredTensor& tensor : expected.tensors) {
    INFO(tensor.name);
    CHECK(can_quantize(tensor.type));
    CHECK(std::ranges::equal(quantize(values, tensor.type), tensor.bytes));
  }
  CHECK_FALSE(can_quantize(ElementType::q6_k));
  CHECK_THROWS_AS(quantize(values, ElementType::q6_k), std::invalid_argument);
}

TEST_CASE("a GGUF file written from its own parts is the same, and keeps its metadata where a tensor changes") {
  TemporaryFolder folder;
  GgufBuilder builder;
  builder.set("general.architecture", "llama");
  builder.set("tokens", std::vector<std::string>{"a", "b"});
  builder.tensor("first", {2, 32}, 8, std::string(68, 'q'));
  builder.tensor("second", {3}, 0, std::string(12, 'f'));
  write_bytes(folder / "a.gguf", builder.bytes());
  const GgufFile source = read_gguf(folder / "a.gguf");
  std::vector<TensorToWrite> tensors;
  for (const StoredTensor& tensor : source.tensors)
    tensors.push_back({tensor.name, tensor.type, tensor.shape, tensor.bytes});
  write_gguf(folder / "same.gguf", source, tensors);
  CHECK(read_bytes(folder / "same.gguf") == builder.bytes());

  const std::vector<float> wide(64, 0.5f);
  tensors[0].type = ElementType::f32;
  tensors[0].bytes = std::as_bytes(std::span(wide));
  write_gguf(folder / "wide.gguf", source, tensors);
  const GgufFile changed = read_gguf(folder / "wide.gguf");
  CHECK(std::ranges::equal(changed.metadata_bytes, source.metadata_bytes));
  REQUIRE(changed.tensors.size() == 2);
  CHECK(changed.tensors[0].type == ElementType::f32);
  CHECK(changed.tensors[0].shape == std::vector<std::int64_t>{2, 32});
  CHECK(std::ranges::equal(changed.tensors[1].bytes, source.tensors[1].bytes));
}

TEST_CASE("every half-precision number is expanded exactly") {
  std::vector<std::uint16_t> halves(65536);
  for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
  std::vector<float> values(halves.size());
  dequantize({"halves", ElementType::f16, {65536}, std::as_bytes(std::span(halves)), nullptr}, values);
  std::size_t different = 0;
  for (std::size_t i = 0; i < halves.size(); ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31), fraction = static_cast<int>(i & 1023);
    double wanted = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) wanted = fraction ? NAN : INFINITY;
    if (i >> 15) wanted = -wanted;
    const bool same = std::isnan(wanted) ? std::isnan(values[i])
                                         : values[i] == wanted && std::signbit(values[i]) == std::signbit(wanted);
    different += !same;
  }
  CHECK(different == 0);
}

TEST_CASE("safetensors are read as they were written") {
  TemporaryFolder folder;
  const std::vector<float> a{1, 2, 3, 4, 5, 6};
  const std::vector<std::uint16_t> b{0x3f80, 0xc000};
  write_safetensors(folder / "x.safetensors",
                    {{"a", ElementType::f32, {2, 3}, std::as_bytes(std::span(a))},
                     {"b", ElementType::bf16, {2}, std::as_bytes(std::span(b))},
                     {"empty", ElementType::f16, {0, 4}, {}}},
                    {{"format", "pt"}});
  const SafetensorsFile file = read_safetensors(folder / "x.safetensors");
  CHECK(file.metadata.at("format") == "pt");
  REQUIRE(file.tensors.size() == 3);
  CHECK(file.tensors[0].name == "a");
  CHECK(file.tensors[0].shape == std::vector<std::int64_t>{2, 3});
  std::vector<float> values(6), halves(2);
  dequantize(file.tensors[0], values);
  CHECK(values == a);
  dequantize(file.tensors[1], halves);
  CHECK(halves == std::vector<float>{1, -2});
  CHECK(reinterpret_cast<std::uintptr_t>(file.tensors[0].bytes.data()) % 8 == 0);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);

  const std::vector<float> wrong{1};
  CHECK_THROWS_AS(write_safetensors(folder / "y", {{"a", ElementType::f32, {2}, std::as_bytes(std::span(wrong))}}),
                  std::invalid_argument);
}

TEST_CASE("tensors that cannot be weights are named, not read") {
  TemporaryFolder folder;
  write_bytes(folder / "x.safetensors",
              safetensors_bytes(R"({"__metadata__":null,"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]},)"
                                R"("ids":{"dtype":"I64","shape":[1],"data_offsets":[3,11]}})",
                                11));
  const SafetensorsFile file = read_safetensors(folder / "x.safetensors");
  CHECK(file.tensors.empty());
  CHECK(file.unread == std::map<std::string, std::string>{{"ids", "I64"}, {"mask", "BOOL"}});
}

TEST_CASE("safetensors that do not add up are refused") {
  TemporaryFolder folder;
  const std::string path = folder / "x.safetensors";
  const auto refused = [&](const std::string& header, std::size_t data, const std::string& part) {
    INFO(header);
    write_bytes(path, safetensors_bytes(header, data));
    CHECK_REFUSED(read_safetensors(path), part);
  };
  refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
          "shape [2] of F32 does not take the bytes from 0 to 4");
  refused(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
      8, "overlaps");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "gap");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8, "4 bytes at the end belong to no tensor");
  refused(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", 8, "passes the end");
  refused(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      8, "'a' is given twice");
  refused(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}})", 0,
          "does not take the bytes");
  refused(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "natural number");
  refused(R"({"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,4]}})", 4, "type 'Q9'");
  refused(R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, "no valid 'dtype'");
  refused(R"(["a"])", 0, "object was expected");
  refused(R"({"a":)", 0, "not valid JSON");
  refused(R"({"a":)" + std::string(100000, '[') + "}", 0, "nested deeper");
  write_bytes(path, GgufBuilder::raw(std::uint64_t{1} << 60) + "{}");
  CHECK_REFUSED(read_safetensors(path), "cut short");
  write_bytes(path, "");
  CHECK_REFUSED(read_safetensors(path), "cut short");
  CHECK_REFUSED(read_safetensors(folder / "absent"), "No such file");
  CHECK_REFUSED(read_safetensors(folder.path().string()), "is not a file");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_REFUSED(read_safetensors(folder / "pipe"), "is not a file");
}

TEST_CASE("GGUF metadata and tensors are read, in versions 2 and 3") {
  TemporaryFolder folder;
  GgufBuilder builder;
  builder.version = GENERATE(2u, 3u);
  builder.set("count", 7u);
  builder.set("share", 0.5f);
  builder.set("flag", true);
  builder.set("words", std::vector<std::string>{"a", "bc"});
  builder.pair("negative", 11, GgufBuilder::raw(std::int64_t{-3}));
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  builder.tensor("t", {2, 3}, 0, std::string(reinterpret_cast<const char*>(values.data()), 24));
  builder.tensor("q", {2, 32}, 8, std::string(68, '\1'));
  write_bytes(folder / "x.gguf", builder.bytes());

  const GgufFile file = read_gguf(folder / "x.gguf");
  CHECK(std::get<std::int64_t>(file.find("count")->value) == 7);
  CHECK(std::get<double>(file.find("share")->value) == 0.5);
  CHECK(std::get<bool>(file.find("flag")->value));
  CHECK(std::get<std::int64_t>(file.find("negative")->value) == -3);
  CHECK(std::get<std::string>(std::get<GgufArray>(file.find("words")->value)[1].value) == "bc");
  CHECK(file.find("absent") == nullptr);
  REQUIRE(file.tensors.size() == 2);
  CHECK(file.tensors[0].shape == std::vector<std::int64_t>{2, 3});
  std::vector<float> read(6);
  dequantize(file.tensors[0], read);
  CHECK(read == values);
  CHECK(file.tensors[1].type == ElementType::q8_0);
}

TEST_CASE("GGUF files that do not add up are refused") {
  TemporaryFolder folder;
  const std::string path = folder / "x.gguf";
  const auto refused = [&](const std::string& bytes, const std::string& part) {
    write_bytes(path, bytes);
    CHECK_REFUSED(read_gguf(path), part);
  };
  const auto refused_with = [&](const std::function<void(GgufBuilder&)>& change, const std::string& part) {
    GgufBuilder builder;
    change(builder);
    refused(builder.bytes(), part);
  };
  const std::string huge = GgufBuilder::raw(std::uint64_t{1} << 62);
  refused("PK\3\4aaaaaaaaaaaaaaaaaaaaaaa", "does not begin with GGUF");
  refused("", "does not begin with GGUF");
  refused(std::string("GGUF\0\0\0\3", 8) + std::string(64, '\0'), "big-endian");
  refused("GGUF" + GgufBuilder::raw(1u) + std::string(64, '\0'), "version 1");
  refused("GGUF" + GgufBuilder::raw(3u) + huge + GgufBuilder::raw(std::uint64_t{0}), "tensors, more than it can hold");
  refused("GGUF" + GgufBuilder::raw(3u) + GgufBuilder::raw(std::uint64_t{0}) + huge, "metadata, more than it can hold");
  refused_with([&](GgufBuilder& b) { b.pair("a", 9, GgufBuilder::raw(4u) + huge); },
               "array values, more than it can hold");
  refused_with([&](GgufBuilder& b) { b.pair("a", 8, huge); }, "ends in the middle");
  refused_with([&](GgufBuilder& b) { b.pair("a", 99, huge); }, "unknown type 99");
  refused_with([&](GgufBuilder& b) { b.pair("a", 10, GgufBuilder::raw(std::uint64_t{1} << 63)); }, "beyond 2^63");
  refused_with([&](GgufBuilder& b) { b.set("a", 1u), b.set("a", 2u); }, "'a' twice");
  refused_with(
      [&](GgufBuilder& b) {
        std::string nested;
        for (int i = 0; i < 10; ++i) nested += GgufBuilder::raw(9u) + GgufBuilder::raw(std::uint64_t{1});
        b.pair("a", 9, nested);
      },
      "too deeply");
  refused_with([&](GgufBuilder& b) { b.tensor("t", {2, 32}, 10, std::string(64, 'x')); }, "ggml type 10");
  refused_with([&](GgufBuilder& b) { b.tensor("t", {32, 2}, 8, std::string(68, 'x')); }, "no whole blocks of Q8_0");
  refused_with([&](GgufBuilder& b) { b.tensor("t", {1, 1, 1, 1, 8}, 0, std::string(32, 'x')); }, "5 dimensions");
  refused_with([&](GgufBuilder& b) { b.tensor("t", {0}, 0, ""); }, "the size 0");
  refused_with([&](GgufBuilder& b) { b.entry("t", {1 << 20, 1 << 20, 1 << 20, 1 << 20}, 0, 0); }, "impossible shape");
  refused_with([&](GgufBuilder& b) { b.entry("t", {1024}, 0, 0); }, "passes the end");
  refused_with([&](GgufBuilder& b) { b.entry("t", {1}, 0, 7); }, "not aligned");
  refused_with(
      [&](GgufBuilder& b) {
        b.tensor("t", {16}, 0, std::string(64, 'x'));
        b.entry("u", {8}, 0, 32);
      },
      "overlaps");
  refused_with(
      [&](GgufBuilder& b) {
        b.tensor("t", {8}, 0, std::string(32, 'x'));
        b.tensor("t", {8}, 0, std::string(32, 'x'));
      },
      "'t' twice");
  refused_with([&](GgufBuilder& b) { b.set("general.alignment", 3u); }, "power of two");
}

TEST_CASE("the hash of files is theirs, and is remembered until one changes") {
  CHECK(sha256_hex({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  TemporaryFolder folder;
  write_bytes(folder / "a", "ab");
  write_bytes(folder / "b", "c");
  const std::vector<std::string> files{folder / "a", folder / "b"};
  const std::string abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  CHECK(sha256_of_files(files, "") == abc);
  CHECK(sha256_of_files(files, folder / "cache") == abc);
  const auto entry = std::filesystem::directory_iterator(folder / "cache/sha256")->path().string();
  CHECK(read_bytes(entry) == abc + "\n");

  write_bytes(entry, std::string(64, '0') + "\n");
  CHECK(sha256_of_files(files, folder / "cache") == std::string(64, '0'));
  write_bytes(entry, "damaged");
  CHECK(sha256_of_files(files, folder / "cache") == abc);
  write_bytes(folder / "b", "cd");
  CHECK(sha256_of_files(files, folder / "cache") == "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589");
  CHECK(sha256_of_files(files, "/dev/null/cache") ==
        "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589");
}
