#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace proviso::model {

/// A file being written so that a kill at any moment leaves the old file or the new one: a hidden temporary
/// file in the same folder, fsync, rename, fsync of the folder. Unless committed, nothing is left behind.
/// A device or pipe (`/dev/null`) has no old content to keep and is written straight. Throws `MachineError`
/// (disk full, no permission) and `InputError` (no such folder).
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void commit();

 private:
  std::string path_;
  std::string temporary_;  ///< empty where `path_` is written straight
  int descriptor_ = -1;
};

/// `AtomicFile` with all of its bytes at hand.
void write_file_atomically(const std::string& path, std::string_view bytes);

/// Builds a whole folder under a temporary name beside `directory` and renames it when `fill` is done.
/// An existing `directory` is an `InputError`: nothing is ever overwritten.
void write_directory_atomically(const std::string& directory,
                                const std::function<void(const std::string& temporary)>& fill);

/// The same for one file, which `fill` writes under the temporary name.
void write_new_file_atomically(const std::string& path, const std::function<void(const std::string& temporary)>& fill);

/// An empty folder beside `path` for what is needed on the way, removed with all that it holds.
class ScratchFolder {
 public:
  explicit ScratchFolder(const std::string& path);
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Throw what writing there would, before the work whose result is written. Nothing is left behind.
void require_writable(const std::string& path);
void require_new_directory(const std::string& directory);

/// From here on SIGHUP, SIGINT and SIGTERM remove what is half-written before they end the program.
void remove_temporaries_on_signals();

}  // namespace proviso::model
