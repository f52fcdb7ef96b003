#include "audit/text_page.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <utility>

namespace proviso::audit {
namespace {

struct CodePoint {
  char32_t value;
  std::size_t bytes;
};

/// The first code point of valid UTF-8; a stray byte counts as one.
CodePoint first_of(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t bytes = byte(0) < 0xc0 ? 1 : byte(0) < 0xe0 ? 2 : byte(0) < 0xf0 ? 3 : 4;
  if (bytes == 1 || bytes > text.size()) return {byte(0), 1};
  char32_t value = byte(0) & (0xff >> (bytes + 1));
  for (std::size_t i = 1; i < bytes; ++i) value = value << 6 | (byte(i) & 0x3f);
  return {value, bytes};
}

using Range = std::pair<char32_t, char32_t>;

template <std::size_t N>
bool within(const std::array<Range, N>& ranges, char32_t c) {
  return std::any_of(ranges.begin(), ranges.end(), [c](const Range& r) { return r.first <= c && c <= r.second; });
}

bool wide(char32_t c) {
  constexpr std::array<Range, 9> kWide = {{{0x1100, 0x115f},
                                           {0x2e80, 0xa4cf},
                                           {0xac00, 0xd7a3},
                                           {0xf900, 0xfaff},
                                           {0xfe30, 0xfe6f},
                                           {0xff00, 0xff60},
                                           {0xffe0, 0xffe6},
                                           {0x1f300, 0x1faff},
                                           {0x20000, 0x3fffd}}};
  return within(kWide, c);
}

bool steers(char32_t c) {
  constexpr std::array<Range, 7> kSteering = {{{0x00, 0x1f},
                                               {0x7f, 0x9f},
                                               {0x61c, 0x61c},
                                               {0x200e, 0x200f},
                                               {0x2028, 0x202e},
                                               {0x2066, 0x2069},
                                               {0xfeff, 0xfeff}}};
  return within(kSteering, c);
}

std::string_view code_of(Style style) {
  switch (style) {
    case Style::plain:
      return "";
    case Style::strong:
      return "1";
    case Style::dim:
      return "2";
    case Style::good:
      return "32";
    case Style::bad:
      return "1;31";
    case Style::open:
      return "33";
    case Style::set_aside:
      return "36";
  }
  return "";
}

/// The longest beginning that takes at most `width` columns, at least one code point.
std::size_t bytes_within(std::string_view text, std::size_t width) {
  std::size_t bytes = 0, used = 0;
  while (bytes < text.size()) {
    const CodePoint next = first_of(text.substr(bytes));
    used += wide(next.value) ? 2 : 1;
    if (used > width && bytes > 0) break;
    bytes += next.bytes;
  }
  return bytes;
}

}  // namespace

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) {
    const CodePoint next = first_of(text);
    width += wide(next.value) ? 2 : 1;
    text.remove_prefix(next.bytes);
  }
  return width;
}

std::string harmless(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string result;
  while (!text.empty()) {
    const CodePoint next = first_of(text);
    if (next.value == '\n') {
      result += "\\n";
    } else if (next.value == '\t') {
      result += "\\t";
    } else if (steers(next.value)) {
      const int digits = next.value < 0x100 ? 2 : 4;
      result += digits == 2 ? "\\x" : "\\u";
      for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) result += kHex[(next.value >> shift) & 15];
    } else {
      result += text.substr(0, next.bytes);
    }
    text.remove_prefix(next.bytes);
  }
  return result;
}

std::string on_one_line(std::string_view text) {
  std::string line;
  for (const char letter : text) line += letter == '\n' ? "⏎" : std::string(1, letter);
  return line;
}

std::string shortened(std::string_view text, std::size_t width) {
  if (display_width(text) <= width) return std::string(text);
  return std::string(text.substr(0, width > 1 ? bytes_within(text, width - 1) : 0)) + "…";
}

void TextPage::put(std::string_view text, Style style) {
  const std::string_view code = colour_ ? code_of(style) : "";
  if (!code.empty()) text_.append("\x1b[").append(code).append("m");
  text_ += text;
  if (!code.empty()) text_ += "\x1b[0m";
}

