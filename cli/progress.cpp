#include "cli/progress.hpp"

#include <chrono>
#include <memory>
#include <ostream>

#include "cli/output.hpp"

namespace proviso::cli {

namespace {

class ProgressLine {
 public:
  explicit ProgressLine(std::ostream& terminal) : terminal_(terminal) {}
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() { wipe(); }

  void show(std::string_view stage, std::int64_t done, std::int64_t total) {
    if (stage.empty()) return wipe();
    const auto now = std::chrono::steady_clock::now();
    if (shown_ && done < total && now - last_ < kInterval) return;
    last_ = now;
    shown_ = true;
    terminal_ << kWipe << stage;
    if (total > 0) terminal_ << ' ' << done << '/' << total;
    terminal_ << std::flush;
  }

 private:
  void wipe() {
    if (shown_) terminal_ << kWipe << std::flush;
    shown_ = false;
  }

  static constexpr const char* kWipe = "\r\033[K";
  static constexpr std::chrono::milliseconds kInterval{100};
  std::ostream& terminal_;
  std::chrono::steady_clock::time_point last_;
  bool shown_ = false;
};

}  // namespace

runtime::Progress terminal_progress(const Invocation& invocation) {
  if (invocation.options.quiet || !is_terminal(invocation.err)) return {};
  return [line = std::make_shared<ProgressLine>(invocation.err)](
             std::string_view stage, std::int64_t done, std::int64_t total) { line->show(stage, done, total); };
}

}  // namespace proviso::cli
