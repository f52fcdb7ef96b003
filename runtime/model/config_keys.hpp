#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace proviso::model {

/// The keys of one configuration object. Every key must be read, or admitted, before `finish`, which refuses
/// the rest by name: a part of a model that goes unnoticed makes every number about it wrong.
class ConfigKeys {
 public:
  /// `source` names the file in messages, `prefix` the object in it ("rope_scaling.").
  ConfigKeys(const nlohmann::json& object, std::string source, std::string prefix = "");

  bool holds(const std::string& key) const { return object_.contains(key); }
  /// The value, now read; null where it is absent.
  const nlohmann::json& read(const std::string& key);

  std::int64_t size(const std::string& key);  ///< 1 … 2^31 − 1; the products of two fit in int64
  std::int64_t size_or(const std::string& key, std::int64_t otherwise);  ///< where absent or null
  double number(const std::string& key);                                 ///< finite and above 0
  double number_or(const std::string& key, double otherwise);
  bool flag_or(const std::string& key, bool otherwise);
  std::string text_or(const std::string& key, const std::string& otherwise);
  std::optional<std::int64_t> token(const std::string& key);  ///< the first, where a list is given

  /// Says that `key`, unless it has been read, may hold one of `admitted` (a JSON array; "" admits any value) or be
  /// absent.
  void admit(const std::string& key, std::string_view admitted);
  /// Throws `InputError` with every key that was neither read nor admitted.
  void finish() const;

  [[noreturn]] void refuse(const std::string& key, const std::string& why) const;

 private:
  const nlohmann::json& object_;
  std::string source_, prefix_;
  std::set<std::string> read_;
  std::vector<std::string> refused_;
};

}  // namespace proviso::model
