#include "runtime/formats/atomic_file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void throw_cannot_write(const std::string& path, int error) {
  const std::string message = path + ": cannot be written: " + std::strerror(error);
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      throw InputError(message + "; create its folder first");
    case EISDIR:
      throw InputError(message + "; name a file");
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      throw MachineError(message + "; free some space or write elsewhere");
    case EACCES:
    case EPERM:
    case EROFS:
      throw MachineError(message + "; allow writing to its folder or write elsewhere");
    default:
      throw MachineError(message);
  }
}

/// A name in the same folder that no other writer uses: "out/.report.yaml.4711.0.tmp".
std::string temporary_name(const fs::path& path) {
  static std::atomic<unsigned> count{0};
  std::string name(1, '.');
  name += path.filename().string() + "." + std::to_string(::getpid()) + "." + std::to_string(count++) + ".tmp";
  return (path.parent_path() / name).string();
}

/// Makes a rename in `folder` survive a power cut; file systems that cannot sync a folder keep it anyway.
void sync_folder(const fs::path& folder) {
  const std::string name = folder.empty() ? "." : folder.string();
  const int descriptor = ::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

bool is_device_or_pipe(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

// ---- what a signal removes ---------------------------------------------------------------------
//
// A handler may run between any two instructions, so it reads this fixed table alone and calls only what neither
// allocates nor locks (getdents64, where readdir would allocate). The kernel hands a process's signals to its first
// thread, which is the one that writes: nothing is written while the handler removes. What a kill or a power cut
// leaves, `.NAME.PID.N.tmp`, is not swept later: on a shared disk no one can tell that its writer is dead.

std::array<std::atomic<const char*>, 16> temporaries{};

/// `path` must stay where it is until it is forgotten.
void remember(const std::string& path) {
  for (auto& slot : temporaries) {
    const char* none = nullptr;
    if (slot.compare_exchange_strong(none, path.c_str())) return;
  }
}

void forget(const std::string& path) {
  for (auto& slot : temporaries) {
    const char* known = path.c_str();
    if (slot.compare_exchange_strong(known, nullptr)) return;
  }
}

void remove_at(int parent, const char* name) {
  if (::unlinkat(parent, name, 0) == 0) return;
  const int folder = ::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0) return;
  alignas(dirent64) char block[2048];
  for (ssize_t size; (size = ::getdents64(folder, block, sizeof block)) > 0;) {
    for (ssize_t at = 0; at < size;) {
      const auto* entry = reinterpret_cast<const dirent64*>(block + at);
      at += entry->d_reclen;
      const bool itself = std::strcmp(entry->d_name, ".") == 0 || std::strcmp(entry->d_name, "..") == 0;
      if (!itself) remove_at(folder, entry->d_name);
    }
  }
  ::close(folder);
  ::unlinkat(parent, name, AT_REMOVEDIR);
}

void remove_and_end(int signal) {
  for (const auto& slot : temporaries) {
    if (const char* path = slot.load()) remove_at(AT_FDCWD, path);
  }
  ::raise(signal);  // to its default, which SA_RESETHAND has put back
}

// ---- folders -----------------------------------------------------------------------------------

[[noreturn]] void refuse_existing(const std::string& directory) {
  throw InputError(directory + ": exists already and is not overwritten; choose another name or remove it");
}

/// "out/" and "out" are one folder.
fs::path new_directory(const std::string& directory) {
  if (directory.empty()) throw InputError("the name of the folder to write is empty");
  fs::path target(directory);
  if (!target.has_filename()) target = target.parent_path();
  std::error_code ignored;
  if (!target.has_filename() || fs::exists(fs::symlink_status(target, ignored))) refuse_existing(directory);
  return target;
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  if (path_.empty()) throw InputError("the name of the file to write is empty");
  std::error_code ignored;
  if (fs::is_directory(path_, ignored)) throw_cannot_write(path_, EISDIR);
  if (is_device_or_pipe(path_)) {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    temporary_ = temporary_name(path_);
    remember(temporary_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  }
  if (descriptor_ < 0) {
    const int error = errno;
    forget(temporary_);
    throw_cannot_write(path_, error);
  }
  struct stat before {};  // a private file stays private
  if (!temporary_.empty() && ::stat(path_.c_str(), &before) == 0) ::fchmod(descriptor_, before.st_mode & 0777);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  forget(temporary_);
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_cannot_write(path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::commit() {
  if (!temporary_.empty()) {
    if (::fsync(descriptor_) != 0) throw_cannot_write(path_, errno);
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw_cannot_write(path_, errno);
    forget(temporary_);
    sync_folder(fs::path(path_).parent_path());
  }
  ::close(descriptor_);
  descriptor_ = -1;
}

void write_file_atomically(const std::string& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

namespace {

/// Puts what `fill` makes under a temporary name to its own, where nothing may be by then.
void write_new_atomically(const std::string& path, const std::function<void(const std::string& temporary)>& fill) {
  const fs::path target = new_directory(path);
  const std::string temporary = temporary_name(target);
  remember(temporary);
  try {
    fill(temporary);
    // Unlike rename(), this refuses even an empty folder that has appeared in the meantime.
    if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) != 0) {
      if (errno == EEXIST) refuse_existing(path);
      const bool unsupported = errno == EINVAL || errno == ENOSYS;
      if (!unsupported || ::rename(temporary.c_str(), target.c_str()) != 0) throw_cannot_write(path, errno);
    }
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    forget(temporary);
    throw;
  }
  forget(temporary);
  sync_folder(target.parent_path());
}

}  // namespace

void write_directory_atomically(const std::string& directory,
                                const std::function<void(const std::string& temporary)>& fill) {
  write_new_atomically(directory, [&](const std::string& temporary) {
    if (::mkdir(temporary.c_str(), 0777) != 0) throw_cannot_write(directory, errno);
    fill(temporary);
    sync_folder(temporary);
  });
}

void write_new_file_atomically(const std::string& path, const std::function<void(const std::string& temporary)>& fill) {
  write_new_atomically(path, fill);
}

ScratchFolder::ScratchFolder(const std::string& path) : path_(temporary_name(new_directory(path))) {
  remember(path_);
  if (::mkdir(path_.c_str(), 0777) == 0) return;
  const int error = errno;
  forget(path_);
  throw_cannot_write(path, error);
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  forget(path_);
}

void require_writable(const std::string& path) {
  // The reader of a pipe would see it open and close again.
  if (!is_device_or_pipe(path)) AtomicFile trial(path);
}

void require_new_directory(const std::string& directory) {
  const std::string trial = temporary_name(new_directory(directory));
  if (::mkdir(trial.c_str(), 0777) != 0) throw_cannot_write(directory, errno);
  ::rmdir(trial.c_str());
}

void remove_temporaries_on_signals() {
  struct sigaction action {};
  action.sa_handler = remove_and_end;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGHUP, SIGINT, SIGTERM}) {
    struct sigaction before {};
    // `nohup` and background jobs of a shell ignore some of them: so do we.
    if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
    ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace proviso::model