void TextPage::wrapped(std::size_t at, std::size_t hang, const std::vector<Cell>& cells) {
  std::size_t used = at;
  bool line_is_empty = true;
  const auto break_line = [&] {
    text_ += "\n" + std::string(hang, ' ');
    used = hang;
    line_is_empty = true;
  };
  for (const Cell& cell : cells) {
    const std::string clean = harmless(cell.text);
    std::size_t gap = &cell == &cells.front() ? 0 : 2;
    for (std::string_view rest = clean; !rest.empty();) {
      const std::size_t space = rest.find(' ');
      std::string_view word = rest.substr(0, space);
      rest.remove_prefix(space == std::string_view::npos ? rest.size() : space + 1);
      if (word.empty()) continue;
      if (!line_is_empty && used + gap + display_width(word) > columns_) break_line();
      if (!line_is_empty) {
        text_.append(gap, ' ');
        used += gap;
      }
      gap = 1;
      while (used + display_width(word) > columns_) {
        const std::size_t bytes = bytes_within(word, columns_ - used);
        put(word.substr(0, bytes), cell.style);
        word.remove_prefix(bytes);
        break_line();
      }
      put(word, cell.style);
      used += display_width(word);
      line_is_empty = false;
    }
  }
  text_ += "\n";
}

void TextPage::heading(std::string_view text) {
  text_ += "\n";
  put(text, Style::strong);
  text_ += "\n";
}

void TextPage::line(std::size_t indent, const std::vector<Cell>& cells) {
  text_ += std::string(indent, ' ');
  wrapped(indent, indent + 2, cells);
}

void TextPage::labelled(std::size_t indent, std::string_view label, const Cell& text) {
  text_ += std::string(indent, ' ');
  put(label, Style::dim);
  const std::size_t width = display_width(label);
  text_ += std::string(width < kLabel ? kLabel - width : 1, ' ');
  wrapped(std::max(indent + kLabel, indent + width + 1), indent + kLabel, {text});
}

void TextPage::table(std::size_t indent, std::vector<Column> columns, std::vector<std::vector<Cell>> rows) {
  constexpr std::size_t kGap = 2, kLeast = 12;
  std::vector<std::size_t> widths(columns.size(), 0);
  for (auto& row : rows) {
    row.resize(columns.size());
    for (std::size_t i = 0; i < row.size(); ++i) {
      row[i].text = harmless(row[i].text);
      widths[i] = std::max(widths[i], display_width(row[i].text));
    }
  }
  const auto leave_out = [&](std::size_t i) {
    const auto at = static_cast<std::ptrdiff_t>(i);
    columns.erase(columns.begin() + at);
    widths.erase(widths.begin() + at);
    for (auto& row : rows) row.erase(row.begin() + at);
  };
  for (std::size_t i = columns.size(); i-- > 0;)
    if (widths[i] == 0) leave_out(i);
  std::vector<Cell> titles;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    titles.push_back({columns[i].title, Style::dim});
    widths[i] = std::max(widths[i], display_width(columns[i].title));
  }
  rows.insert(rows.begin(), std::move(titles));

  const auto least = [&](std::size_t i) { return columns[i].shrinks ? std::min(widths[i], kLeast) : widths[i]; };
  const auto fits = [&] {
    std::size_t total = indent;
    for (std::size_t i = 0; i < columns.size(); ++i) total += (i > 0 ? kGap : 0) + least(i);
    return total <= columns_;
  };
  for (std::size_t i = columns.size(); i-- > 0 && !fits();)
    if (columns[i].spare) leave_out(i);
  std::size_t total = std::accumulate(widths.begin(), widths.end(), indent + kGap * (columns.size() - 1));
  for (; total > columns_; --total) {
    std::size_t* widest = nullptr;
    for (std::size_t i = 0; i < columns.size(); ++i)
      if (widths[i] > least(i) && (!widest || widths[i] >= *widest)) widest = &widths[i];
    if (!widest) break;
    --*widest;
  }

  for (const auto& row : rows) {
    std::string pending(indent, ' ');  // spaces that only a further cell brings out
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string shown = shortened(row[i].text, widths[i]);
      const std::string padding(widths[i] - display_width(shown), ' ');
      if (columns[i].right) pending += padding;
      if (!shown.empty()) {
        text_ += std::exchange(pending, "");
        put(shown, row[i].style);
      }
      if (!columns[i].right) pending += padding;
      pending.append(kGap, ' ');
    }
    text_ += "\n";
  }
}

}  // namespace proviso::audit
