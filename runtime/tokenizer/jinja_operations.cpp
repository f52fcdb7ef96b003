#include "runtime/tokenizer/jinja_operations.hpp"

#include <algorithm>
#include <ctime>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/tokenizer/unicode.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model::jinja {
namespace {

constexpr std::size_t kMaxText = std::size_t{16} << 20;

const std::string& text_of(const Value& value, const char* what) {
  if (const auto* text = value.as<std::string>()) return *text;
  refuse(std::string(what) + " of what is not text");
}

// Whether Python's strip() takes it: white space, and the four separators of ASCII.
bool is_stripped(char32_t c) { return (c >= 0x1C && c <= 0x1F) || white_space().contains(c); }

enum Side { kLeft = 1, kRight = 2, kBoth = 3 };

std::string strip(const std::string& text, const std::string* characters, Side side) {
  const auto goes = [&](std::string_view character) {
    std::size_t offset = 0;
    return characters ? characters->find(character) != std::string::npos
                      : is_stripped(next_code_point(character, offset));
  };
  std::vector<std::size_t> bounds;
  for (std::size_t offset = 0; offset < text.size(); next_code_point(text, offset)) bounds.push_back(offset);
  bounds.push_back(text.size());
  std::size_t begin = 0, end = bounds.size() - 1;
  const auto character = [&](std::size_t i) {
    return std::string_view(text).substr(bounds[i], bounds[i + 1] - bounds[i]);
  };
  while (side & kLeft && begin < end && goes(character(begin))) ++begin;
  while (side & kRight && begin < end && goes(character(end - 1))) --end;
  return text.substr(bounds[begin], bounds[end] - bounds[begin]);
}

std::string change_case(std::string text, bool upper) {
  if (!is_ascii(text)) refuse("the case of letters beyond ASCII");
  for (char& c : text) {
    if (upper ? c >= 'a' && c <= 'z' : c >= 'A' && c <= 'Z') c ^= 0x20;
  }
  return text;
}

std::string replace(const std::string& text, const std::string& from, const std::string& to) {
  if (from.empty()) refuse("the replacement of an empty text");
  std::string out;
  std::size_t begin = 0;
  for (std::size_t at; (at = text.find(from, begin)) != std::string::npos; begin = at + from.size()) {
    out.append(text, begin, at - begin).append(to);
    if (out.size() > kMaxText) refuse("a text of more than 16 MiB");
  }
  return out.append(text, begin);
}

List split(const std::string& text, const std::string& separator) {
  if (separator.empty()) refuse("splitting by an empty text");
  List parts;
  std::size_t begin = 0;
  for (std::size_t at; (at = text.find(separator, begin)) != std::string::npos; begin = at + separator.size()) {
    parts.emplace_back(text.substr(begin, at - begin));
  }
  parts.emplace_back(text.substr(begin));
  return parts;
}

std::int64_t length(const Value& value) {
  if (const auto* list = value.as<std::shared_ptr<List>>()) return static_cast<std::int64_t>((*list)->size());
  if (const auto* map = value.as<std::shared_ptr<Map>>()) return static_cast<std::int64_t>((*map)->size());
  const std::string& text = text_of(value, "the length");
  std::int64_t count = 0;
  for (std::size_t offset = 0; offset < text.size(); next_code_point(text, offset)) ++count;
  return count;
}

// Truth values count as 0 and 1, as in Python.
const std::int64_t* number(const Value& value, std::int64_t& storage) {
  if (const bool* flag = value.as<bool>()) return storage = *flag, &storage;
  return value.as<std::int64_t>();
}

std::string today(const std::string& format) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char buffer[256];
  return std::string(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &local));
}

}  // namespace

void refuse(const std::string& what) { throw InputError("the model's chat template is not reproduced: " + what); }

bool is_true(const Value& value) {
  struct Truth {
    bool operator()(Undefined) const { return false; }
    bool operator()(std::nullptr_t) const { return false; }
    bool operator()(bool flag) const { return flag; }
    bool operator()(std::int64_t n) const { return n != 0; }
    bool operator()(const std::string& text) const { return !text.empty(); }
    bool operator()(const std::shared_ptr<List>& list) const { return !list->empty(); }
    bool operator()(const std::shared_ptr<Map>& map) const { return !map->empty(); }
  };
  return std::visit(Truth{}, value.held);
}

