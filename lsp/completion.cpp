#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "dsl/literals.hpp"
#include "dsl/vocabulary.hpp"
#include "lsp/answers.hpp"
#include "lsp/tokens.hpp"

namespace proviso::lsp {
namespace {

using dsl::SymbolKind;
using dsl::TermKind;
namespace fs = std::filesystem;

// CompletionItemKind
constexpr int kFunction = 3, kVariable = 6, kProperty = 10, kEnumMember = 20, kClass = 7, kKeyword = 14, kFile = 17,
              kFolder = 19, kField = 5;

int item_kind(SymbolKind kind) {
  if (kind == SymbolKind::prompts) return kVariable;
  return kind == SymbolKind::feature ? kProperty : kClass;
}

bool is_operation(std::string_view word) {
  return word == "suppress" || word == "amplify" || word == "clamp" || word == "steer" || word == "cap";
}

/// Reads the sentence that ends at the cursor by its tokens alone: what is being written cannot be parsed yet.
class Completer {
 public:
  Completer(const Analysis& analysis, const Text& text, std::size_t offset, const std::string& library,
            const ModelView* model)
      : analysis_(analysis), text_(text), offset_(offset), library_(library), model_(model) {}

  Json run() {
    const std::string_view before = std::string_view(text_.str()).substr(0, offset_);
    if (complete_library(before)) return items_;
    read_ = tokens(before);
    begin_ = offset_;
    if (!read_.empty()) {
      const Token& last = read_.back();
      if (last.kind == Token::Kind::comment) return items_;
      if (last.kind == Token::Kind::string || last.kind == Token::Kind::regex) {
        const bool inside = !last.closed || last.end == offset_;
        if (inside) {
          if (last.kind == Token::Kind::string && !(last.closed && offset_ > last.begin + 1)) complete_string(last);
          return items_;
        }
      }
      const bool is_dot = last.of(before) == "." && read_.size() > 1 && read_[read_.size() - 2].end == last.begin;
      if (last.end == offset_ && (last.kind == Token::Kind::word || is_dot)) {
        begin_ = is_dot ? last.end : last.begin;
        if (!is_dot) read_.pop_back();
        // `pack.an`: what is completed is the whole name.
        while (read_.size() >= 2 && word(0) == "." && read_.back().end == begin_) {
          begin_ = read_[read_.size() - 2].begin;
          read_.resize(read_.size() - 2);
        }
      }
    }
    find_declaration();
    complete();
    return items_;
  }

 private:
  /// The token that stands `back` tokens before the cursor's, or "".
  std::string_view word(std::size_t back) const {
    if (back >= read_.size()) return "";
    return read_[read_.size() - 1 - back].of(text_.str());
  }
  std::string_view at(std::size_t index) const { return read_[index].of(text_.str()); }

  void find_declaration() {
    for (std::size_t i = 0; i < read_.size(); ++i) {
      if (opens_declaration(text_.str(), read_[i])) {
        start_ = i;
        declaration_ = std::string(at(i));
        brackets_.clear();
      }
      const std::string_view token = at(i);
      if (read_[i].kind != Token::Kind::symbol) continue;
      if (token == "(" || token == "[" || token == "{") brackets_.push_back(i);
      if ((token == ")" || token == "]" || token == "}") && !brackets_.empty()) brackets_.pop_back();
    }
  }

  void complete() {
    const bool at_line_start = begin_ == 0 || text_.str()[begin_ - 1] == '\n';
    if (declaration_.empty() || (at_line_start && brackets_.empty())) {
      add_terms(TermKind::declaration);
      return;
    }
    if (complete_after_word()) return;
    if (!brackets_.empty()) {
      const std::size_t open = brackets_.back();
      if (at(open) == "(" && complete_argument(open)) return;
      if (at(open) == "[") {
        const std::string_view owner = open > 0 ? at(open - 1) : std::string_view();
        if (owner == "at") add_terms(TermKind::site);
        if (const auto site = dsl::site_from_name(owner); site && model_ != nullptr) add_numbers(model_->layers);
        return;
      }
      if (at(open) == "{") return complete_statement(open);
    }
    complete_heading();
  }

