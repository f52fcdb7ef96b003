#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/tokenizer/jinja.hpp"

namespace proviso::model::jinja {

/// Arguments of a call: by position, and by name.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

[[noreturn]] void refuse(const std::string& what);

bool is_true(const Value& value);
std::string to_text(const Value& value);
bool equal(const Value& a, const Value& b);
bool less(const Value& a, const Value& b);
bool contains(const Value& container, const Value& element);
Value arithmetic(char operation, const Value& a, const Value& b);  ///< + - * % and / for "//"
Value element(const Value& container, const Value& key);           ///< `container[key]`, undefined where there is none
Value slice(const Value& container, const Value& begin, const Value& end);

/// `text.strip()` and the like; `value | trim`; `value is string`; `namespace()`.
Value call_method(const Value& object, const std::string& name, const Arguments& arguments);
Value apply_filter(const Value& value, const std::string& name, const Arguments& arguments);
bool apply_test(const Value& value, const std::string& name);
Value call_function(const std::string& name, const Arguments& arguments);

}  // namespace proviso::model::jinja
