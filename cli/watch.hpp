#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace proviso::cli {

/// Ctrl-C as a question rather than the program's end, for as long as one of these lives.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool asked() const;

 private:
  void (*before_)(int);
};

/// Files whose contents a run read. They are looked at again and again: no watch of the system's sees through every
/// way in which editors put a new file in the place of an old one.
class FileWatch {
 public:
  /// What was written since `since`, when the run began to read, counts as changed, too.
  FileWatch(std::vector<std::string> files, std::filesystem::file_time_type since);

  /// Whether a file is another than it was, has gone, or has come.
  bool changed() const;
  /// Waits until one has changed; false where `stop` said to end first.
  bool wait(const std::function<bool()>& stop) const;

 private:
  /// When it was written and how large it is; nothing where it is not there.
  using Stamp = std::optional<std::pair<std::filesystem::file_time_type, std::uintmax_t>>;
  static Stamp stamp(const std::string& file);

  std::vector<std::pair<std::string, Stamp>> files_;
  bool changed_before_ = false;
};

}  // namespace proviso::cli
