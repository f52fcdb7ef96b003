#include "dsl/render.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <tuple>

#include "dsl/literals.hpp"
#include "dsl/utf8.hpp"

namespace proviso::dsl {
namespace {

constexpr std::size_t kGutter = 5;  // line numbers are right-aligned to this width
constexpr std::string_view kHelp = "   help: ";

struct Style {
  std::string_view error, warning, place, help, reset;
};
constexpr Style kPlain{"", "", "", "", ""};
constexpr Style kColored{"\x1b[1;31m", "\x1b[1;33m", "\x1b[1m", "\x1b[36m", "\x1b[0m"};

std::string_view severity_text(Severity severity) { return severity == Severity::error ? "error" : "warning"; }

/// Code points that stand on the one before them: combining marks, joiners, variation selectors.
bool is_zero_width(char32_t c) {
  return (c >= 0x0300 && c <= 0x036F) || (c >= 0x1AB0 && c <= 0x1AFF) || (c >= 0x1DC0 && c <= 0x1DFF) ||
         (c >= 0x200B && c <= 0x200D) || (c >= 0x20D0 && c <= 0x20FF) || (c >= 0xFE00 && c <= 0xFE0F) || c == 0xFEFF ||
         is_direction_mark(c);
}

/// Code points that take two columns of a terminal (Unicode's East Asian Width W and F, by block).
bool is_wide(char32_t c) {
  return (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0x303E) || (c >= 0x3041 && c <= 0xA4CF) ||
         (c >= 0xA960 && c <= 0xA97F) || (c >= 0xAC00 && c <= 0xD7A3) || (c >= 0xF900 && c <= 0xFAFF) ||
         (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) || (c >= 0xFFE0 && c <= 0xFFE6) ||
         (c >= 0x1F300 && c <= 0x1F64F) || (c >= 0x1F680 && c <= 0x1F6FF) || (c >= 0x1F900 && c <= 0x1FAFF) ||
         (c >= 0x20000 && c <= 0x3FFFD);
}

constexpr std::size_t kLongLine = 160;  // columns; of a longer line only what lies around the span is shown
constexpr std::size_t kContext = 60;

/// The line as it can be shown, and the underline beneath it. Direction marks and control characters would
/// change what is seen, so a replacement character stands for each; of a long line the ends are cut off.
struct Excerpt {
  std::string line;
  std::string carets;
};

Excerpt excerpt(std::string_view line, std::size_t begin, std::size_t end) {
  struct Cell {
    std::string_view shown;
    std::size_t offset, width;
  };
  std::vector<Cell> cells;
  for (std::size_t at = 0; at < line.size();) {
    const CodePoint c = front_code_point(line.substr(at));
    const bool hidden = is_direction_mark(c.value) || (c.value < 0x20 && c.value != '\t') || c.value == 0x7F;
    const std::string_view shown = hidden ? std::string_view("\uFFFD") : line.substr(at, c.length);
    cells.push_back({shown, at, hidden ? std::size_t{1} : is_zero_width(c.value) ? 0 : is_wide(c.value) ? 2 : 1});
    at += c.length;
  }

  const auto cell_at = [&](std::size_t offset) {
    const auto found = std::lower_bound(cells.begin(), cells.end(), offset,
                                        [](const Cell& cell, std::size_t o) { return cell.offset < o; });
    return static_cast<std::size_t>(found - cells.begin());
  };
  const std::size_t marked = cell_at(begin);
  std::size_t first = 0, last = cells.size();
  if (cells.size() > kLongLine) {
    first = marked > kContext ? marked - kContext : 0;
    last = std::min(first + kLongLine, cells.size());
  }

  Excerpt out;
  if (first > 0) {
    out.line = "…";
    out.carets = " ";
  }
  for (std::size_t i = first; i < last; ++i) {
    out.line += cells[i].shown;
    if (i < marked) {
      // A tab is copied, so that the underline keeps its place at any width of tabs.
      out.carets.append(cells[i].width, cells[i].shown == "\t" ? '\t' : ' ');
    } else if (cells[i].offset < end) {
      out.carets.append(cells[i].width, '^');
    }
  }
  if (last < cells.size()) out.line += "…";
  if (!out.carets.ends_with('^')) out.carets += '^';  // an empty span, or one at the line's end
  return out;
}

std::string gutter(std::string_view number) {
  return std::string(number.size() < kGutter ? kGutter - number.size() : 0, ' ') + std::string(number) + " | ";
}

void render(const Diagnostic& diagnostic, const SourceSet& sources, const Style& style, std::string& out) {
  const Source& source = sources.at(diagnostic.span.source);
  const Position begin = sources.position(diagnostic.span.source, diagnostic.span.begin);
  const std::string_view severity_style = diagnostic.severity == Severity::error ? style.error : style.warning;
  out.append(style.place).append(source.path).append(":").append(std::to_string(begin.line)).append(":");
  out.append(std::to_string(begin.column)).append(":").append(style.reset).append(" ");
  out.append(severity_style)
      .append(severity_text(diagnostic.severity))
      .append("[")
      .append(slug(diagnostic.code))
      .append("]");
  out.append(style.reset).append(": ").append(diagnostic.message).append("\n");

  // A line that is not UTF-8 has no columns to underline.
  if (!source.text.empty() && !invalid_utf8(source.line(begin.line))) {
    std::string_view line = source.line(begin.line);
    std::size_t start = source.line_starts[begin.line - 1];
    if (start == 0 && line.starts_with(kByteOrderMark)) {
      line.remove_prefix(kByteOrderMark.size());
      start = kByteOrderMark.size();
    }
    const auto within = [&](std::size_t offset) { return std::min(offset - std::min(offset, start), line.size()); };
    const Excerpt shown = excerpt(line, within(diagnostic.span.begin), within(diagnostic.span.end));
    out.append(gutter(std::to_string(begin.line))).append(shown.line).append("\n");
    out.append(gutter("")).append(severity_style).append(shown.carets).append(style.reset).append("\n");
  }
  for (const std::string& help : diagnostic.help) {
    out.append(style.help).append(kHelp).append(style.reset).append(help).append("\n");
  }
}

std::vector<const Diagnostic*> in_order(const std::vector<Diagnostic>& diagnostics) {
  std::vector<const Diagnostic*> sorted;
  for (const Diagnostic& diagnostic : diagnostics) sorted.push_back(&diagnostic);
  std::stable_sort(sorted.begin(), sorted.end(), [](const Diagnostic* a, const Diagnostic* b) {
    return std::tie(a->span.source, a->span.begin) < std::tie(b->span.source, b->span.begin);
  });
  return sorted;
}

nlohmann::ordered_json place(const SourceSet& sources, SourceId source, std::uint32_t offset) {
  const Position position = sources.position(source, offset);
  return {{"offset", offset}, {"line", position.line}, {"column", position.column}};
}

nlohmann::ordered_json places(const SourceSet& sources, Span span) {
  return {{"begin", place(sources, span.source, span.begin)}, {"end", place(sources, span.source, span.end)}};
}

}  // namespace

std::string render_text(const std::vector<Diagnostic>& diagnostics, const SourceSet& sources, RenderOptions options) {
  std::string out;
  for (const Diagnostic* diagnostic : in_order(diagnostics)) {
    render(*diagnostic, sources, options.color ? kColored : kPlain, out);
  }
  return out;
}

std::string render_json(const std::vector<Diagnostic>& diagnostics, const SourceSet& sources) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Diagnostic* diagnostic : in_order(diagnostics)) {
    const Span span = diagnostic->span;
    nlohmann::ordered_json fixes = nlohmann::ordered_json::array(), related = nlohmann::ordered_json::array();
    for (const Fix& fix : diagnostic->fixes) {
      fixes.push_back({{"replacement", fix.replacement}, {"safe", fix.safe}, {"span", places(sources, fix.span)}});
    }
    for (const Related& other : diagnostic->related) {
      related.push_back({{"file", sources.at(other.span.source).path},
                         {"message", other.message},
                         {"span", places(sources, other.span)}});
    }
    list.push_back({{"file", sources.at(span.source).path},
                    {"severity", severity_text(diagnostic->severity)},
                    {"code", slug(diagnostic->code)},
                    {"message", diagnostic->message},
                    {"help", diagnostic->help},
                    {"span", places(sources, span)},
                    {"fixes", std::move(fixes)},
                    {"related", std::move(related)}});
  }
  return list.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::string summary_text(const std::vector<Diagnostic>& diagnostics) {
  const auto errors = std::count_if(diagnostics.begin(), diagnostics.end(),
                                    [](const Diagnostic& d) { return d.severity == Severity::error; });
  const auto counted = [](std::ptrdiff_t count, std::string_view what) {
    return count == 0 ? std::string() : std::to_string(count) + " " + std::string(what) + (count == 1 ? "" : "s");
  };
  const std::string first = counted(errors, "error");
  const std::string second = counted(static_cast<std::ptrdiff_t>(diagnostics.size()) - errors, "warning");
  return first.empty() || second.empty() ? first + second : first + ", " + second;
}

}  // namespace proviso::dsl
