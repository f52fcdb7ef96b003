#include "dsl/format.hpp"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "dsl/literals.hpp"
#include "dsl/writer.hpp"

namespace proviso::dsl {
namespace {

constexpr std::size_t kLineWidth = 100;
constexpr std::size_t kFlatListWidth = 40;  // in a statement too long for one line, shorter lists stay whole
constexpr std::string_view kIndent = "  ";

std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

/// Where a piece of the source lies that becomes one line of output.
struct Range {
  std::size_t begin;
  std::size_t end;
};

Range range_of(Span span) { return {span.begin, span.end}; }

/// Whether the slash at `at` opens a regular expression, and does not part the words of `std/NAME`: after a word
/// without a blank between only `matches` is followed by one.
bool opens_regex(std::string_view text, std::size_t at) {
  std::size_t begin = at;
  while (begin > 0 && (std::isalnum(static_cast<unsigned char>(text[begin - 1])) || text[begin - 1] == '_')) --begin;
  return begin == at || text.substr(begin, at - begin) == "matches";
}

/// Every comment of a file, in order. Strings and regular expressions, which can hold a `#`, are stepped over.
std::vector<Range> comments_in(std::string_view text) {
  std::vector<Range> comments;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '#') {
      std::size_t end = std::min(text.find('\n', i), text.size());
      const std::size_t next = end;
      while (end > i && (text[end - 1] == ' ' || text[end - 1] == '\t' || text[end - 1] == '\r')) --end;
      comments.push_back({i, end});
      i = next;
    } else if (c == '"' || (c == '/' && opens_regex(text, i))) {
      for (++i; i < text.size() && text[i] != c && text[i] != '\n'; ++i) {
        if (text[i] == '\\') ++i;
      }
    }
  }
  return comments;
}

/// Writes lines, and with each the comments and the blank line that belong to it.
class Page {
 public:
  explicit Page(std::string_view text) : text_(text), comments_(comments_in(text)) {}

  bool has_comment(Range range) const {
    const auto first = std::lower_bound(comments_.begin(), comments_.end(), range.begin,
                                        [](const Range& comment, std::size_t begin) { return comment.begin < begin; });
    return first != comments_.end() && first->begin < range.end;
  }

  /// One line of output for `range`; comments inside it go before it, one that ends its line follows it.
  void line(Range range, std::size_t depth, std::string_view text) {
    comments_before(range.end, range.begin, depth);
    start_line(range.begin, depth);
    out_ += text;
    end_line(range.end);
  }

  /// Comments that begin before `end`, each on a line of its own.
  void comments_before(std::size_t end, std::size_t gap_end, std::size_t depth) {
    while (next_ < comments_.size() && comments_[next_].begin < end) {
      const Range comment = comments_[next_++];
      start_line(std::min(comment.begin, gap_end), depth);
      out_ += text_.substr(comment.begin, comment.end - comment.begin);
      out_ += '\n';
      last_ = std::max(last_, comment.end);
    }
  }

  void open_block() { fresh_ = true; }
  void close_block() { fresh_ = true; }

  /// The first character after layout, from `at`.
  std::size_t after_layout(std::size_t at) const {
    while (at < text_.size()) {
      if (text_[at] == '#') {
        at = std::min(text_.find('\n', at), text_.size());
      } else if (std::string_view(" \t\r\n").find(text_[at]) != std::string_view::npos) {
        ++at;
      } else {
        break;
      }
    }
    return at;
  }

  std::string_view text() const { return text_; }
  std::string take() && { return std::move(out_); }

 private:
  void start_line(std::size_t begin, std::size_t depth) {
    if (!fresh_ && blank_line_between(last_, begin)) out_ += '\n';
    fresh_ = false;
    for (std::size_t i = 0; i < depth; ++i) out_ += kIndent;
  }

  void end_line(std::size_t end) {
    last_ = std::max(last_, end);
    if (next_ < comments_.size()) {
      const Range comment = comments_[next_];
      const std::string_view between = comment.begin >= end ? text_.substr(end, comment.begin - end) : "\n";
      if (between.find_first_not_of(" \t\r,") == std::string_view::npos) {
        out_ += "  ";
        out_ += text_.substr(comment.begin, comment.end - comment.begin);
        last_ = comment.end;
        ++next_;
      }
    }
    out_ += '\n';
  }

