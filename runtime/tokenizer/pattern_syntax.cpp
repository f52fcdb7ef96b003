#include <algorithm>
#include <cctype>
#include <map>
#include <optional>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/tokenizer/pattern.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

constexpr char32_t kLastCodePoint = 0x10FFFF;
constexpr std::size_t kMaxExpression = 8192;
constexpr int kMaxNesting = 32;
constexpr unsigned kMaxRepeat = 1000;
constexpr std::size_t kMaxSets = 64;

// Reads the part of Oniguruma's Ruby syntax whose meaning is the same in PCRE2, and writes the same expression with
// numbered sets of code points in place of literals and classes: "\p{L}+|a" becomes {set 0}"+|"{set 1}.
class Rewriter {
 public:
  explicit Rewriter(std::string_view expression) : source_(expression) {
    if (source_.size() > kMaxExpression) refuse("it is longer than 8192 bytes");
    if (find_invalid_utf8(source_) != std::string_view::npos) refuse("it is not UTF-8");
  }

  BytePattern rewrite() {
    alternatives(false, 0);
    if (!at_end()) refuse("')' closes nothing");
    return assign_classes();
  }

 private:
  // A part of the rewritten expression: text, or a reference to a set.
  struct Part {
    std::string text;
    std::optional<std::size_t> set;
  };
  using Parts = std::vector<Part>;

  [[noreturn]] void refuse(const std::string& why) const {
    throw InputError("the regular expression '" + std::string(source_.substr(0, 200)) + "' is not reproduced: " + why +
                     " (at byte " + std::to_string(offset_) + ")");
  }

  bool at_end() const { return offset_ == source_.size(); }
  bool next_is(std::string_view text) const { return source_.substr(offset_).starts_with(text); }
  bool take(std::string_view text) {
    if (!next_is(text)) return false;
    offset_ += text.size();
    return true;
  }
  char32_t take_code_point() {
    if (at_end()) refuse("it ends too early");
    return next_code_point(source_, offset_);
  }

  void write(std::string text) { parts_.push_back({std::move(text), std::nullopt}); }
  void write(const CodePointSet& set) {
    auto found = std::find(sets_.begin(), sets_.end(), set);
    if (found == sets_.end()) {
      if (sets_.size() == kMaxSets) refuse("it has more than 64 different character classes");
      found = sets_.insert(sets_.end(), set);
    }
    parts_.push_back({"", static_cast<std::size_t>(found - sets_.begin())});
  }

  void alternatives(bool fold_case, int depth) {
    if (depth > kMaxNesting) refuse("its groups are nested too deeply");
    last_folded_ = 0;
    while (!at_end() && !next_is(")")) {
      if (take("|")) {
        write("|");
        last_folded_ = 0;
      } else {
        const std::size_t atom_begin = parts_.size();
        atom(fold_case, depth);
        quantifiers(atom_begin);
      }
    }
  }

  void atom(bool fold_case, int depth) {
    if (take("(")) return group(fold_case, depth);
    if (take("[")) return write(char_class(fold_case));
    if (take(".")) return write(CodePointSet({{'\n', '\n'}}).complement());
    for (const char* anchor : {"^", "$", "*", "+", "?", "{"}) {
      if (next_is(anchor)) refuse("'" + std::string(anchor) + "' is not read at this place");
    }
    if (take("\\")) {
      if (take("A")) return write("\\A");
      if (take("z")) return write("\\z");
      if (const auto set = class_escape()) {
        if (fold_case && !closed_under_folding(*set)) refuse("a class of letters under (?i:…)");
        last_folded_ = 0;
        return write(*set);
      }
      return literal(escaped_character(), fold_case);
    }
    literal(take_code_point(), fold_case);
  }

  void group(bool fold_case, int depth) {
    std::string opening = "(?:";
    if (take("?i:")) {
      fold_case = true;
    } else if (take("?-i:")) {
      fold_case = false;
    } else if (next_is("?")) {
      const char* const kinds[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};
      const auto kind = std::find_if(std::begin(kinds), std::end(kinds), [&](const char* k) { return take(k); });
      if (kind == std::end(kinds)) refuse("this kind of group");
      opening = std::string("(") + *kind;
    }
    write(opening);
    alternatives(fold_case, depth + 1);
    if (!take(")")) refuse("a group is not closed");
    write(")");
    last_folded_ = 0;
  }

