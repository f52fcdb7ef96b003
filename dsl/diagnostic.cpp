#include "dsl/diagnostic.hpp"

#include <algorithm>
#include <utility>

namespace proviso::dsl {
namespace {

struct Entry {
  std::string_view slug;
  Severity severity;
  std::string_view explanation;
};

constexpr Severity error = Severity::error;
[[maybe_unused]] constexpr Severity warning = Severity::warning;

constexpr Entry kEntries[] = {
#define PROVISO_DIAGNOSTIC(name, slug, severity, explanation) {slug, severity, explanation},
#include "dsl/diagnostic_codes.def"
#undef PROVISO_DIAGNOSTIC
};

const Entry& entry(Code code) { return kEntries[static_cast<std::size_t>(code)]; }

std::string_view trimmed(std::string_view text) {
  while (text.starts_with('\n')) text.remove_prefix(1);
  while (text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours count one.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

constexpr std::size_t kLongestName = 200;  // the distance takes time quadratic in the names; longer ones are no typo

std::size_t most_edits(std::string_view name) { return std::max<std::size_t>(1, name.size() / 3); }

std::string without_digits(std::string_view name) {
  std::string text(name);
  std::erase_if(text, [](char c) { return c >= '0' && c <= '9'; });
  return text;
}

}  // namespace

std::string_view slug(Code code) { return entry(code).slug; }
Severity default_severity(Code code) { return entry(code).severity; }
std::string_view explanation(Code code) { return trimmed(entry(code).explanation); }

std::optional<Code> code_from_slug(std::string_view text) {
  const auto found =
      std::find_if(std::begin(kEntries), std::end(kEntries), [&](const Entry& e) { return e.slug == text; });
  if (found == std::end(kEntries)) return std::nullopt;
  return static_cast<Code>(found - std::begin(kEntries));
}

Diagnostic make_diagnostic(Code code, Span span, std::string message, std::vector<std::string> help) {
  return {code, span, std::move(message), std::move(help), default_severity(code), {}, {}};
}

bool has_errors(const std::vector<Diagnostic>& diagnostics) {
  return std::any_of(diagnostics.begin(), diagnostics.end(),
                     [](const Diagnostic& d) { return d.severity == Severity::error; });
}

std::optional<std::string> nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  if (name.size() > kLongestName) return std::nullopt;
  const std::size_t limit = most_edits(name);
  std::optional<std::string> best;
  std::size_t best_distance = limit + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t difference = std::max(name.size(), candidate.size()) - std::min(name.size(), candidate.size());
    if (difference >= best_distance) continue;
    const std::size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::vector<Fix> spelling_fix(Span span, std::string_view name, const std::vector<std::string>& candidates) {
  const auto nearest = nearest_name(name, candidates);
  if (!nearest) return {};
  constexpr std::size_t kShortest = 4;  // `p` is as near to `q` as to any other letter
  // One slip away is nearer than two; of what is further away there must be no other.
  const std::size_t near = edit_distance(name, *nearest) == 1 ? 1 : most_edits(name);
  const auto comes_near = [&](const std::string& other) {
    return other != *nearest && other.size() <= kLongestName && edit_distance(name, other) <= near;
  };
  const bool safe = name.size() >= kShortest && without_digits(name) != without_digits(*nearest) &&
                    std::none_of(candidates.begin(), candidates.end(), comes_near);
  return {{span, *nearest, safe}};
}

}  // namespace proviso::dsl
