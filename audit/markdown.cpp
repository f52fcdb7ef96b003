#include "audit/markdown.hpp"

#include <array>
#include <cctype>

#include "audit/markup.hpp"
#include "audit/report_words.hpp"
#include "audit/text_page.hpp"
#include "audit/verdict.hpp"

namespace proviso::audit::markdown {
namespace {

std::string_view sign_of(Status status) {
  constexpr std::array<std::string_view, 6> kSigns = {"✅", "☑️", "❔", "⚪", "❌", "❗"};
  return kSigns.at(static_cast<std::size_t>(status));
}

}  // namespace

std::string plain(std::string_view text) {
  constexpr std::string_view kSpecial = "\\`*[<&|~$#";
  const auto byte = [](char c) { return static_cast<unsigned char>(c); };
  std::string result;
  const std::string shown = harmless(text);
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const char c = shown[i];
    // "https://…" and "www.…" become links by themselves.
    const bool link = (c == ':' && shown.compare(i, 2, ":/") == 0) ||
                      (c == '.' && i > 0 && (shown[i - 1] == 'w' || shown[i - 1] == 'W'));
    const bool within_word =
        i > 0 && i + 1 < shown.size() && std::isalnum(byte(shown[i - 1])) && std::isalnum(byte(shown[i + 1]));
    const bool emphasis = c == '_' && !within_word;
    const bool begins_block = i == 0 && std::ispunct(byte(c));
    if (link || emphasis || begins_block || kSpecial.find(c) != std::string_view::npos) result += '\\';
    result += c;
    if (c == '@') result += "<!-- -->";  // a person's name after it would call them
  }
  return result;
}

std::string code(std::string_view text) { return text.empty() ? "" : "<code>" + plain(text) + "</code>"; }

std::string summary_code(std::string_view text) { return element("code", "", markup(text)); }

std::string signed_name(Status status) { return std::string(sign_of(status)) + " " + std::string(status_name(status)); }

std::string row(const std::vector<std::string>& cells) { return "| " + joined(cells, " | ") + " |\n"; }

std::string header(const std::vector<std::string>& titles) {
  return row(titles) + "|" + joined(std::vector<std::string>(titles.size(), " --- "), "|") + "|\n";
}

std::string fold(const std::string& summary, const std::string& content) {
  return "<details><summary>" + summary + "</summary>\n\n" + content + "\n</details>\n\n";
}

}  // namespace proviso::audit::markdown