std::string to_text(const Value& value) {
  struct Text {
    std::string operator()(Undefined) const { return ""; }
    std::string operator()(std::nullptr_t) const { return "None"; }
    std::string operator()(bool flag) const { return flag ? "True" : "False"; }
    std::string operator()(std::int64_t n) const { return std::to_string(n); }
    std::string operator()(const std::string& text) const { return text; }
    std::string operator()(const std::shared_ptr<List>&) const { refuse("a list printed as text"); }
    std::string operator()(const std::shared_ptr<Map>&) const { refuse("a map printed as text"); }
  };
  return std::visit(Text{}, value.held);
}

bool equal(const Value& a, const Value& b) {
  std::int64_t left_storage, right_storage;
  const auto *left = number(a, left_storage), *right = number(b, right_storage);
  if (left && right) return *left == *right;
  if (a.held.index() != b.held.index()) return false;
  if (const auto* text = a.as<std::string>()) return *text == *b.as<std::string>();
  if (a.as<std::shared_ptr<List>>() || a.as<std::shared_ptr<Map>>()) refuse("a comparison of lists or maps");
  return true;
}

bool less(const Value& a, const Value& b) {
  std::int64_t left_storage, right_storage;
  const auto *left = number(a, left_storage), *right = number(b, right_storage);
  if (!left || !right) refuse("an order of what are not numbers");
  return *left < *right;
}

bool contains(const Value& container, const Value& element) {
  if (const auto* list = container.as<std::shared_ptr<List>>()) {
    return std::any_of((*list)->begin(), (*list)->end(), [&](const Value& each) { return equal(each, element); });
  }
  if (container.is_undefined()) return false;
  if (const auto* map = container.as<std::shared_ptr<Map>>()) return (*map)->contains(text_of(element, "the key"));
  return text_of(container, "'in'").find(text_of(element, "a part")) != std::string::npos;
}

Value arithmetic(char operation, const Value& a, const Value& b) {
  const auto *left_text = a.as<std::string>(), *right_text = b.as<std::string>();
  if (operation == '+' && left_text && right_text) {
    if (left_text->size() + right_text->size() > kMaxText) refuse("a text of more than 16 MiB");
    return *left_text + *right_text;
  }
  const auto *left_list = a.as<std::shared_ptr<List>>(), *right_list = b.as<std::shared_ptr<List>>();
  if (operation == '+' && left_list && right_list) {
    if ((*left_list)->size() + (*right_list)->size() > kMaxText / sizeof(Value)) refuse("a list that long");
    List both = **left_list;
    both.insert(both.end(), (*right_list)->begin(), (*right_list)->end());
    return both;
  }
  std::int64_t left_storage, right_storage;
  const auto *left = number(a, left_storage), *right = number(b, right_storage);
  if (!left || !right) refuse(std::string("'") + operation + "' between these values");
  std::int64_t result = 0;
  const bool overflow = operation == '+'   ? __builtin_add_overflow(*left, *right, &result)
                        : operation == '-' ? __builtin_sub_overflow(*left, *right, &result)
                        : operation == '*' ? __builtin_mul_overflow(*left, *right, &result)
                                           : *right <= 0;
  if (overflow) refuse("a number that large, or a division by zero or less");
  const std::int64_t remainder = operation == '%' || operation == '/' ? (*left % *right + *right) % *right : 0;
  if (operation == '%') return remainder;
  if (operation == '/') return (*left - remainder) / *right;
  return result;
}

Value element(const Value& container, const Value& key) {
  if (const auto* map = container.as<std::shared_ptr<Map>>()) {
    const auto found = (*map)->find(text_of(key, "the key"));
    return found == (*map)->end() ? Value() : found->second;
  }
  if (container.is_undefined()) refuse("a member of what is not defined");
  const auto* list = container.as<std::shared_ptr<List>>();
  const auto* index = key.as<std::int64_t>();
  if (!list || !index) {
    if (key.as<std::string>()) return Value();  // no such attribute
    refuse("an element of what is not a list");
  }
  const auto size = static_cast<std::int64_t>((*list)->size());
  const std::int64_t at = *index < 0 ? *index + size : *index;
  return at >= 0 && at < size ? (**list)[static_cast<std::size_t>(at)] : Value();
}

