// Changes that an editor can make: fixes and the canonical style.

#include <algorithm>

#include "dsl/fix.hpp"
#include "dsl/format.hpp"
#include "dsl/parse.hpp"
#include "lsp/answers.hpp"

namespace proviso::lsp {
namespace {

Json edit_of(const Text& text, const dsl::Fix& fix) {
  return {{"range", text.range(fix.span)}, {"newText", fix.replacement}};
}

std::string title_of(const dsl::SourceSet& sources, const dsl::Fix& fix) {
  const std::string before(sources.text(fix.span));
  if (before.empty()) return "Insert `" + fix.replacement + "`";
  return fix.replacement.empty() ? "Remove `" + before + "`" : "Write `" + fix.replacement + "` for `" + before + "`";
}

}  // namespace

Json diagnostic_json(const dsl::Diagnostic& diagnostic, const dsl::SourceSet& sources, const Text& text) {
  std::string message = diagnostic.message;
  for (const std::string& help : diagnostic.help) message += "\nhelp: " + help;
  Json shown = {{"range", text.range(diagnostic.span)},
                {"severity", diagnostic.severity == dsl::Severity::error ? 1 : 2},
                {"code", dsl::slug(diagnostic.code)},
                {"source", "proviso"},
                {"message", message}};
  if (!diagnostic.related.empty()) {
    Json related = Json::array();
    for (const dsl::Related& other : diagnostic.related) {
      const dsl::Source& source = sources.at(other.span.source);
      related.push_back(
          {{"location", {{"uri", uri_of_path(source.path)}, {"range", Text(source.text).range(other.span)}}},
           {"message", other.message}});
    }
    shown["relatedInformation"] = std::move(related);
  }
  return shown;
}

Json code_actions(const Analysis& analysis, const std::vector<dsl::Diagnostic>& of_model, const Text& text,
                  const std::string& uri, std::size_t begin, std::size_t end) {
  Json actions = Json::array();
  const auto offer = [&](const dsl::Diagnostic& diagnostic) {
    const dsl::Span span = diagnostic.span;
    if (span.source != analysis.root || span.begin > end || span.end < begin) return;
    for (const dsl::Fix& fix : diagnostic.fixes) {
      if (fix.span.source != analysis.root) continue;
      actions.push_back({{"title", title_of(analysis.sources, fix)},
                         {"kind", "quickfix"},
                         {"isPreferred", fix.safe},
                         {"diagnostics", Json::array({diagnostic_json(diagnostic, analysis.sources, text)})},
                         {"edit", {{"changes", {{uri, Json::array({edit_of(text, fix)})}}}}}});
    }
  };
  for (const dsl::Diagnostic& each : analysis.diagnostics) offer(each);
  for (const dsl::Diagnostic& each : of_model) offer(each);
  const dsl::FixedText fixed = dsl::make_safe_fixes(analysis.sources, analysis.root, analysis.diagnostics);
  if (!fixed.made.empty()) {
    Json edits = Json::array();
    for (const auto& made : fixed.made) edits.push_back(edit_of(text, made.fix));
    actions.push_back({{"title", "Make all safe fixes of this file"},
                       {"kind", "source.fixAll"},
                       {"edit", {{"changes", {{uri, std::move(edits)}}}}}});
  }
  return actions;
}

Json formatting(const Analysis& analysis, const Text& text) {
  const dsl::Parsed parsed = dsl::parse(analysis.sources, analysis.root);
  if (dsl::has_errors(parsed.diagnostics)) return Json::array();
  const std::string formatted = dsl::format(parsed.file, analysis.sources);
  const std::string& written = text.str();
  if (formatted == written) return Json::array();
  // Whole lines at both ends that stay are left alone, so that cursors and marks there stay, too.
  const auto common = std::mismatch(written.begin(), written.end(), formatted.begin(), formatted.end());
  std::size_t begin = static_cast<std::size_t>(common.first - written.begin());
  begin = begin == 0 ? 0 : written.rfind('\n', begin - 1) + 1;
  std::size_t end = written.size(), new_end = formatted.size();
  while (end > begin && new_end > begin && written[end - 1] == formatted[new_end - 1]) --end, --new_end;
  while (end > 0 && end < written.size() && written[end - 1] != '\n') ++end, ++new_end;
  return Json::array({{{"range", text.range(begin, end)}, {"newText", formatted.substr(begin, new_end - begin)}}});
}

}  // namespace proviso::lsp
