// A process that is killed while it writes an edited model leaves the whole of it, or nothing under its name.

#include <ATen/Parallel.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <functional>

#include "editing/ledger_history.hpp"
#include "tests/support/gguf_builder.hpp"
#include "tests/unit/editing/edited_models.hpp"

using namespace proviso;
using namespace proviso::test;

namespace fs = std::filesystem;

namespace {

constexpr int kMoments = 24;  // spread over what the whole takes

/// What `write` makes of a fresh path, killed at moments from its start to past its end; `whole` says what must hold
/// where it has appeared.
void kill_at_all_moments(const std::function<void(const std::string& path)>& write,
                         const std::function<void(const std::string& path)>& whole, const char* name) {
  const auto start = std::chrono::steady_clock::now();
  {
    TemporaryFolder folder;
    write(folder / name);
    whole(folder / name);
  }
  const auto taken = std::chrono::steady_clock::now() - start;
  int finished = 0, stopped = 0;
  for (int moment = 0; moment < kMoments; ++moment) {
    TemporaryFolder folder;
    const std::string path = folder / name;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      at::set_num_threads(1);  // a forked process has no threads but this
      write(path);
      ::_exit(0);
    }
    const auto wait = std::chrono::duration_cast<std::chrono::microseconds>(taken * moment / (kMoments * 3 / 4));
    ::usleep(static_cast<useconds_t>(wait.count()));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    INFO("killed after " << wait.count() << " µs");
    if (fs::exists(path)) {
      ++finished;
      whole(path);
      continue;
    }
    ++stopped;
    // What is left has other names, and does not keep the next one from writing.
    for (const auto& entry : fs::directory_iterator(folder.path())) {
      const auto left = entry.path().filename().string();
      CHECK((left.starts_with(".") || left == std::string(name) + ".proviso"));
    }
    write(path);
    whole(path);
  }
  CHECK(stopped > 0);
  CHECK(finished + stopped == kMoments);
}

}  // namespace

TEST_CASE("a kill at any moment of writing an edited folder, or its source back, leaves the old or the new") {
  const RandomModel random;
  const auto entries = entries_for(*random.transformer);
  const auto source = files_in(random.folder.path());
  TemporaryFolder made;
  editing::write_edited_model(*random.transformer, *random.tokenizer, entries, {made / "edited"});
  const auto verified = [](const std::string& path) { CHECK_NOTHROW(editing::verify_edited_model(path)); };
  kill_at_all_moments(
      [&](const std::string& path) {
        editing::write_edited_model(*random.transformer, *random.tokenizer, entries, {path});
      },
      verified, "edited");
  kill_at_all_moments([&](const std::string& path) { editing::revert_edited_model(made / "edited", path); },
                      [&](const std::string& path) { CHECK(files_in(path) == source); }, "before");
  kill_at_all_moments([&](const std::string& path) { editing::drop_edit(made / "edited", entries[0].name, path); },
                      verified, "dropped");
  kill_at_all_moments([&](const std::string& path) { editing::squash_edits(made / "edited", path); }, verified,
                      "squashed");
  CHECK_NOTHROW(editing::verify_edited_model(made / "edited"));
  CHECK(files_in(random.folder.path()) == source);
}

TEST_CASE("a kill at any moment of writing a GGUF file leaves the whole of it, or nothing under its name") {
  const RandomModel tokenizer_source;
  TemporaryFolder folder;
  write_bytes(folder / "tiny.gguf", gguf_of(tiny_model(tiny_llama_json())).bytes());
  const auto loaded = model::Transformer::load(model::read_model_card(folder / "tiny.gguf"), {});
  const auto entries = entries_for(*loaded);
  const editing::WrittenForm gguf{editing::WrittenForm::Kind::gguf};
  editing::write_edited_model(*loaded, *tokenizer_source.tokenizer, entries, {folder / "edited.gguf", gguf});
  kill_at_all_moments(
      [&](const std::string& path) {
        editing::write_edited_model(*loaded, *tokenizer_source.tokenizer, entries, {path, gguf});
      },
      [](const std::string& path) { CHECK_NOTHROW(editing::verify_edited_model(path)); }, "edited.gguf");
  const auto source = read_bytes(folder / "tiny.gguf");
  kill_at_all_moments([&](const std::string& path) { editing::revert_edited_model(folder / "edited.gguf", path); },
                      [&](const std::string& path) { CHECK(read_bytes(path) == source); }, "before.gguf");
}

TEST_CASE("records whose file was never put in place give way to the next, and others stay") {
  const RandomModel random;
  TemporaryFolder folder;
  const std::string out = folder / "out.gguf", records = out + ".proviso";
  using Kind = editing::WrittenForm::Kind;
  fs::create_directories(records);
  write_bytes(records + "/ledger.json", "{}");
  CHECK_THROWS_WITH(editing::require_new_output(out, Kind::gguf), Catch::Contains("exists already"));
  write_bytes(records + "/unfinished", "");  // as a kill between the two renames leaves them
  CHECK_NOTHROW(editing::require_new_output(out, Kind::gguf));
  write_bytes(out, "a file");
  CHECK_THROWS_WITH(editing::require_new_output(out, Kind::gguf), Catch::Contains("exists already"));
}