  bool blank_line_between(std::size_t begin, std::size_t end) const {
    bool line_is_empty = false;  // the rest of the line on which `begin` stands does not count
    for (std::size_t i = begin; i < end; ++i) {
      if (text_[i] == '\n') {
        if (line_is_empty) return true;
        line_is_empty = true;
      } else if (text_[i] != ' ' && text_[i] != '\t' && text_[i] != '\r') {
        line_is_empty = false;
      }
    }
    return false;
  }

  std::string_view text_;
  std::vector<Range> comments_;
  std::size_t next_ = 0;
  std::size_t last_ = 0;  // where the source of the last line ended
  bool fresh_ = true;     // no blank line opens a file or a block, or closes one
  std::string out_;
};

/// A statement of a body.
struct Statement {
  Span span;
  Writer writer;
  bool brief = false;  ///< an option of a file: several share a line
};

class Formatter {
 public:
  explicit Formatter(std::string_view text) : page_(text) {}

  std::string format(const ast::File& file) && {
    for (const ast::Declaration& declaration : file.declarations) {
      std::visit([&](const auto& node) { write(node); }, declaration);
    }
    page_.comments_before(page_.text().size() + 1, page_.text().size(), 0);
    return std::move(page_).take();
  }

 private:
  // ---- layout ----

  bool fits(std::size_t depth, std::string_view text) const {
    return depth * kIndent.size() + width(text) <= kLineWidth;
  }

  /// A statement or a declaration's head, followed by `tail` (" {"), which ends at `range.end`.
  void write_broken(const Writer& writer, Range range, std::size_t depth, std::string_view tail) {
    std::string line;
    std::size_t begin = range.begin;
    bool inside = false;  // the line being made began with a list's `]`
    for (std::size_t i = 0; i < writer.lists().size(); ++i) {
      const WrittenList& list = writer.lists()[i];
      line += writer.texts()[i];
      const std::string flat = list.flat();
      if (list.items.empty() || (!keeps_comments(list) && width(flat) <= kFlatListWidth)) {
        line += flat;
        continue;
      }
      close_part(inside, {begin, list.span.begin + std::size_t{1}}, depth, line + "[");
      page_.open_block();
      for (const auto& [span, item] : list.items) page_.line(range_of(span), depth + 1, item);
      line = "]";
      begin = list.span.end - 1;
      inside = true;
    }
    line += writer.texts().back();
    close_part(inside, {begin, range.end}, depth, line + std::string(tail));
  }

  void close_part(bool inside_list, Range range, std::size_t depth, std::string_view line) {
    if (inside_list) {
      page_.comments_before(range.end, range.begin, depth + 1);
      page_.close_block();
    }
    page_.line(range, depth, line);
  }

  /// Comments in a list stay there, so it breaks; all others of a statement go before it.
  bool keeps_comments(const WrittenList& list) const {
    return !list.items.empty() && page_.has_comment(range_of(list.span));
  }
  bool stays_whole(const Writer& writer, std::size_t depth, std::string_view line) const {
    return fits(depth, line) && std::none_of(writer.lists().begin(), writer.lists().end(),
                                             [&](const WrittenList& list) { return keeps_comments(list); });
  }

  /// Writes a statement or a declaration's head, and `tail` behind it.
  void write_part(const Writer& writer, Range range, std::size_t depth, std::string_view tail = "") {
    const std::string line = writer.flat() + std::string(tail);
    if (stays_whole(writer, depth, line)) {
      page_.line(range, depth, line);
    } else {
      write_broken(writer, range, depth, tail);
    }
  }

