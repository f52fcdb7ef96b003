#include "dsl/rule_set.hpp"

namespace proviso::dsl {

std::string_view compare_text(Compare op) {
  switch (op) {
    case Compare::less:
      return "<";
    case Compare::less_equal:
      return "<=";
    case Compare::greater:
      return ">";
    case Compare::greater_equal:
      return ">=";
    case Compare::equal:
      return "==";
    case Compare::not_equal:
      return "!=";
  }
  return "";
}

Compare mirrored(Compare op) {
  switch (op) {
    case Compare::less:
      return Compare::greater;
    case Compare::less_equal:
      return Compare::greater_equal;
    case Compare::greater:
      return Compare::less;
    case Compare::greater_equal:
      return Compare::less_equal;
    case Compare::equal:
    case Compare::not_equal:
      return op;
  }
  return op;
}

std::string_view operation_name(Operation op) {
  switch (op) {
    case Operation::suppress:
      return "suppress";
    case Operation::amplify:
      return "amplify";
    case Operation::clamp:
      return "clamp";
    case Operation::steer:
      return "steer";
    case Operation::cap:
      return "cap";
  }
  return "";
}

std::string_view severity_name(CheckSeverity severity) {
  switch (severity) {
    case CheckSeverity::info:
      return "info";
    case CheckSeverity::minor:
      return "minor";
    case CheckSeverity::major:
      return "major";
    case CheckSeverity::critical:
      return "critical";
  }
  return "";
}

}  // namespace proviso::dsl