  /// What the word before decides alone.
  bool complete_after_word() {
    const std::string last(word(0)), before(word(1));
    if (is_operation(last) || last == "remove") return add_names(SymbolKind::feature);
    if (last == "when" || last == "and" || last == "or" || last == "not" || last == "any" ||
        (last == "last" && before != "token"))
      return add_condition();
    if (last == "at") {
      if (before == "=" || declaration_ == "check") return add_words({"95% confidence"});
      return add_terms(TermKind::site);
    }
    if (last == "select") return add_words({"best"});
    if (last == "best") return add_words({"on"});
    if (last == "on" && (before == "fires" || before == "silent")) return add_names(SymbolKind::prompts);
    if (last == "head" && model_ != nullptr) {
      const auto site = site_before();
      return site && add_numbers(model_->sites.at(*site).heads);
    }
    const bool compares = last == "<" || last == "<=" || last == ">" || last == ">=";
    if (compares && declaration_ == "rule") {
      add_names(SymbolKind::feature);
      return add_words({"quantile"});
    }
    if (last == "as" && declaration_ == "prompts") return add_words({"chat"});
    if (last == "under") return add_words({"rule", "edit", "attack"});
    if (last == "rule" && start_ + 1 < read_.size()) return add_names(SymbolKind::rule);
    if (last == "edit" && start_ + 1 < read_.size()) return add_names(SymbolKind::edit);
    if (last == "expect" || last == "measure") return add_terms(TermKind::metric);
    if (last == "across") return add_terms(TermKind::sweep);
    if (last == "using") return add_terms(declaration_ == "circuit" ? TermKind::attribution : TermKind::method);
    if (last == "attack" && before == "under") return add_terms(TermKind::attack);
    if (last == "erase") return add_names(SymbolKind::prompts);
    if (last == "waive") return add_names(SymbolKind::check);
    if (last == "clean" || last == "corrupt") return add_names(SymbolKind::prompts);
    if (last == "beyond") return add_words({"control"});
    if (last == "fires" || last == "silent") return add_words({"on"});
    if (last == "prompt") return add_words({"matches"});
    if (last == "token") {
      return declaration_ == "feature" ? add_words({"last", "all"}) : add_words({"is", "in"});
    }
    if (last == "severity" || last == "status") return add_alternatives(*dsl::find_term(TermKind::statement, last));
    if (last == "=" && declaration_ == "feature" && brackets_.empty()) return add_terms(TermKind::constructor);
    if (last == "=" && declaration_ == "prompts" && brackets_.empty()) return add_words({"from", "each"});
    if (last == ",") return complete_list();
    return false;
  }

  /// After a comma outside of parentheses: more of what the sentence lists.
  bool complete_list() {
    const std::size_t innermost = brackets_.empty() ? start_ : brackets_.back();
    if (at(innermost) == "(") return false;
    for (std::size_t i = read_.size(); i-- > innermost;) {
      if (at(i) == "at") return add_terms(TermKind::site);
      if (at(i) == "on" && i > 0 && (at(i - 1) == "fires" || at(i - 1) == "silent"))
        return add_names(SymbolKind::prompts);
      if (at(i) == "rule" && i > 0 && at(i - 1) == "under") return add_names(SymbolKind::rule);
      if (at(i) == "edit" && i > 0 && at(i - 1) == "under") return add_names(SymbolKind::edit);
      if (at(i) == "attack" && i > 0 && at(i - 1) == "under") return add_terms(TermKind::attack);
      if (at(i) == "across") return add_terms(TermKind::sweep);
    }
    return false;
  }

  bool complete_argument(std::size_t open) {
    if (open == 0 || read_[open - 1].kind != Token::Kind::word) return add_condition();
    const std::string callee(at(open - 1));
    if (callee == "when" || callee == "and" || callee == "or" || callee == "not" || callee == "any")
      return add_condition();
    if (callee == "on" && declaration_ == "feature") return add_names(SymbolKind::prompts);  // select best on (…)
    const dsl::Term* term = nullptr;
    for (const TermKind kind :
         declaration_ == "feature"
             ? std::vector{TermKind::constructor, TermKind::metric, TermKind::word}
             : std::vector{TermKind::metric, TermKind::method, TermKind::attribution, TermKind::sweep, TermKind::attack,
                           TermKind::word, TermKind::constructor}) {
      if (term == nullptr) term = dsl::find_term(kind, callee);
    }
    if (term == nullptr) return false;
    // The argument that the cursor stands in: its place among those without a label, or its label.
    std::size_t place = 0, begin = open + 1;
    int depth = 0;
    std::set<std::string> labels;
    for (std::size_t i = open + 1; i < read_.size(); ++i) {
      const std::string_view token = at(i);
      if (read_[i].kind != Token::Kind::symbol) continue;
      depth += (token == "(" || token == "[") - (token == ")" || token == "]");
      if (depth == 0 && token == ":" && i > begin) labels.insert(std::string(at(i - 1)));
      if (depth == 0 && token == ",") {
        const bool labelled = begin + 1 < i && at(begin + 1) == ":";
        place += labelled ? 0 : 1;
        begin = i + 1;
      }
    }
    const bool after_label = begin + 1 < read_.size() && at(begin + 1) == ":";
    const bool at_start = begin == read_.size();
    const auto known = dsl::parameters(*term);
    if (after_label && begin + 2 == read_.size()) {
      for (const dsl::TermParameter& each : known) {
        if (each.label == at(begin)) add_taken(each.takes);
      }
      return true;
    }
    if (!at_start) return true;
    std::size_t unlabelled = 0;
    for (const dsl::TermParameter& each : known) {
      if (each.label.empty()) {
        if (unlabelled++ == place) add_taken(each.takes);
      } else if (!labels.contains(each.label)) {
        add(each.label + ": ", kField, each.takes, std::string(term->usage));
      }
    }
    return true;
  }

