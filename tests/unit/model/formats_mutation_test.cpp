#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <functional>
#include <random>

#include "runtime/model/model_card.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/tiny_model.hpp"

using namespace proviso::model;
using namespace proviso::test;

namespace {

/// Address space that reading a damaged file of a few kilobytes may take beyond what the process has.
[[maybe_unused]] constexpr std::size_t kMostMemory = std::size_t{256} << 20;

/// A file with one thing wrong with it, never the same twice.
class Mutator {
 public:
  explicit Mutator(std::string bytes) : bytes_(std::move(bytes)) {}

  std::string next() {
    switch (below(8)) {
      case 0:
        return bytes_.substr(0, below(bytes_.size()));
      case 1:
        return with_number(below(256));
      case 2:
        return with_number(bytes_.size() + below(16));
      case 3:
        return with_number((std::uint64_t{1} << below(64)) - below(2));
      case 4:
        return with_copied_run();
      case 5:
        return bytes_ + std::string(1 + below(64), static_cast<char>(below(256)));
      default:
        return with_flips(1 + below(8));
    }
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
  // Half of the damage goes to the front, where counts, lengths and names are.
  std::size_t place() { return below(below(2) ? bytes_.size() : std::min<std::size_t>(bytes_.size(), 600)); }

  std::string with_flips(std::uint64_t count) {
    std::string bytes = bytes_;
    while (count-- > 0) bytes[place()] ^= static_cast<char>(1 << below(8));
    return bytes;
  }
  std::string with_number(std::uint64_t number) {
    std::string bytes = bytes_;
    const std::string raw = GgufBuilder::raw(number);
    const std::size_t at = place();
    return bytes.replace(at, std::min(raw.size(), bytes.size() - at), raw, 0, std::min(raw.size(), bytes.size() - at));
  }
  /// Names, entries and offsets given twice.
  std::string with_copied_run() {
    std::string bytes = bytes_;
    const std::string run = bytes_.substr(place(), 1 + below(64));
    return below(2) ? bytes.insert(place(), run) : bytes.replace(place(), run.size(), run);
  }

  std::string bytes_;
  std::mt19937_64 random_{7};
};

/// Reads a model and every number in it. Anything but success and `InputError` is what this test is about.
std::string read_all(const std::string& path) {
  try {
    const ModelCard card = read_model_card(path);
    for (const CardTensor& tensor : card.tensors) {
      std::vector<float> values(static_cast<std::size_t>(tensor.stored.elements()));
      dequantize(tensor.stored, values);
    }
  } catch (const InputError& error) {
    return *error.what() ? "" : "an error without a message";
  } catch (const std::exception& error) {
    return std::string("not an InputError: ") + error.what();
  }
  return "";
}

/// Bounds what this process may still take. AddressSanitizer reserves the address space itself: no bound there.
void bound_memory() {
#ifndef __SANITIZE_ADDRESS__
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t limit = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + kMostMemory;
  const rlimit bound{limit, limit};
  ::setrlimit(RLIMIT_AS, &bound);
#endif
}

/// Runs `work` in a process that may take `kMostMemory` and two minutes, and returns what it reports.
std::string in_bounded_process(const std::function<std::string()>& work) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(120);
    bound_memory();
    const std::string report = work();
    const bool written = ::write(ends[1], report.data(), report.size()) == static_cast<ssize_t>(report.size());
    ::_exit(written ? 0 : 1);
  }
  ::close(ends[1]);
  std::string report;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    report.append(buffer, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) report += "killed by signal " + std::to_string(WTERMSIG(status));
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) report += "ended with " + std::to_string(WEXITSTATUS(status));
  return report;
}

/// Writes `count` mutations of `file` in place, one after the other, and reads `model` each time.
std::string survive(const std::string& file, const std::string& model, int count) {
  const std::string original = read_bytes(file);
  return in_bounded_process([&] {
    Mutator mutator(original);
    for (int i = 0; i < count; ++i) {
      write_bytes(file, mutator.next());
      const std::string report = read_all(model);
      if (!report.empty()) return "mutation " + std::to_string(i) + ": " + report;
    }
    return std::string();
  });
}

}  // namespace

TEST_CASE("damaged model files are read or refused, in bounded memory") {
  TemporaryFolder folder;
  SECTION("GGUF, llama") {
    write_bytes(folder / "x.gguf", gguf_of(tiny_model(tiny_llama_json())).bytes());
    CHECK(survive(folder / "x.gguf", folder / "x.gguf", 600) == "");
  }
  SECTION("GGUF, gpt2") {
    write_bytes(folder / "x.gguf", gguf_of(tiny_model(tiny_gpt2_json())).bytes());
    CHECK(survive(folder / "x.gguf", folder / "x.gguf", 300) == "");
  }
  SECTION("safetensors") {
    write_hugging_face(tiny_model(tiny_llama_json()), folder / "tiny");
    CHECK(survive(folder / "tiny/model.safetensors", folder / "tiny", 600) == "");
  }
  SECTION("config.json") {
    write_hugging_face(tiny_model(tiny_llama_json()), folder / "tiny");
    CHECK(survive(folder / "tiny/config.json", folder / "tiny", 300) == "");
  }
  SECTION("the index of shards") {
    const TinyModel tiny = tiny_model(tiny_gpt2_json());
    write_hugging_face(tiny, folder / "tiny");
    std::filesystem::rename(folder / "tiny/model.safetensors", folder / "tiny/one.safetensors");
    nlohmann::json map;
    for (const auto& tensor : tiny.tensors) map[at_layer(tensor.spec->name, tensor.layer)] = "one.safetensors";
    write_bytes(folder / "tiny/model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
    CHECK(survive(folder / "tiny/model.safetensors.index.json", folder / "tiny", 300) == "");
  }
}

TEST_CASE("JSON nested without end is refused, in bounded memory") {
  TemporaryFolder folder;
  write_hugging_face(tiny_model(tiny_llama_json()), folder / "tiny");
  write_bytes(folder / "tiny/config.json", R"({"a":)" + std::string(20'000'000, '['));
  CHECK(in_bounded_process([&] { return read_all(folder / "tiny"); }) == "");
}
