#include "dsl/rule_set.hpp"

namespace proviso::dsl {

namespace {

template <class Declaration>
std::vector<std::size_t> own(const std::vector<Declaration>& declarations) {
  std::vector<std::size_t> ids;
  for (std::size_t id = 0; id < declarations.size(); ++id) {
    if (!declarations[id].imported) ids.push_back(id);
  }
  return ids;
}

}  // namespace

std::vector<RuleId> RuleSet::own_rules() const { return own(rules); }
std::vector<EditId> RuleSet::own_edits() const { return own(edits); }

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

std::string_view circuit_method_name(CircuitMethod method) {
  switch (method) {
    case CircuitMethod::eap:
      return "eap";
    case CircuitMethod::eap_ig:
      return "eap_ig";
    case CircuitMethod::exact:
      return "exact";
  }
  return "";
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

bool Attack::random() const {
  switch (kind) {
    case AttackKind::typos:
    case AttackKind::homoglyphs:
    case AttackKind::distractors:
    case AttackKind::suffix_search:
    case AttackKind::perturb:
      return true;
    case AttackKind::translations:
      return translations.size() > 1;
    case AttackKind::casing:
      return form == AttackForm::random;
    case AttackKind::paraphrases:
      return templates.size() > 1;
    case AttackKind::whitespace:
      return false;
  }
  return false;
}

bool Attack::searches() const { return kind == AttackKind::suffix_search || kind == AttackKind::perturb; }

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
