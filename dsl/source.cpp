#include "dsl/source.hpp"

#include <algorithm>
#include <utility>

namespace proviso::dsl {
namespace {

bool starts_code_point(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

}  // namespace

std::string_view Source::line(std::size_t number) const {
  if (number < 1 || number > line_starts.size()) return {};
  const std::size_t begin = line_starts[number - 1];
  const std::size_t end = number < line_starts.size() ? line_starts[number] : text.size();
  std::string_view line = std::string_view(text).substr(begin, end - begin);
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  return line;
}

SourceId SourceSet::add(std::string path, std::string text) {
  Source source{std::move(path), std::move(text), {0}};
  for (std::size_t i = 0; i < source.text.size(); ++i) {
    if (source.text[i] == '\n') source.line_starts.push_back(static_cast<std::uint32_t>(i + 1));
  }
  sources_.push_back(std::move(source));
  return static_cast<SourceId>(sources_.size() - 1);
}

Position SourceSet::position(SourceId id, std::uint32_t offset) const {
  const Source& source = at(id);
  const auto next = std::upper_bound(source.line_starts.begin(), source.line_starts.end(), offset);
  const std::size_t line = static_cast<std::size_t>(next - source.line_starts.begin());
  std::size_t begin = source.line_starts[line - 1];
  if (line == 1 && source.text.starts_with("\xEF\xBB\xBF")) begin = 3;  // a byte order mark is no column
  const std::size_t end = std::min<std::size_t>(offset, source.text.size());
  std::size_t column = 1;
  for (std::size_t i = begin; i < end; ++i) column += starts_code_point(source.text[i]);
  return {line, column};
}

std::string_view SourceSet::text(Span span) const {
  const std::string& text = at(span.source).text;
  const std::size_t begin = std::min<std::size_t>(span.begin, text.size());
  const std::size_t end = std::clamp<std::size_t>(span.end, begin, text.size());
  return std::string_view(text).substr(begin, end - begin);
}

}  // namespace proviso::dsl
