#include "runtime/tokenizer/jinja_lexer.hpp"

#include <algorithm>
#include <cctype>

#include "runtime/tokenizer/jinja_operations.hpp"

namespace proviso::model::jinja {
namespace {

constexpr std::string_view kWhite = " \t\n\r\f\v";
constexpr std::size_t kMaxTagTokens = 500;  // bounds how deep an expression can be

// Every newline as "\n", and without one at the end, as Jinja reads a source.
std::string normalized_source(std::string_view source) {
  std::string out;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized_source(source)) {}

  std::vector<Token> run() {
    while (offset_ < source_.size()) {
      const std::size_t tag = next_tag();
      std::string text = source_.substr(offset_, tag - offset_);
      const bool at_line_start = offset_ == 0 || source_[offset_ - 1] == '\n';
      offset_ = tag;
      if (tag < source_.size()) {
        const char kind = source_[tag + 1];
        const char control = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
        if (control == '-') {
          text.resize(text.find_last_not_of(kWhite) + 1);
        } else if (kind != '{' && control != '+') {
          strip_line_start(text, at_line_start);
        }
        offset_ += control == '-' || control == '+' ? 3 : 2;
        put_text(std::move(text));
        if (kind == '#') {
          comment();
        } else {
          tag_content(kind == '{');
        }
      } else {
        put_text(std::move(text));
      }
    }
    tokens_.push_back({TokenType::end, ""});
    return std::move(tokens_);
  }

 private:
  std::size_t next_tag() const {
    for (std::size_t at = offset_; (at = source_.find('{', at)) != std::string::npos; ++at) {
      if (at + 1 < source_.size() && std::string_view("{%#").find(source_[at + 1]) != std::string_view::npos) return at;
    }
    return source_.size();
  }

  void put_text(std::string text) {
    if (!text.empty()) tokens_.push_back({TokenType::text, std::move(text)});
  }

  // White space between the line's start and a block's tag goes.
  static void strip_line_start(std::string& text, bool at_line_start) {
    const std::size_t line = text.rfind('\n') + 1;  // 0 where there is none
    if (line == 0 && !at_line_start) return;
    if (text.find_first_not_of(kWhite, line) == std::string::npos) text.resize(line);
  }

  void skip_white() { offset_ = std::min(source_.find_first_not_of(kWhite, offset_), source_.size()); }
  bool next_is(std::string_view text) const { return std::string_view(source_).substr(offset_).starts_with(text); }
  bool take(std::string_view text) {
    if (!next_is(text)) return false;
    offset_ += text.size();
    return true;
  }
  void trim_newline() { take("\n"); }

  void comment() {
    const std::size_t close = source_.find("#}", offset_);
    if (close == std::string::npos) refuse("a comment that is not closed");
    const char control = close > offset_ ? source_[close - 1] : '\0';
    offset_ = close + 2;
    if (control == '-') {
      skip_white();
    } else if (control != '+') {
      trim_newline();
    }
  }

  void tag_content(bool output) {
    const std::string_view close = output ? "}}" : "%}";
    tokens_.push_back({output ? TokenType::output_begin : TokenType::statement_begin, ""});
    const std::size_t begin = tokens_.size();
    while (true) {
      skip_white();
      if (offset_ == source_.size()) refuse("a tag that is not closed");
      if (tokens_.size() - begin > kMaxTagTokens) refuse("a tag of more than 500 parts");
      if (take("-" + std::string(close))) {
        skip_white();
        break;
      }
      if (!output && take("+%}")) break;
      if (take(close)) {
        if (!output) trim_newline();
        break;
      }
      token();
    }
    tokens_.push_back({output ? TokenType::output_end : TokenType::statement_end, ""});
  }

  void token() {
    const char c = source_[offset_];
    const auto in_name = [](char x) { return std::isalnum(static_cast<unsigned char>(x)) || x == '_'; };
    if (c == '\'' || c == '"') return string(c);
    if (in_name(c)) {
      const std::size_t begin = offset_;
      while (offset_ < source_.size() && in_name(source_[offset_])) ++offset_;
      const bool number = std::isdigit(static_cast<unsigned char>(c));
      tokens_.push_back({number ? TokenType::number : TokenType::name, source_.substr(begin, offset_ - begin)});
      return;
    }
    for (const char* symbol : {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~", "<",
                               ">",  "=",  "(",  ")",  "[",  "]",  "{", "}", ".", ",", ":", "|"}) {
      if (take(symbol)) {
        tokens_.push_back({TokenType::symbol, symbol});
        return;
      }
    }
    refuse(std::string("the character '") + c + "'");
  }

  void string(char quote) {
    std::string value;
    for (++offset_; offset_ < source_.size() && source_[offset_] != quote; ++offset_) {
      if (source_[offset_] != '\\') {
        value += source_[offset_];
        continue;
      }
      if (++offset_ == source_.size()) break;
      constexpr std::string_view kEscapes = "nrt\\'\"", kValues = "\n\r\t\\'\"";
      const std::size_t escape = kEscapes.find(source_[offset_]);
      if (escape == std::string_view::npos) refuse(std::string("the escape '\\") + source_[offset_] + "'");
      value += kValues[escape];
    }
    if (offset_ == source_.size()) refuse("a text that is not closed");
    ++offset_;
    tokens_.push_back({TokenType::string, std::move(value)});
  }

  std::string source_;
  std::size_t offset_ = 0;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace proviso::model::jinja
