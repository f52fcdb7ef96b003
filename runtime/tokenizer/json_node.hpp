#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

/// A value of a JSON file that came from outside, with its place ("tokenizer.json: pre_tokenizer.pattern") for
/// messages. Every read checks the type and throws `InputError`.
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, std::string place) : value_(&value), place_(std::move(place)) {}

  [[noreturn]] void refuse(const std::string& why) const { throw InputError(place_ + ": " + why); }

  bool is_null() const { return value_->is_null(); }
  bool is_string() const { return value_->is_string(); }
  bool is_array() const { return value_->is_array(); }
  bool is_object() const { return value_->is_object(); }
  const nlohmann::json& json() const { return *value_; }

  /// A member, null where it is absent.
  JsonNode operator[](const std::string& name) const {
    static const nlohmann::json null;
    if (!value_->is_object()) refuse("an object is expected");
    const auto found = value_->find(name);
    return {found == value_->end() ? null : *found, place_ + (place_.ends_with(':') ? " " : ".") + name};
  }

  std::vector<JsonNode> elements() const {
    if (!value_->is_array()) refuse("a list is expected");
    std::vector<JsonNode> out;
    out.reserve(value_->size());
    for (const auto& element : *value_) out.emplace_back(element, place_ + "[" + std::to_string(out.size()) + "]");
    return out;
  }

  const std::string& text() const {
    if (!value_->is_string()) refuse("a string is expected");
    return value_->get_ref<const std::string&>();
  }
  std::string text_or(const char* fallback) const { return is_null() ? fallback : text(); }

  bool flag_or(bool fallback) const {
    if (is_null()) return fallback;
    if (!value_->is_boolean()) refuse("true or false is expected");
    return value_->get<bool>();
  }

  /// A token id or a count.
  std::uint32_t number() const {
    if (!value_->is_number_integer() || *value_ < 0 || *value_ > 0x7FFFFFFF) refuse("a number from 0 on is expected");
    return value_->get<std::uint32_t>();
  }
  std::uint32_t number_or(std::uint32_t fallback) const { return is_null() ? fallback : number(); }

 private:
  const nlohmann::json* value_;
  std::string place_;
};

}  // namespace proviso::model
