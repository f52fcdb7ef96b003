#include "runtime/formats/sha256.hpp"

#include <openssl/evp.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>

#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

namespace fs = std::filesystem;

namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    check(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }

  void update(std::span<const std::byte> bytes) {
    check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
  }

  std::string hex() {
    std::array<unsigned char, 32> digest;
    check(EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr) == 1);
    std::string text;
    for (const unsigned char byte : digest) {
      text += "0123456789abcdef"[byte >> 4];
      text += "0123456789abcdef"[byte & 15];
    }
    return text;
  }

 private:
  static void check(bool done) {
    if (!done) throw MachineError("OpenSSL cannot compute SHA-256");
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

/// What changes whenever a file's content does: its path, size, time of modification and inode.
std::string identity_of(const std::vector<std::string>& paths) {
  std::string identity;
  for (const std::string& path : paths) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) throw InputError(path + ": cannot be read; check the path");
    std::error_code ignored;
    identity += fs::absolute(path, ignored).string() + '\0' + std::to_string(status.st_size) + ' ' +
                std::to_string(status.st_mtim.tv_sec) + ' ' + std::to_string(status.st_mtim.tv_nsec) + ' ' +
                std::to_string(status.st_ino) + '\n';
  }
  return identity;
}

std::optional<std::string> remembered(const fs::path& entry) {
  std::ifstream file(entry);
  std::string hex;
  const bool valid =
      std::getline(file, hex) && hex.size() == 64 && hex.find_first_not_of("0123456789abcdef") == std::string::npos;
  return valid ? std::optional(hex) : std::nullopt;
}

/// A hash that cannot be remembered is computed again next time: no reason to fail.
void remember(const fs::path& entry, const std::string& hex) {
  std::error_code ignored;
  fs::create_directories(entry.parent_path(), ignored);
  try {
    write_file_atomically(entry.string(), hex + "\n");
  } catch (const std::runtime_error&) {
  }
}

}  // namespace

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

std::string sha256_of_files(const std::vector<std::string>& paths, const std::string& cache_directory) {
  fs::path entry;
  if (!cache_directory.empty()) {
    const std::string identity = identity_of(paths);
    entry = fs::path(cache_directory) / "sha256" / sha256_hex(std::as_bytes(std::span(identity)));
    if (auto hex = remembered(entry)) return *hex;
  }
  Sha256 hash;
  for (const std::string& path : paths) hash.update(MappedFile::open(path)->bytes());
  const std::string hex = hash.hex();
  if (!entry.empty()) remember(entry, hex);
  return hex;
}

}  // namespace proviso::model
