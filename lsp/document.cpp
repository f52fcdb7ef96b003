#include "lsp/document.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <utility>

namespace proviso::lsp {
namespace {

constexpr std::size_t kBlock = 256;

/// The UTF-16 units that a byte of UTF-8 stands for: those of its character for the first byte, none for the others.
std::size_t units_of(char byte) {
  const auto value = static_cast<unsigned char>(byte);
  if ((value & 0xC0) == 0x80) return 0;
  return value >= 0xF0 ? 2 : 1;
}

constexpr std::string_view kFileScheme = "file://";

bool is_plain(unsigned char c) {
  return std::isalnum(c) != 0 || c == '/' || c == '-' || c == '_' || c == '.' || c == '~';
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const int lower = std::tolower(static_cast<unsigned char>(c));
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

Text::Text(std::string text) : text_(std::move(text)), line_starts_{0} {
  std::size_t units = 0;
  for (std::size_t i = 0; i < text_.size(); ++i) {
    if (i % kBlock == 0) units_.push_back(units);
    units += units_of(text_[i]);
    if (text_[i] == '\n') line_starts_.push_back(i + 1);
  }
  if (text_.size() % kBlock == 0) units_.push_back(units);
}

std::size_t Text::units_before(std::size_t offset) const {
  std::size_t units = units_[offset / kBlock];
  for (std::size_t i = offset - offset % kBlock; i < offset; ++i) units += units_of(text_[i]);
  return units;
}

Json Text::position(std::size_t offset) const {
  offset = std::min(offset, text_.size());
  const auto next = std::upper_bound(line_starts_.begin(), line_starts_.end(), offset);
  const std::size_t line = static_cast<std::size_t>(next - line_starts_.begin()) - 1;
  return {{"line", line}, {"character", units_before(offset) - units_before(line_starts_[line])}};
}

Json Text::range(std::size_t begin, std::size_t end) const {
  return {{"start", position(begin)}, {"end", position(end)}};
}

std::size_t Text::offset(const Json& position) const {
  const auto line = position.at("line").get<std::size_t>();
  if (line >= line_starts_.size()) return text_.size();
  const std::size_t begin = line_starts_[line];
  std::size_t end = line + 1 < line_starts_.size() ? line_starts_[line + 1] - 1 : text_.size();
  if (end > begin && text_[end - 1] == '\r') --end;

  const std::size_t before = units_before(begin), in_line = units_before(end) - before;
  const auto character = position.at("character").get<std::size_t>();
  if (character >= in_line) return end;
  const std::size_t wanted = before + character;
  // The last block that begins at or before the place, then byte by byte; never within a character.
  const auto block = std::upper_bound(units_.begin(), units_.end(), wanted) - 1;
  std::size_t at = std::max(begin, static_cast<std::size_t>(block - units_.begin()) * kBlock);
  for (std::size_t units = units_before(at); at < end; ++at) {
    const std::size_t own = units_of(text_[at]);
    if (own > 0 && units + own > wanted) break;
    units += own;
  }
  return at;
}

std::string Text::changed(const Json& change) const {
  const std::string text = change.at("text").get<std::string>();
  if (!change.contains("range")) return text;
  const std::size_t begin = offset(change.at("range").at("start"));
  const std::size_t end = std::max(begin, offset(change.at("range").at("end")));
  std::string result = text_;
  return result.replace(begin, end - begin, text);
}

std::string path_of_uri(const std::string& uri) {
  if (!uri.starts_with(kFileScheme)) return uri;
  const std::string_view rest = std::string_view(uri).substr(std::min(uri.find('/', kFileScheme.size()), uri.size()));
  std::string path;
  for (std::size_t i = 0; i < rest.size(); ++i) {
    const int high = rest[i] == '%' && i + 2 < rest.size() ? hex_digit(rest[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(rest[i + 2]) : -1;
    path += low >= 0 ? static_cast<char>(high * 16 + low) : rest[i];
    if (low >= 0) i += 2;
  }
  return path;
}

std::string uri_of_path(const std::string& path) {
  const bool is_uri = path.starts_with("untitled:");
  if (is_uri) return path;
  std::error_code unknown;
  const std::string full = std::filesystem::absolute(path, unknown).lexically_normal().string();
  std::string uri(kFileScheme);
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (const char c : full) {
    const auto byte = static_cast<unsigned char>(c);
    if (is_plain(byte)) {
      uri += c;
    } else {
      uri.append({'%', kDigits[byte >> 4], kDigits[byte & 15]});
    }
  }
  return uri;
}

}  // namespace proviso::lsp
