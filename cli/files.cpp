#include "cli/files.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <istream>
#include <iterator>

namespace proviso::cli {

namespace {

constexpr std::size_t kMostBytes = std::size_t{64} << 20;

std::string read_stream(std::istream& in, const std::string& name) {
  std::string text;
  char block[1 << 16];
  while (in.read(block, sizeof block), in.gcount() > 0) {
    text.append(block, static_cast<std::size_t>(in.gcount()));
    if (text.size() > kMostBytes)
      throw model::InputError(name + ": larger than 64 MB, which no rule file or report is");
  }
  if (in.bad()) throw model::InputError(name + ": cannot be read: " + std::strerror(errno));
  return text;
}

}  // namespace

std::string read_text(const Invocation& invocation, const std::string& path) {
  if (path == "-") return read_stream(invocation.in, "standard input");
  if (std::filesystem::is_directory(path)) throw model::InputError(path + ": is a folder; name a file in it");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw model::InputError(path + ": cannot be opened: " + std::strerror(errno));
  return read_stream(file, path);
}

std::string written_file(const std::string& path) {
  std::error_code unknown;
  const auto file = std::filesystem::canonical(path, unknown);
  return unknown ? path : file.string();
}

}  // namespace proviso::cli
