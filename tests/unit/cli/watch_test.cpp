#include "cli/watch.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <csignal>
#include <functional>
#include <mutex>
#include <sstream>
#include <streambuf>
#include <string>
#include <thread>

#include "cli/program.hpp"
#include "tests/support/random_model.hpp"

namespace proviso::cli {
namespace {

/// A stream that one thread writes and another looks at.
class Shared : public std::streambuf {
 public:
  std::string text() {
    const std::lock_guard held(mutex_);
    return text_;
  }

 protected:
  int_type overflow(int_type c) override {
    const std::lock_guard held(mutex_);
    text_ += static_cast<char>(c);
    return c;
  }
  std::streamsize xsputn(const char* text, std::streamsize size) override {
    const std::lock_guard held(mutex_);
    text_.append(text, static_cast<std::size_t>(size));
    return size;
  }

 private:
  std::mutex mutex_;
  std::string text_;
};

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

bool comes_true(const std::function<bool()>& question) {
  for (int look = 0; look < 600; ++look) {
    if (question()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return false;
}

TEST_CASE("a watched file has changed when it is written, replaced, gone or there at last") {
  using std::filesystem::file_time_type;
  const test::TemporaryFolder folder;
  const std::string file = folder / "a.txt", absent = folder / "b.txt";
  test::write_bytes(file, "one");
  const auto after = std::filesystem::last_write_time(file) + std::chrono::seconds(1);
  CHECK_FALSE(FileWatch({file, absent}, after).changed());
  const FileWatch watch({file}, after), coming({absent}, after);
  test::write_bytes(file, "one and two");
  CHECK(watch.changed());
  const FileWatch again({file}, after);
  std::filesystem::remove(file);
  CHECK(again.changed());
  CHECK_FALSE(coming.changed());
  test::write_bytes(absent, "");
  CHECK(coming.changed());
  // Written while the run was reading: whether it read the old or the new is not known.
  CHECK(FileWatch({absent}, std::filesystem::last_write_time(absent) - std::chrono::seconds(1)).changed());
  CHECK_FALSE(FileWatch({absent}, after + std::chrono::hours(1)).wait([] { return true; }));
}

TEST_CASE("test --watch runs again when a file that it read changes, goes on after mistakes, and ends on Ctrl-C") {
  const test::RandomModel model;
  const test::TemporaryFolder folder;
  const std::string file = folder / "r.proviso", prompts = folder / "p.txt";
  const std::string rule =
      "prompts p = from \"p.txt\"\nfeature f = contrast([\"The cat\"], [\"One two\"]) at mlp_out[0]\n"
      "rule r { suppress f when prompt matches /cat/  fires on p }\n";
  test::write_bytes(file, rule);
  test::write_bytes(prompts, "The cat\n");

  Shared out, err;
  int code = -1;
  std::thread program([&] {
    std::istringstream in;
    std::ostream results(&out), logs(&err);
    code = run({"test", file, "--model", model.folder.path().string(), "--cache", folder / "cache", "--watch"}, in,
               results, logs);
  });
  const auto waits = [&](int runs) { return comes_true([&] { return count(err.text(), "Ctrl-C ends") >= runs; }); };
  CHECK(waits(1));
  CHECK(count(out.text(), "fired on 1 of 1 prompts") == 1);
  test::write_bytes(prompts, "The cat\nA dog\n");
  CHECK(waits(2));
  CHECK(count(out.text(), "fired on 1 of 2 prompts") == 1);
  test::write_bytes(file, rule + "rule");
  CHECK(waits(3));
  CHECK(count(err.text(), "error[syntax]") == 1);
  test::write_bytes(prompts, "A cat\n");
  test::write_bytes(file, rule);
  CHECK(waits(4));
  CHECK(comes_true([&] { return count(out.text(), "fired on 1 of 1 prompts") >= 2; }));
  std::raise(SIGINT);
  program.join();
  CHECK(code == 0);
}

}  // namespace
}  // namespace proviso::cli