Value slice(const Value& container, const Value& begin, const Value& end) {
  const auto* list = container.as<std::shared_ptr<List>>();
  if (!list) refuse("a slice of what is not a list");
  const auto size = static_cast<std::int64_t>((*list)->size());
  const auto bound = [&](const Value& value, std::int64_t fallback) {
    if (value.is_undefined()) return fallback;
    const auto* index = value.as<std::int64_t>();
    if (!index) refuse("a slice by what is not a number");
    return std::clamp(*index < 0 ? *index + size : *index, std::int64_t{0}, size);
  };
  const std::int64_t first = bound(begin, 0), last = std::max(bound(end, size), first);
  return List((*list)->begin() + first, (*list)->begin() + last);
}

Value call_method(const Value& object, const std::string& name, const Arguments& arguments) {
  const auto& given = arguments.positional;
  if (!arguments.named.empty() || given.size() > 2) refuse("'." + name + "(…)' with these arguments");
  if (const auto* map = object.as<std::shared_ptr<Map>>(); map && name == "get" && !given.empty()) {
    const auto found = (*map)->find(text_of(given[0], "the key"));
    if (found != (*map)->end()) return found->second;
    return given.size() > 1 ? given[1] : Value(nullptr);
  }
  const auto* text = object.as<std::string>();
  if (!text) refuse("'." + name + "(…)' of what is not text");
  const auto argument = [&](std::size_t i) -> const std::string& { return text_of(given[i], "the argument"); };
  for (const auto& [method, side] : {std::pair("strip", kBoth), {"lstrip", kLeft}, {"rstrip", kRight}}) {
    if (name == method && given.size() < 2) return strip(*text, given.empty() ? nullptr : &argument(0), side);
  }
  if (name == "upper" && given.empty()) return change_case(*text, true);
  if (name == "lower" && given.empty()) return change_case(*text, false);
  if (name == "startswith" && given.size() == 1) return text->starts_with(argument(0));
  if (name == "endswith" && given.size() == 1) return text->ends_with(argument(0));
  if (name == "split" && given.size() == 1) return split(*text, argument(0));
  if (name == "replace" && given.size() == 2) return replace(*text, argument(0), argument(1));
  refuse("the method '" + name + "'");
}

Value apply_filter(const Value& value, const std::string& name, const Arguments& arguments) {
  const bool plain = arguments.positional.empty() && arguments.named.empty();
  if (name == "trim" && plain) return strip(to_text(value), nullptr, kBoth);
  if ((name == "length" || name == "count") && plain) return length(value);
  if (name == "upper" && plain) return change_case(to_text(value), true);
  if (name == "lower" && plain) return change_case(to_text(value), false);
  if (name == "string" && plain) return to_text(value);
  if (name == "first" && plain) return element(value, std::int64_t{0});
  if (name == "last" && plain) return element(value, std::int64_t{-1});
  if (name == "default" && arguments.positional.size() == 1 && arguments.named.empty()) {
    return value.is_undefined() ? arguments.positional[0] : value;
  }
  refuse("the filter '" + name + "'");
}

bool apply_test(const Value& value, const std::string& name) {
  const bool list = value.as<std::shared_ptr<List>>(), map = value.as<std::shared_ptr<Map>>();
  const bool text = value.as<std::string>();
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.as<std::nullptr_t>();
  if (name == "string") return text;
  if (name == "mapping") return map;
  if (name == "sequence" || name == "iterable") return list || map || text || value.is_undefined();
  if (name == "boolean") return value.as<bool>();
  if (name == "true") return value.as<bool>() && *value.as<bool>();
  if (name == "false") return value.as<bool>() && !*value.as<bool>();
  if (name == "integer") return value.as<std::int64_t>();
  refuse("the test '" + name + "'");
}

Value call_function(const std::string& name, const Arguments& arguments) {
  const auto& given = arguments.positional;
  if (name == "namespace" && given.empty()) return Map(arguments.named.begin(), arguments.named.end());
  if (name == "raise_exception" && given.size() == 1) {
    throw InputError("the model's chat template refuses this conversation: " + to_text(given[0]));
  }
  if (name == "strftime_now" && given.size() == 1) return today(text_of(given[0], "the date"));
  refuse("the function '" + name + "'");
}

}  // namespace proviso::model::jinja
