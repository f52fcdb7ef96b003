#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace proviso::model::jinja {

struct Undefined {};
struct Value;
using List = std::vector<Value>;
using Map = std::map<std::string, Value>;

/// A value of a template. Lists and maps are shared, as in Python.
struct Value {
  std::variant<Undefined, std::nullptr_t, bool, std::int64_t, std::string, std::shared_ptr<List>, std::shared_ptr<Map>>
      held;

  Value() = default;
  Value(std::nullptr_t) : held(nullptr) {}
  Value(bool value) : held(value) {}
  Value(std::int64_t value) : held(value) {}
  Value(std::string value) : held(std::move(value)) {}
  Value(const char* value) : held(std::string(value)) {}
  Value(List value) : held(std::make_shared<List>(std::move(value))) {}
  Value(Map value) : held(std::make_shared<Map>(std::move(value))) {}

  template <typename T>
  const T* as() const {
    return std::get_if<T>(&held);
  }
  bool is_undefined() const { return as<Undefined>() != nullptr; }
};

/// Renders a chat template as transformers does (Jinja with `trim_blocks` and `lstrip_blocks`). This is the part of
/// Jinja that chat templates use; `InputError` where one uses more, or calls `raise_exception`.
std::string render(std::string_view source, const Map& variables);

}  // namespace proviso::model::jinja
