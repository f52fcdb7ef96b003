#include "runtime/model/config_keys.hpp"

#include <algorithm>
#include <cmath>

#include "runtime/formats/tensor_file.hpp"

namespace proviso::model {

using Json = nlohmann::json;

namespace {

constexpr std::int64_t kMostSize = INT32_MAX;

/// A value short enough for a message.
std::string shown(const Json& value) {
  constexpr std::size_t kMost = 60;
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= kMost ? text : text.substr(0, kMost) + " …";
}

}  // namespace

ConfigKeys::ConfigKeys(const Json& object, std::string source, std::string prefix)
    : object_(object), source_(std::move(source)), prefix_(std::move(prefix)) {}

const Json& ConfigKeys::read(const std::string& key) {
  static const Json kAbsent;
  read_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() ? kAbsent : *found;
}

std::int64_t ConfigKeys::size(const std::string& key) {
  const Json& value = read(key);
  if (value.is_null()) refuse(key, "is missing");
  // GGUF numbers arrive signed.
  if (!value.is_number_integer() || value < 1 || value > kMostSize)
    refuse(key, "must be a positive whole number, not " + shown(value));
  return value;
}

std::int64_t ConfigKeys::size_or(const std::string& key, std::int64_t otherwise) {
  return read(key).is_null() ? otherwise : size(key);
}

double ConfigKeys::number(const std::string& key) {
  const Json& value = read(key);
  if (value.is_null()) refuse(key, "is missing");
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value <= 0)
    refuse(key, "must be a positive number, not " + shown(value));
  return value;
}

double ConfigKeys::number_or(const std::string& key, double otherwise) {
  return read(key).is_null() ? otherwise : number(key);
}

bool ConfigKeys::flag_or(const std::string& key, bool otherwise) {
  const Json& value = read(key);
  if (value.is_null()) return otherwise;
  if (!value.is_boolean()) refuse(key, "must be true or false, not " + shown(value));
  return value;
}

std::string ConfigKeys::text_or(const std::string& key, const std::string& otherwise) {
  const Json& value = read(key);
  if (value.is_null()) return otherwise;
  if (!value.is_string()) refuse(key, "must be text, not " + shown(value));
  return value;
}

std::optional<std::int64_t> ConfigKeys::token(const std::string& key) {
  const Json& value = read(key);
  if (value.is_null()) return std::nullopt;
  const Json& id = value.is_array() && !value.empty() ? value.front() : value;
  if (!id.is_number_integer() || id > kMostSize) refuse(key, "must be a token id, not " + shown(value));
  return id >= 0 ? std::optional<std::int64_t>(id) : std::nullopt;
}

void ConfigKeys::admit(const std::string& key, std::string_view admitted) {
  const auto found = object_.find(key);
  if (found == object_.end() || read_.contains(key)) return;
  read_.insert(key);
  if (admitted.empty()) return;
  const Json values = Json::parse(admitted);
  if (std::find(values.begin(), values.end(), *found) == values.end()) {
    refused_.push_back("'" + prefix_ + key + "' is " + shown(*found) + ", which is not computed here (of " +
                       std::string(admitted) + ")");
  }
}

void ConfigKeys::finish() const {
  std::vector<std::string> refused = refused_;
  for (const auto& [key, value] : object_.items()) {
    if (!read_.contains(key)) refused.push_back("'" + prefix_ + key + "' (" + shown(value) + ") is not known");
  }
  if (refused.empty()) return;
  constexpr std::size_t kMostNamed = 8;
  std::string message = source_ + ": ";
  for (std::size_t i = 0; i < refused.size() && i < kMostNamed; ++i) message += (i ? "; " : "") + refused[i];
  if (refused.size() > kMostNamed) message += "; and " + std::to_string(refused.size() - kMostNamed) + " more";
  throw InputError(message + ". The numbers would be wrong; remove a key only if they do not depend on it");
}

void ConfigKeys::refuse(const std::string& key, const std::string& why) const {
  throw InputError(source_ + ": '" + prefix_ + key + "' " + why);
}

}  // namespace proviso::model