  void add_taken(const std::string& takes) {
    if (const auto kind = kind_taken(takes)) {
      add_names(*kind);
    } else if (takes == "METRIC") {
      add_terms(TermKind::metric);
    } else if (takes == "CHANGE") {
      add_words({"suppress", "amplify", "clamp", "steer", "cap", "rule", "edit"});
    } else if (takes.find('|') != std::string::npos) {
      add_alternatives(takes);
    }
  }

  void complete_statement(std::size_t open) {
    const bool of_file = open > 0 && read_[open - 1].kind == Token::Kind::string && at(open - 2) == "from";
    for (const std::string& each : dsl::statements_of(of_file ? "from" : declaration_)) {
      const dsl::Term* term = dsl::find_term(TermKind::statement, each);
      add(each, kKeyword, term != nullptr ? term->usage : "", term != nullptr ? term->meaning : "");
    }
    // What may go on with the sentence before.
    if (declaration_ == "rule") add_words({"at", "when", "and", "or", "by", "to"});
    if (declaration_ == "edit") add_words({"at", "in", "from", "to"});
    if (declaration_ == "check" || declaration_ == "edit") add_words({"beyond", "relative", "at", "across"});
  }

  void complete_heading() {
    if (declaration_ == "feature") add_words({"at", "select", "token"});
    if (declaration_ == "prompts") add_words({"as"});
    if (declaration_ == "waive") add_words({"until", "by", "because"});
    if (declaration_ == "use") add_words({"as"});
    add_terms(TermKind::declaration);
  }

  // ---- what is offered ----
  bool add(const std::string& label, int kind, std::string_view detail = "", std::string_view documentation = "") {
    if (!offered_.insert(label).second) return true;
    Json item = {
        {"label", label}, {"kind", kind}, {"textEdit", {{"range", text_.range(begin_, offset_)}, {"newText", label}}}};
    if (!detail.empty()) item["detail"] = detail;
    if (!documentation.empty()) item["documentation"] = {{"kind", "markdown"}, {"value", documentation}};
    items_.push_back(std::move(item));
    return true;
  }

  bool add_words(const std::vector<std::string>& words) {
    for (const std::string& each : words) {
      const dsl::Term* term = dsl::find_term(TermKind::word, each);
      if (term == nullptr) term = dsl::find_term(TermKind::statement, each);
      add(each, kKeyword, term != nullptr ? term->usage : "", term != nullptr ? term->meaning : "");
    }
    return true;
  }

  bool add_terms(TermKind kind) {
    for (const dsl::Term& term : dsl::vocabulary()) {
      if (term.kind != kind) continue;
      std::string label(term.name);
      std::string meaning(term.meaning);
      if (kind == TermKind::site) {
        const auto site = *dsl::site_from_name(term.name);
        if (model_ != nullptr && model_->sites.contains(site)) {
          if (!model_->sites.at(site).missing.empty()) continue;
          meaning += ", width " + std::to_string(model_->sites.at(site).width);
        }
      }
      const int item = kind == TermKind::declaration ? kKeyword : kind == TermKind::site ? kEnumMember : kFunction;
      add(label, item, term.usage, meaning);
    }
    return true;
  }

  bool add_condition() {
    add_names(SymbolKind::feature);
    return add_words({"not", "any", "last", "prompt", "token", "position", "generated", "quantile"});
  }

  void add_alternatives(const std::string& takes) {
    for (std::size_t i = 0; i <= takes.size();) {
      const std::size_t end = std::min(takes.find('|', i), takes.size());
      const std::string one = takes.substr(i, end - i);
      add(one.substr(0, one.find('(')), kEnumMember);
      i = end + 1;
    }
  }
  bool add_alternatives(const dsl::Term& term) {
    add_alternatives(std::string(term.usage.substr(term.usage.find(' ') + 1)));
    return true;
  }

