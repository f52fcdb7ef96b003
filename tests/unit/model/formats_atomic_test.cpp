#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/tensor_file.hpp"
#include "tests/support/small_disk.hpp"
#include "tests/support/temporary_folder.hpp"

using namespace proviso::model;
using proviso::test::read_bytes;
using proviso::test::SmallDisk;
using proviso::test::TemporaryFolder;
using proviso::test::write_bytes;
namespace fs = std::filesystem;

namespace {

std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator{}));
}

}  // namespace

TEST_CASE("a file is replaced whole or not at all") {
  TemporaryFolder folder;
  const std::string path = folder / "report.yaml";
  write_file_atomically(path, "first");
  write_file_atomically(path, "second");
  CHECK(read_bytes(path) == "second");
  {
    AtomicFile file(path);
    file.write("half");
    CHECK(read_bytes(path) == "second");
  }
  CHECK(read_bytes(path) == "second");
  CHECK(entries(folder.path()) == 1);
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  write_file_atomically(path, "third");
  CHECK(fs::status(path).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
}

TEST_CASE("a full disk leaves the old file, and nothing else") {
  TemporaryFolder folder;
  const std::string path = folder / "weights";
  write_bytes(path, "old");
  {
    SmallDisk disk(1000);
    CHECK_THROWS_WITH(write_file_atomically(path, std::string(5000, 'x')), Catch::Contains("free some space"));
    CHECK_THROWS_AS(write_file_atomically(path, std::string(5000, 'x')), MachineError);
  }
  CHECK(read_bytes(path) == "old");
  CHECK(entries(folder.path()) == 1);
  CHECK_THROWS_AS(write_file_atomically("/dev/full", "x"), MachineError);
}

TEST_CASE("a device is written to, never replaced") {
  write_file_atomically("/dev/null", "anything");
  CHECK(fs::is_character_file("/dev/null"));
}

TEST_CASE("a file that cannot be written says what to do") {
  TemporaryFolder folder;
  CHECK_THROWS_AS(write_file_atomically(folder / "absent/report.yaml", "x"), InputError);
  CHECK_THROWS_WITH(write_file_atomically(folder / "absent/report.yaml", "x"), Catch::Contains("create its folder"));
  CHECK_THROWS_AS(write_file_atomically(folder.path().string(), "x"), InputError);
  CHECK_THROWS_AS(write_file_atomically("", "x"), InputError);
  CHECK_THROWS_AS(write_file_atomically("/proc/report.yaml", "x"), std::runtime_error);
}

TEST_CASE("a kill in the middle of writing leaves the old file") {
  TemporaryFolder folder;
  const std::string path = folder / "weights";
  write_bytes(path, "old");
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(path);
    file.write(std::string(100, 'x'));
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));
  CHECK(read_bytes(path) == "old");
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    const std::string name = entry.path().filename().string();
    CHECK((name == "weights" || name.starts_with(".weights.")));
  }
}

TEST_CASE("a signal that ends the program leaves nothing half-written") {
  TemporaryFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    remove_temporaries_on_signals();
    AtomicFile report(folder / "report.yaml");
    write_directory_atomically(folder / "edited", [](const std::string& temporary) {
      fs::create_directories(temporary + "/proviso/originals");
      write_bytes(temporary + "/proviso/originals/config.json", "{}");
      AtomicFile weights(temporary + "/model.safetensors");
      weights.write(std::string(100, 'x'));
      ::raise(SIGTERM);
    });
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGTERM);
  CHECK(entries(folder.path()) == 0);
}

TEST_CASE("what cannot be written is known before the work, and asking leaves nothing") {
  TemporaryFolder folder;
  require_writable(folder / "report.yaml");
  require_writable("/dev/null");
  require_new_directory(folder / "edited/");
  CHECK_THROWS_AS(require_writable(folder / "absent/report.yaml"), InputError);
  CHECK_THROWS_AS(require_writable(""), InputError);
  CHECK_THROWS_AS(require_new_directory(folder / "absent/edited"), InputError);
  CHECK_THROWS_WITH(require_new_directory(folder.path().string()), Catch::Contains("not overwritten"));
  CHECK(entries(folder.path()) == 0);
}

TEST_CASE("a kill at any moment leaves no folder, or the whole of it") {
  for (int microseconds = 0; microseconds < 20000; microseconds += 500) {
    TemporaryFolder folder;
    const std::string path = folder / "edited";
    const pid_t child = ::fork();
    if (child == 0) {
      write_directory_atomically(path, [](const std::string& temporary) {
        for (int i = 0; i < 20; ++i)
          write_file_atomically(temporary + "/" + std::to_string(i), std::string(10000, 'x'));
      });
      ::_exit(0);
    }
    ::usleep(static_cast<unsigned>(microseconds));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    if (!fs::exists(path)) continue;
    CHECK(entries(path) == 20);
    for (int i = 0; i < 20; ++i) CHECK(fs::file_size(path + "/" + std::to_string(i)) == 10000);
  }
}

TEST_CASE("a folder appears whole or not at all, and replaces nothing") {
  TemporaryFolder folder;
  const std::string path = folder / "edited";
  CHECK_THROWS_WITH(write_directory_atomically(path,
                                               [&](const std::string& temporary) {
                                                 write_bytes(temporary + "/config.json", "{}");
                                                 CHECK_FALSE(fs::exists(path));
                                                 throw std::runtime_error("stopped");
                                               }),
                    "stopped");
  CHECK(entries(folder.path()) == 0);

  write_directory_atomically(path + "/",
                             [](const std::string& temporary) { write_bytes(temporary + "/config.json", "{}"); });
  CHECK(read_bytes(path + "/config.json") == "{}");
  CHECK(entries(folder.path()) == 1);

  const auto unexpected = [](const std::string&) {
    FAIL("an existing folder must be refused before anything is made");
  };
  CHECK_THROWS_AS(write_directory_atomically(path, unexpected), InputError);
  fs::create_directory(folder / "empty");
  CHECK_THROWS_WITH(write_directory_atomically(folder / "empty", unexpected), Catch::Contains("not overwritten"));
  CHECK_THROWS_AS(write_directory_atomically(folder / "absent/edited", unexpected), InputError);

  const std::string raced = folder / "raced";
  CHECK_THROWS_AS(write_directory_atomically(raced, [&](const std::string&) { fs::create_directory(raced); }),
                  InputError);
  CHECK(fs::is_empty(raced));
}