  /// `head` ends at `head_end` in the source; a body in braces follows where there are statements or `braces` asks.
  void write_declaration(Span span, const Writer& head, std::size_t head_end, std::vector<Statement> statements,
                         bool braces) {
    const Range whole = range_of(span);
    if (!braces && statements.empty()) return write_part(head, whole, 0);

    std::sort(statements.begin(), statements.end(),
              [](const Statement& a, const Statement& b) { return a.span.begin < b.span.begin; });
    const std::size_t open = page_.after_layout(head_end);
    const bool written = open < page_.text().size() && page_.text()[open] == '{';  // notes may stand without braces
    const std::size_t body = written ? open + 1 : head_end;

    const bool brief = std::all_of(statements.begin(), statements.end(), [](const Statement& s) { return s.brief; });
    if ((brief || statements.size() == 1) && !page_.has_comment({body, whole.end})) {
      std::string inside;
      for (const Statement& statement : statements) inside += (inside.empty() ? " " : "  ") + statement.writer.flat();
      if (!inside.empty()) inside += " ";
      const std::string line = head.flat() + " {" + inside + "}";
      if (stays_whole(head, 0, line)) return page_.line(whole, 0, line);
    }

    write_part(head, {whole.begin, body}, 0, " {");
    page_.open_block();
    for (const Statement& statement : statements) write_part(statement.writer, range_of(statement.span), 1);
    const std::size_t close = written ? whole.end - 1 : whole.end;
    page_.comments_before(close, close, 1);
    page_.close_block();
    page_.line({close, whole.end}, 0, "}");
  }

  // ---- parts that several declarations have ----

  static Writer titled(std::string_view word, const ast::Name& name, const ast::Notes& notes) {
    Writer head;
    head.word(word) << name;
    if (notes.title) head << *notes.title;
    return head;
  }

  static std::size_t end_of(const ast::Name& name, const ast::Notes& notes) {
    return notes.title ? notes.title->span.end : name.span.end;
  }

  static std::vector<Statement> notes(const ast::Notes& notes) {
    std::vector<Statement> out;
    if (notes.description)
      out.push_back({notes.description->span, std::move(Writer().word("description") << notes.description->text)});
    if (notes.tags)
      out.push_back({notes.tags->span, std::move(Writer().word("tags").strings(notes.tags->values, notes.tags->span))});
    if (notes.meta) {
      Writer writer;
      writer.word("meta {");
      for (const ast::MetaEntry& entry : notes.meta->entries) writer << entry.key << entry.value;
      notes.meta->entries.empty() ? writer.raw("}") : writer.word("}");
      out.push_back({notes.meta->span, std::move(writer)});
    }
    if (notes.status)
      out.push_back({notes.status->span, std::move(Writer().word("status").word(status_name(notes.status->value)))});
    return out;
  }

  static std::string_view status_name(Annotations::Status status) {
    switch (status) {
      case Annotations::Status::experimental:
        return "experimental";
      case Annotations::Status::deprecated:
        return "deprecated";
      default:
        return "stable";
    }
  }

  static std::vector<Statement> file_options(const ast::FromFile& file) {
    std::vector<Statement> out;
    const auto add = [&](std::string_view key, const auto& value) {
      if (value) out.push_back({value->span, std::move(Writer().word(key) << *value), true});
    };
    add("take", file.take);
    add("seed", file.seed);
    add("field", file.field);
    add("answer", file.answer);
    add("cluster", file.cluster);
    return out;
  }

  // ---- declarations ----

  void write(const ast::Use& node) {
    Writer head;
    head.word("use");
    std::size_t end = 0;
    if (const auto* library = std::get_if<ast::LibraryName>(&node.what)) {
      head.word("std/" + library->name);
      end = library->span.end;
    } else {
      head << std::get<ast::String>(node.what);
      end = std::get<ast::String>(node.what).span.end;
    }
    if (node.alias) {
      head.word("as") << *node.alias;
      end = node.alias->span.end;
    }
    if (node.notes.title) {
      head << *node.notes.title;
      end = node.notes.title->span.end;
    }
    write_declaration(node.span, head, end, notes(node.notes), false);
  }

