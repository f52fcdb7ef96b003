#include "cli/watch.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

namespace proviso::cli {

namespace {

constexpr std::chrono::milliseconds kBetweenLooks{100};

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // a handler may write it

void interrupt(int) { interrupted = true; }

}  // namespace

Interrupt::Interrupt() {
  interrupted = false;
  before_ = std::signal(SIGINT, interrupt);
}

Interrupt::~Interrupt() { std::signal(SIGINT, before_); }

bool Interrupt::asked() const { return interrupted; }

FileWatch::FileWatch(std::vector<std::string> files, std::filesystem::file_time_type since) {
  const auto now = std::filesystem::file_time_type::clock::now();
  for (std::string& file : files) {
    const Stamp found = stamp(file);
    // A time to come says nothing of when it was written.
    changed_before_ = changed_before_ || (found && found->first > since && found->first <= now);
    files_.emplace_back(std::move(file), found);
  }
}

FileWatch::Stamp FileWatch::stamp(const std::string& file) {
  std::error_code missing;
  const auto written = std::filesystem::last_write_time(file, missing);
  if (missing) return std::nullopt;
  const auto size = std::filesystem::file_size(file, missing);
  return Stamp(std::in_place, written, missing ? 0 : size);
}

bool FileWatch::changed() const {
  return changed_before_ ||
         std::any_of(files_.begin(), files_.end(), [](const auto& file) { return stamp(file.first) != file.second; });
}

bool FileWatch::wait(const std::function<bool()>& stop) const {
  while (!stop()) {
    if (changed()) return true;
    std::this_thread::sleep_for(kBetweenLooks);
  }
  return false;
}

}  // namespace proviso::cli
