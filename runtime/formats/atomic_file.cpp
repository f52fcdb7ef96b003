#include "runtime/formats/atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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
  const std::string name =
      "." + path.filename().string() + "." + std::to_string(::getpid()) + "." + std::to_string(count++) + ".tmp";
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

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  if (path_.empty()) throw InputError("the name of the file to write is empty");
  std::error_code ignored;
  if (fs::is_directory(path_, ignored)) throw_cannot_write(path_, EISDIR);
  if (is_device_or_pipe(path_)) {
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    temporary_ = temporary_name(path_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  }
  if (descriptor_ < 0) throw_cannot_write(path_, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
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

void write_directory_atomically(const std::string& directory,
                                const std::function<void(const std::string& temporary)>& fill) {
  // "out/" and "out" are one folder.
  fs::path target(directory);
  if (!target.has_filename()) target = target.parent_path();
  const auto refuse_existing = [&] {
    throw InputError(directory + ": exists already and is not overwritten; choose another name or remove it");
  };
  std::error_code ignored;
  if (!target.has_filename() || fs::exists(fs::symlink_status(target, ignored))) refuse_existing();

  const std::string temporary = temporary_name(target);
  if (::mkdir(temporary.c_str(), 0777) != 0) throw_cannot_write(directory, errno);
  try {
    fill(temporary);
    sync_folder(temporary);
    // Unlike rename(), this refuses even an empty folder that has appeared in the meantime.
    if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) != 0) {
      if (errno == EEXIST) refuse_existing();
      const bool unsupported = errno == EINVAL || errno == ENOSYS;
      if (!unsupported || ::rename(temporary.c_str(), target.c_str()) != 0) throw_cannot_write(directory, errno);
    }
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
  sync_folder(target.parent_path());
}

}  // namespace proviso::model