  // Case folding as Oniguruma does it. What it folds beyond single ASCII letters ("ss" and "ß") is refused.
  void literal(char32_t c, bool fold_case) {
    if (!fold_case) return write(CodePointSet({{c, c}}));
    if (c >= 0x80) refuse("a character beyond ASCII under (?i:…)");
    const char32_t lower = c >= 'A' && c <= 'Z' ? c + 32 : c;
    for (const char* pair : {"ss", "st", "ff", "fi", "fl"}) {
      if (last_folded_ == char32_t(pair[0]) && lower == char32_t(pair[1])) refuse("letters that fold together");
    }
    last_folded_ = lower;
    if (lower < 'a' || lower > 'z') return write(CodePointSet({{c, c}}));
    std::vector<CodePointRange> cases = {{lower, lower}, {lower - 32, lower - 32}};
    if (lower == 's') cases.push_back({0x17F, 0x17F});    // ſ
    if (lower == 'k') cases.push_back({0x212A, 0x212A});  // Kelvin sign
    write(CodePointSet(std::move(cases)));
  }

  static bool closed_under_folding(const CodePointSet& set) {
    return set == white_space() || set == white_space().complement() || set == *unicode_category("N") ||
           set == *unicode_category("Nd");
  }

  // After a backslash: a class such as \s or \p{L}, or nothing read.
  std::optional<CodePointSet> class_escape() {
    if (take("s")) return white_space();
    if (take("S")) return white_space().complement();
    if (take("d")) return *unicode_category("Nd");
    if (take("D")) return unicode_category("Nd")->complement();
    bool negated = next_is("P{");
    if (!take("p{") && !take("P{")) return std::nullopt;
    if (take("^")) negated = !negated;
    const std::size_t close = source_.find('}', offset_);
    if (close == std::string_view::npos) refuse("'\\p{' is not closed");
    const std::string_view name = source_.substr(offset_, close - offset_);
    const auto set = name.size() <= 2 ? unicode_category(name) : std::nullopt;
    if (!set) refuse("the property '" + std::string(name) + "'");
    offset_ = close + 1;
    return negated ? set->complement() : *set;
  }