  /// Names in scope, and those that a declaration gives which cannot be read at the moment.
  bool add_names(SymbolKind kind) {
    for (const auto& [key, symbol] : analysis_.module().scope) {
      if (key.first != kind) continue;
      const dsl::Module& home = analysis_.modules[symbol.module];
      add(key.second, item_kind(kind), dsl::kind_name(kind),
          "declared at " +
              dsl::place_text(analysis_.sources, dsl::named(home.file.declarations[symbol.declaration])->second.span));
    }
    const auto all = tokens(text_.str());
    for (std::size_t i = 0; i + 1 < all.size(); ++i) {
      if (!opens_declaration(text_.str(), all[i]) || all[i].of(text_.str()) != dsl::kind_name(kind)) continue;
      const bool is_cursor = all[i + 1].begin <= offset_ && offset_ <= all[i + 1].end;
      if (all[i + 1].kind == Token::Kind::word && !is_cursor) {
        add(std::string(all[i + 1].of(text_.str())), item_kind(kind), dsl::kind_name(kind));
      }
    }
    return true;
  }

  bool add_numbers(std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) add(std::to_string(i), kEnumMember);
    return true;
  }

  /// The site that `… head` follows: `z[3] head`.
  std::optional<dsl::SiteKind> site_before() const {
    for (std::size_t i = read_.size(); i-- > start_;) {
      if (const auto site = dsl::site_from_name(at(i)); site && model_->sites.contains(*site)) return site;
    }
    return std::nullopt;
  }

  /// `use std/an`: packs of the shipped library.
  bool complete_library(std::string_view before) {
    const std::size_t line = before.rfind('\n') + 1;  // 0 where there is none
    constexpr std::string_view kUse = "use ";
    const std::string_view sentence = before.substr(line);
    if (!sentence.starts_with(kUse)) return false;
    const std::string_view written = sentence.substr(kUse.size());
    const bool plain = std::all_of(written.begin(), written.end(),
                                   [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '/'; });
    if (!plain) return false;
    begin_ = line + kUse.size();
    for (const std::string& pack : dsl::library_packs(library_)) add("std/" + pack, kFile);
    return true;
  }

  /// Slots of `each`, where its template is being written, or the path of a file.
  void complete_string(const Token& string) {
    const std::string_view written = std::string_view(text_.str()).substr(string.begin, offset_ - string.begin);
    const std::size_t brace = written.rfind('{');
    const bool in_slot = brace != std::string_view::npos && written.find('}', brace) == std::string_view::npos;
    read_.pop_back();
    find_declaration();
    if (!in_slot || declaration_ != "prompts") return complete_path(string);
    begin_ = string.begin + brace + 1;
    for (std::size_t i = start_; i + 1 < read_.size(); ++i) {
      if (at(i + 1) == "in" && read_[i].kind == Token::Kind::word) add(std::string(at(i)), kVariable);
    }
  }

  /// Files below the rule file's folder, where a path is being written.
  void complete_path(const Token& string) {
    const std::string last(word(0)), before(word(1));
    const bool rules = last == "use";
    if (!rules && last != "from" && !(last == "(" && (before == "direction" || before == "latent")) && last != ":")
      return;
    const std::string written(text_.str().substr(string.begin + 1, offset_ - string.begin - 1));
    const std::size_t slash = written.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : written.substr(0, slash + 1);
    begin_ = string.begin + 1 + folder.size();
    constexpr std::size_t kMost = 1000;
    std::error_code error;
    std::vector<std::pair<std::string, bool>> entries;
    for (fs::directory_iterator entry(fs::path(analysis_.module().folder) / folder, error), end;
         !error && entry != end && entries.size() < kMost; entry.increment(error)) {
      std::error_code unknown;
      const std::string name = entry->path().filename().string();
      const bool is_folder = entry->is_directory(unknown);
      if (name.starts_with(".") || (rules && !is_folder && entry->path().extension() != ".proviso")) continue;
      const std::string encoded = dsl::encode_string(name);
      entries.emplace_back(encoded.substr(1, encoded.size() - 2), is_folder);
    }
    std::sort(entries.begin(), entries.end());
    for (const auto& [name, is_folder] : entries) add(name, is_folder ? kFolder : kFile);
  }

  const Analysis& analysis_;
  const Text& text_;
  std::size_t offset_;
  const std::string& library_;
  const ModelView* model_;
  std::vector<Token> read_;            // before what is being written
  std::size_t begin_ = 0;              // of what is being written
  std::size_t start_ = 0;              // the declaration's first token
  std::string declaration_;            // its word
  std::vector<std::size_t> brackets_;  // open ones
  std::set<std::string> offered_;
  Json items_ = Json::array();
};

}  // namespace

Json completion(const Analysis& analysis, const Text& text, std::size_t offset, const std::string& library,
                const ModelView* model) {
  return Completer(analysis, text, offset, library, model).run();
}

}  // namespace proviso::lsp
