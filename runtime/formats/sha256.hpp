#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace proviso::model {

std::string sha256_hex(std::span<const std::byte> bytes);

/// SHA-256 over the bytes of several files, one after the other. Where `cache_directory` is not empty the
/// result is remembered by the files' identity (path, size, modification time in ns, inode).
std::string sha256_of_files(const std::vector<std::string>& paths, const std::string& cache_directory);

}  // namespace proviso::model
