#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace proviso::dsl {

/// Names one text among those that a run reads: an index into `SourceSet`.
using SourceId = std::uint32_t;

/// A stretch of one source text, in bytes; `end` is one past the last byte.
/// Lines and columns exist only where they are shown (`SourceSet::position`).
struct Span {
  SourceId source = 0;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;

  bool operator==(const Span&) const = default;
};

/// Line and column as people count them: from 1, the column in code points.
struct Position {
  std::size_t line = 1;
  std::size_t column = 1;
};

struct Source {
  std::string path;  ///< as the user named it: what diagnostics print
  std::string text;  ///< valid UTF-8
  std::vector<std::uint32_t> line_starts;

  std::string_view line(std::size_t number) const;  ///< without its line break; `number` from 1
};

/// All the texts of a run. Spans stay valid for as long as the set lives.
class SourceSet {
 public:
  SourceId add(std::string path, std::string text);
  const Source& at(SourceId id) const { return sources_.at(id); }
  std::size_t size() const { return sources_.size(); }
  Position position(SourceId id, std::uint32_t offset) const;
  std::string_view text(Span span) const;

 private:
  std::vector<Source> sources_;
};

}  // namespace proviso::dsl