  char32_t escaped_character() {
    const char32_t c = take_code_point();
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'f':
        return '\f';
      case 'u':
        return hexadecimal(4);
      case 'x': {
        if (!take("{")) {
          const char32_t value = hexadecimal(2);
          if (value >= 0x80) refuse("a byte escape beyond ASCII");
          return value;
        }
        const std::size_t close = std::min(source_.find('}', offset_), source_.size());
        const char32_t value = hexadecimal(close - offset_);
        if (!take("}")) refuse("'\\x{' is not closed");
        return value;
      }
      default:
        if (c >= 0x80 || std::isalnum(static_cast<int>(c))) refuse("this escape");
        return c;
    }
  }

  char32_t hexadecimal(std::size_t digits) {
    char32_t value = 0;
    if (digits == 0 || digits > 6) refuse("a code point in hexadecimal");
    for (std::size_t i = 0; i < digits; ++i) {
      const char32_t c = take_code_point();
      if (c >= 0x80 || !std::isxdigit(static_cast<int>(c))) refuse("a code point in hexadecimal");
      value = value * 16 + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    if (value > kLastCodePoint || (value >= 0xD800 && value < 0xE000)) refuse("no such code point");
    return value;
  }

  CodePointSet char_class(bool fold_case) {
    const bool negated = take("^");
    std::vector<CodePointRange> ranges;
    if (next_is("]")) refuse("a class that begins with ']'");
    while (!take("]")) {
      if (next_is("[") || next_is("&&")) refuse("a class within a class");
      if (take("\\")) {
        if (const auto set = class_escape()) {
          if (fold_case && !closed_under_folding(*set)) refuse("a class of letters under (?i:…)");
          ranges.insert(ranges.end(), set->ranges().begin(), set->ranges().end());
          if (next_is("-") && !next_is("-]")) refuse("'-' after a class");
          continue;
        }
        --offset_;
      }
      const char32_t first = class_character();
      char32_t last = first;
      if (next_is("-") && !next_is("-]")) {
        take("-");
        if (next_is("[")) refuse("a class within a class");
        last = class_character();
        if (last < first) refuse("a range in the wrong order");
      }
      const bool cased =
          first >= 0x80 || last >= 0x80 || CodePointSet({{first, last}}).contains('a') || (last >= 'A' && first <= 'z');
      if (fold_case && cased) refuse("a class of letters under (?i:…)");
      ranges.push_back({first, last});
    }
    last_folded_ = 0;
    CodePointSet set(std::move(ranges));
    return negated ? set.complement() : set;
  }

  char32_t class_character() { return take("\\") ? escaped_character() : take_code_point(); }

  void quantifiers(std::size_t atom_begin) {
    bool repeated = false;
    while (!at_end()) {
      if (next_is("*") || next_is("+") || next_is("?")) {
        if (repeated) refuse("a repetition of a repetition");
        std::string quantifier(1, source_[offset_++]);
        if (next_is("?") || next_is("+")) quantifier += source_[offset_++];
        write(std::move(quantifier));
        repeated = true;
      } else if (next_is("{")) {
        if (repeated) refuse("a repetition of a repetition");
        const std::string interval = read_interval();
        if (next_is("?")) refuse("'?' after an interval");
        write(interval);
        repeated = true;
        // In Ruby syntax the plus after an interval repeats it again; PCRE2 would take it as possessive.
        if (take("+")) {
          parts_.insert(parts_.begin() + static_cast<std::ptrdiff_t>(atom_begin), Part{"(?:", std::nullopt});
          write(")+");
        }
      } else {
        return;
      }
      last_folded_ = 0;
    }
  }

  std::string read_interval() {
    take("{");
    const auto number = [&]() -> std::optional<unsigned> {
      unsigned value = 0;
      const std::size_t begin = offset_;
      while (!at_end() && std::isdigit(static_cast<unsigned char>(source_[offset_]))) {
        value = value * 10 + static_cast<unsigned>(source_[offset_++] - '0');
        if (value > kMaxRepeat) refuse("a repetition beyond 1000");
      }
      return offset_ == begin ? std::nullopt : std::optional(value);
    };
    const auto low = number();
    const bool open = take(",");
    const auto high = open ? number() : low;
    if (!take("}") || (!low && !high) || (low && high && *low > *high)) refuse("an interval that is not {n,m}");
    return "{" + std::to_string(low.value_or(0)) + (open ? "," : "") + (open && high ? std::to_string(*high) : "") +
           "}";
  }

  // Code points that the same sets hold share a byte. ASCII keeps its own bytes, so that ASCII text needs no copy.
  BytePattern assign_classes() {
    BytePattern result;
    result.class_of.resize(kLastCodePoint + 1);
    std::map<char32_t, std::uint64_t> changes = {{0x80, 0}};  // where sets begin or end, as bits to flip
    for (std::size_t i = 0; i < sets_.size(); ++i) {
      for (const CodePointRange& range : sets_[i].ranges()) {
        if (range.last < 0x80) continue;
        changes[std::max<char32_t>(range.first, 0x80)] ^= std::uint64_t{1} << i;
        if (range.last < kLastCodePoint) changes[range.last + 1] ^= std::uint64_t{1} << i;
      }
    }
    std::vector<std::string> members(sets_.size());  // the bytes of each set
    const auto add_member = [&](std::size_t set, unsigned byte) {
      constexpr char kDigits[] = "0123456789abcdef";
      members[set] += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    };
    for (char32_t c = 0; c < 0x80; ++c) {
      result.class_of[c] = static_cast<std::uint8_t>(c);
      for (std::size_t i = 0; i < sets_.size(); ++i) {
        if (sets_[i].contains(c)) add_member(i, c);
      }
    }
    std::map<std::uint64_t, unsigned> classes;
    std::uint64_t holding = 0;
    for (auto change = changes.begin(); change != changes.end(); ++change) {
      holding ^= change->second;
      const auto [found, added] = classes.try_emplace(holding, 0x80 + static_cast<unsigned>(classes.size()));
      if (found->second > 0xFF) refuse("it tells more than 128 kinds of characters apart");
      if (added) {
        for (std::size_t i = 0; i < sets_.size(); ++i) {
          if (holding >> i & 1) add_member(i, found->second);
        }
      }
      const auto next = std::next(change);
      std::fill(result.class_of.begin() + change->first,
                next == changes.end() ? result.class_of.end() : result.class_of.begin() + next->first,
                static_cast<std::uint8_t>(found->second));
    }
    for (const Part& part : parts_) {
      if (!part.set) {
        result.expression += part.text;
      } else {
        const std::string& bytes = members[*part.set];
        result.expression += bytes.empty() ? "[^\\x00-\\xff]" : "[" + bytes + "]";
      }
    }
    return result;
  }

  std::string_view source_;
  std::size_t offset_ = 0;
  Parts parts_;
  std::vector<CodePointSet> sets_;
  char32_t last_folded_ = 0;  // the literal before, under (?i:…)
};

}  // namespace

BytePattern rewrite_over_bytes(std::string_view expression) { return Rewriter(expression).rewrite(); }

}  // namespace proviso::model