  void write(const ast::Model& node) {
    Writer head;
    head.word("model");
    std::size_t end = node.span.begin + std::string_view("model").size();
    if (node.notes.title) {
      head << *node.notes.title;
      end = node.notes.title->span.end;
    }
    std::vector<Statement> statements = notes(node.notes);
    for (const ast::Requirement& requirement : node.requirements) {
      Writer writer;
      writer << requirement.key;
      std::visit([&](const auto& value) { writer << value; }, requirement.value);
      statements.push_back({requirement.span, std::move(writer)});
    }
    write_declaration(node.span, head, end, std::move(statements), true);
  }

  void write(const ast::Prompts& node) {
    Writer head = titled("prompts", node.name, node.notes);
    if (node.chat) {
      head.word("as chat");
      if (node.chat->system) head.raw("(system: " + encode_string(node.chat->system->value) + ")");
    }
    head.word("=");
    std::vector<Statement> statements = notes(node.notes);
    std::size_t end = 0;
    if (const auto* list = std::get_if<ast::PromptList>(&node.source)) {
      head << *list;
      end = list->span.end;
    } else if (const auto* file = std::get_if<ast::FromFile>(&node.source)) {
      head.word("from") << file->path;
      end = file->path.span.end;
      for (Statement& option : file_options(*file)) statements.push_back(std::move(option));
    } else {
      const auto& each = std::get<ast::Each>(node.source);
      write_each(head, each);
      end = each.span.end;
    }
    write_declaration(node.span, head, end, std::move(statements), false);
  }

  static void write_each(Writer& head, const ast::Each& each) {
    head.word("each").separated(each.bindings, [&](const ast::Each::Binding& binding) {
      head << binding.name;
      head.word("in").strings(binding.values, binding.span);
    });
    head.word(encode_template(each.text));
    if (each.answers.size() == 1) head.word("->").word(encode_template(each.answers.front()));
    if (each.answers.size() > 1) {
      std::string answers;
      for (const ast::Template& answer : each.answers)
        answers += (answers.empty() ? "" : ", ") + encode_template(answer);
      head.word("-> [" + answers + "]");
    }
  }

  void write(const ast::Feature& node) {
    Writer head = titled("feature", node.name, node.notes);
    head.word("=") << node.constructor;
    std::size_t end = node.constructor.span.end;
    if (node.site) {
      head.word("at").word(to_string(*node.site));
      end = std::max<std::size_t>(end, node.site->span.end);
    }
    if (node.select) {
      head.word("select best");
      if (node.select->on) head.word("on").sides(*node.select->on);
      end = std::max<std::size_t>(end, node.select->span.end);
    }
    if (node.token) {
      const TokenChoice& choice = node.token->choice;
      head.word("token").word(choice.kind == TokenChoice::Kind::last  ? "last"
                              : choice.kind == TokenChoice::Kind::all ? "all"
                                                                      : std::to_string(choice.index));
      end = std::max<std::size_t>(end, node.token->span.end);
    }
    write_declaration(node.span, head, end, notes(node.notes), false);
  }

  void write(const ast::Rule& node) {
    std::vector<Statement> statements = notes(node.notes);
    for (const ast::Intervention& intervention : node.interventions) {
      statements.push_back({intervention.span, std::move(Writer().intervention(intervention, false))});
    }
    for (const ast::Example& example : node.examples) {
      Writer writer;
      writer.word(example.fires ? "fires on" : "silent on");
      writer.separated(example.prompts, [&](const ast::PromptsRef& prompts) { writer << prompts; });
      statements.push_back({example.span, std::move(writer)});
    }
    write_declaration(node.span, titled("rule", node.name, node.notes), end_of(node.name, node.notes),
                      std::move(statements), true);
  }

