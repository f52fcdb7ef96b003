#include "audit/html_page.hpp"

#include "audit/markup.hpp"
#include "audit/report_style.hpp"

namespace proviso::audit {

std::string of_class(std::string_view name) { return attribute("class", name); }
std::string code(std::string_view text) { return element("code", "", markup(text)); }
std::string paragraph(std::string_view text) { return text.empty() ? "" : element("p", "", markup(text)); }

std::string fact(std::string_view term, const std::string& what) {
  return what.empty() ? "" : element("dt", "", term) + element("dd", "", what);
}
std::string facts(const std::string& content) {
  return content.empty() ? "" : element("dl", of_class("facts"), content);
}

std::string table(const std::string& caption, const std::vector<PageColumn>& columns,
                  const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return "";
  std::string head, body;
  for (const PageColumn& column : columns)
    head += element("th", attribute("scope", "col") + of_class(column.kind), markup(column.title));
  for (const auto& row : rows) {
    std::string cells;
    for (std::size_t i = 0; i < row.size(); ++i) cells += element("td", of_class(columns[i].kind), row[i]);
    body += element("tr", "", cells) + "\n";
  }
  const std::string inner = element("caption", "", markup(caption)) + element("thead", "", element("tr", "", head)) +
                            "\n" + element("tbody", "", body);
  return element(
      "div",
      of_class("scroll") + attribute("tabindex", "0") + attribute("role", "region") + attribute("aria-label", caption),
      element("table", "", inner));
}

std::string fold(const std::string& kind, bool open, const std::string& summary, const std::string& content) {
  return element("details", of_class(kind) + (open ? " open" : ""), element("summary", "", summary) + "\n" + content) +
         "\n";
}

std::string section(const std::string& id, const std::string& title, const std::string& content) {
  if (content.empty()) return "";
  return element("section", attribute("id", id) + attribute("aria-labelledby", id + "-title"),
                 element("h2", attribute("id", id + "-title"), title) + "\n" + content) +
         "\n";
}

std::string page(const std::string& title, const std::string& body) {
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
         // Nothing on it may load or run, whatever a rule file or a model says.
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
         "img-src data:\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<link rel=\"icon\" href=\"data:,\">\n" +
         element("title", "", markup(title)) + "\n" + element("style", "", "\n" + std::string(report_style())) +
         "\n</head>\n" + element("body", "", "\n" + body) + "\n</html>\n";
}

}  // namespace proviso::audit
