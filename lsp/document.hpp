#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "dsl/source.hpp"

namespace proviso::lsp {

using Json = nlohmann::json;

/// A text with the protocol's places: lines from 0, and columns in UTF-16 code units from 0. Either way takes time
/// logarithmic in the text, so that a text of one long line is no worse than another.
class Text {
 public:
  explicit Text(std::string text);
  const std::string& str() const { return text_; }

  /// {line, character} of a byte; what lies beyond the text is its end.
  Json position(std::size_t offset) const;
  Json range(std::size_t begin, std::size_t end) const;
  Json range(dsl::Span span) const { return range(span.begin, span.end); }
  /// The byte of a {line, character}; a column beyond its line is the line's end, as the protocol has it.
  std::size_t offset(const Json& position) const;
  /// The text after one of `contentChanges`: of a range, or whole.
  std::string changed(const Json& change) const;

 private:
  std::size_t units_before(std::size_t offset) const;

  std::string text_;
  std::vector<std::size_t> line_starts_;
  std::vector<std::size_t> units_;  // UTF-16 units before each kBlock-th byte
};

/// `file:///a%20b.proviso` as "/a b.proviso"; any other URI (an editor's unsaved "untitled:…") stays as it is.
std::string path_of_uri(const std::string& uri);
std::string uri_of_path(const std::string& path);

}  // namespace proviso::lsp