  static Writer written(const ast::Fact& fact) {
    Writer writer;
    writer.word("fact") << fact.subject;
    writer.word("in").word(encode_template(fact.in));
    if (fact.from) writer.word("from") << *fact.from;
    return std::move(writer.word("to") << fact.to);
  }
  static Writer written(const ast::FactsFrom& facts) {
    Writer writer;
    writer.word("facts from") << facts.file.path;
    std::vector<Statement> options = file_options(facts.file);
    if (options.empty()) return writer;
    std::sort(options.begin(), options.end(),
              [](const Statement& a, const Statement& b) { return a.span.begin < b.span.begin; });
    writer.word("{");
    for (const Statement& option : options) writer.word(option.writer.flat());
    return std::move(writer.word("}"));
  }
  static Writer written(const ast::Remove& remove) {
    if (remove.circuit) return std::move(Writer().word("remove circuit") << remove.feature);
    return std::move((Writer().word("remove") << remove.feature).word("at").sites(remove.sites, false));
  }
  static Writer written(const ast::Erase& erase) {
    Writer writer;
    writer.word("erase");
    if (const auto* classes = std::get_if<std::vector<ast::PromptsRef>>(&erase.labels)) {
      writer.classes(*classes);
    } else {
      writer << std::get<ast::PromptsRef>(erase.labels);
    }
    if (!erase.sites.empty()) writer.word("at").sites(erase.sites, false);
    return writer;
  }

  static void add_expectations(std::vector<Statement>& statements, const std::vector<ast::Expectation>& expectations) {
    for (const ast::Expectation& expectation : expectations) {
      statements.push_back({expectation.span, std::move(Writer().word("expect") << expectation)});
    }
  }
  static void add_method(std::vector<Statement>& statements, const std::optional<ast::Using>& method) {
    if (method) statements.push_back({method->span, std::move(Writer().word("using") << method->method)});
  }

  void write(const ast::Edit& node) {
    std::vector<Statement> statements = notes(node.notes);
    for (const auto& change : node.changes) {
      std::visit([&](const auto& each) { statements.push_back({each.span, written(each)}); }, change);
    }
    add_method(statements, node.method);
    add_expectations(statements, node.expectations);
    write_declaration(node.span, titled("edit", node.name, node.notes), end_of(node.name, node.notes),
                      std::move(statements), true);
  }

  void write(const ast::Circuit& node) {
    std::vector<Statement> statements = notes(node.notes);
    for (const ast::Pair& pair : node.pairs) {
      Writer writer;
      writer.word(pair.held ? "held clean" : "clean");
      std::visit([&](const auto& side) { writer << side; }, pair.clean);
      writer.word("corrupt");
      std::visit([&](const auto& side) { writer << side; }, pair.corrupt);
      statements.push_back({pair.span, std::move(writer)});
    }
    if (node.measure)
      statements.push_back({node.measure->span, std::move(Writer().word("measure") << node.measure->metric)});
    add_method(statements, node.method);
    if (node.keep)
      statements.push_back({node.keep->span, std::move(Writer().word("keep") << node.keep->amount << node.keep->unit)});
    write_declaration(node.span, titled("circuit", node.name, node.notes), end_of(node.name, node.notes),
                      std::move(statements), true);
  }

  void write(const ast::Check& node) {
    std::vector<Statement> statements = notes(node.notes);
    if (node.severity)
      statements.push_back(
          {node.severity->span, std::move(Writer().word("severity").word(severity_name(node.severity->value)))});
    for (const ast::Under& under : node.under) {
      Writer writer;
      writer.word(under.kind == ast::Under::Kind::rule   ? "under rule"
                  : under.kind == ast::Under::Kind::edit ? "under edit"
                                                         : "under attack");
      writer.separated(under.names, [&](const ast::Name& name) { writer << name; });
      writer.separated(under.attacks, [&](const ast::Call& attack) { writer << attack; });
      statements.push_back({under.span, std::move(writer)});
    }
    add_expectations(statements, node.expectations);
    write_declaration(node.span, titled("check", node.name, node.notes), end_of(node.name, node.notes),
                      std::move(statements), true);
  }

  void write(const ast::Waive& node) {
    char date[32];
    std::snprintf(date, sizeof date, "%04d-%02d-%02d", node.until.year, node.until.month, node.until.day);
    Writer head = titled("waive", node.check, node.notes);
    (head.word("until").word(date).word("by") << node.by).word("because") << node.because;
    write_declaration(node.span, head, node.because.span.end, notes(node.notes), false);
  }

  Page page_;
};

}  // namespace

std::string format(const ast::File& file, const SourceSet& sources) {
  std::string_view text = sources.at(file.source).text;
  return Formatter(text).format(file);
}

}  // namespace proviso::dsl
