#pragma once

// A page of text for a terminal: wrapped paragraphs and tables that keep to a width. What is put on it may
// come from a model or a stranger's file, so everything that could steer a terminal is shown as an escape.

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace proviso::audit {

enum class Style { plain, strong, dim, good, bad, open, set_aside };

/// Columns that a terminal takes for the text: 2 for wide East Asian characters and pictographs, else 1 a code point.
std::size_t display_width(std::string_view text);
/// Control characters and direction marks as escapes: "\x1b[31m".
std::string harmless(std::string_view text);
/// Line breaks as "⏎".
std::string on_one_line(std::string_view text);
/// At most `width` columns, the end replaced by "…" where it does not fit.
std::string shortened(std::string_view text, std::size_t width);

struct Cell {
  std::string text;
  Style style = Style::plain;
};

struct Column {
  std::string title;
  bool right = false;    ///< aligned, for numbers
  bool shrinks = false;  ///< gives way where the page is narrow
  bool spare = false;    ///< left out where that is not enough, the last one first
};

class TextPage {
 public:
  TextPage(std::size_t columns, bool colour) : columns_(columns < kNarrowest ? kNarrowest : columns), colour_(colour) {}

  /// "Checks", after an empty line.
  void heading(std::string_view text);
  /// A run of cells, two spaces apart, wrapped; the lines after the first are indented 2 more.
  void line(std::size_t indent, const std::vector<Cell>& cells);
  /// `label` in a column of its own, the text wrapped beside it.
  void labelled(std::size_t indent, std::string_view label, const Cell& text);
  /// Columns whose cells are all empty are left out.
  void table(std::size_t indent, std::vector<Column> columns, std::vector<std::vector<Cell>> rows);

  std::string take() { return std::move(text_); }

 private:
  static constexpr std::size_t kNarrowest = 40;
  static constexpr std::size_t kLabel = 10;

  void put(std::string_view text, Style style);
  void wrapped(std::size_t at, std::size_t hang, const std::vector<Cell>& cells);

  std::size_t columns_;
  bool colour_;
  std::string text_;
};

}  // namespace proviso::audit
