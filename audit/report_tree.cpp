#include "audit/report_tree.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>
#include <type_traits>
#include <utility>

#include "audit/circuits.hpp"
#include "audit/report_keys.hpp"
#include "runtime/formats/sha256.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::audit {
namespace {

// ---- scalars ---------------------------------------------------------------------------------------

template <class E>
using Names = std::vector<std::pair<E, std::string>>;

const Names<Status>& names_of(Status) {
  static const auto names = [] {
    Names<Status> all;
    for (int i = 0; i <= static_cast<int>(Status::error); ++i)
      all.emplace_back(static_cast<Status>(i), status_name(static_cast<Status>(i)));
    return all;
  }();
  return names;
}

const Names<dsl::CheckSeverity>& names_of(dsl::CheckSeverity) {
  static const auto names = [] {
    Names<dsl::CheckSeverity> all;
    for (int i = 0; i <= static_cast<int>(dsl::CheckSeverity::critical); ++i)
      all.emplace_back(static_cast<dsl::CheckSeverity>(i), dsl::severity_name(static_cast<dsl::CheckSeverity>(i)));
    return all;
  }();
  return names;
}

const Names<dsl::Annotations::Status>& names_of(dsl::Annotations::Status) {
  using Stability = dsl::Annotations::Status;
  static const Names<Stability> names = {
      {Stability::stable, "stable"}, {Stability::experimental, "experimental"}, {Stability::deprecated, "deprecated"}};
  return names;
}

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};
template <class T>
struct IsMap : std::false_type {};
template <class T>
struct IsMap<std::vector<std::pair<std::string, T>>> : std::true_type {};
template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

// ---- writing -----------------------------------------------------------------------------------------

class Writer {
 public:
  explicit Writer(bool reproducible) : reproducible_(reproducible) {}

  template <class T>
  Writer& key(const char* name, T& value) {
    tree[name] = written(value);
    return *this;
  }
  template <class T>
  Writer& if_any(const char* name, T& value) {
    return present(value) ? key(name, value) : *this;
  }
  template <class T>
  Writer& key_unless_reproducible(const char* name, T& value) {
    return reproducible_ ? *this : key(name, value);
  }
  template <class T>
  Writer& if_any_unless_reproducible(const char* name, T& value) {
    return reproducible_ ? *this : if_any(name, value);
  }
  template <class F>
  void group(const char* name, F describe_group) {
    Writer inner(reproducible_);
    describe_group(inner);
    tree[name] = std::move(inner.tree);
  }
  void require(bool, const char*, const std::string&) {}

  Tree tree = Tree::object();

 private:
  template <class T>
  static bool present(const T& value) {
    if constexpr (std::is_enum_v<T>) {
      return value != T{};
    } else if constexpr (IsOptional<T>::value) {
      return value.has_value();
    } else {
      return !value.empty();
    }
  }

  template <class T>
  Tree written(T& value) const {
    if constexpr (std::is_same_v<T, double>) {
      return number_tree(value);
    } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else if constexpr (std::is_enum_v<T>) {
      for (const auto& [known, name] : names_of(value))
        if (known == value) return name;
      return nullptr;
    } else if constexpr (std::is_same_v<T, dsl::Date>) {
      return date_text(value);
    } else if constexpr (std::is_same_v<T, Interval>) {
      return Tree::array({written(value.low), written(value.high)});
    } else if constexpr (IsOptional<T>::value) {
      return value ? written(*value) : Tree(nullptr);
    } else if constexpr (IsMap<T>::value) {
      Tree map = Tree::object();
      for (auto& [name, item] : value) map[name] = written(item);
      return map;
    } else if constexpr (IsVector<T>::value) {
      Tree list = Tree::array();
      for (auto& item : value) list.push_back(written(item));
      return list;
    } else {
      Writer inner(reproducible_);
      describe(inner, value);
      return std::move(inner.tree);
    }
  }

  bool reproducible_;
};

// ---- reading -----------------------------------------------------------------------------------------

class Reader {
 public:
  /// `where` is the tree's own key: "" or "checks[2].".
  Reader(const Tree& tree, const std::string& path, std::string where)
      : tree_(tree), path_(path), where_(std::move(where)) {
    if (!tree.is_object()) fail("", "must be a map of keys");
  }

  template <class T>
  Reader& key(const char* name, T& value) {
    known_.insert(name);
    const auto found = tree_.find(name);
    if (found == tree_.end()) fail(name, "is missing");
    read(*found, value, name);
    return *this;
  }
  template <class T>
  Reader& if_any(const char* name, T& value) {
    known_.insert(name);
    return tree_.contains(name) ? key(name, value) : *this;
  }
  template <class T>
  Reader& key_unless_reproducible(const char* name, T& value) {
    return if_any(name, value);
  }
  template <class T>
  Reader& if_any_unless_reproducible(const char* name, T& value) {
    return if_any(name, value);
  }
  template <class F>
  void group(const char* name, F describe_group) {
    known_.insert(name);
    if (!tree_.contains(name)) fail(name, "is missing");
    Reader inner(tree_.at(name), path_, where_ + name + ".");
    describe_group(inner);
    inner.refuse_others();
  }
  void require(bool holds, const char* name, const std::string& otherwise) const {
    if (!holds) fail(name, otherwise);
  }
  void refuse_others() const {
    for (const auto& item : tree_.items())
      if (known_.count(item.key()) == 0) fail(item.key(), "is not a key of reports");
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& what) const {
    std::string key = where_ + name;
    if (!key.empty() && key.back() == '.') key.pop_back();
    throw model::InputError(path_ + ": " + (key.empty() ? "the report" : key) + ": " + what +
                            "\n  help: give a report that `proviso audit` wrote, unchanged");
  }

  template <class T>
  void read(const Tree& from, T& value, const std::string& name) const {
    if constexpr (std::is_same_v<T, double>) {
      if (from.is_number()) {
        value = from.get<double>();
      } else if (from == "NaN") {
        value = std::numeric_limits<double>::quiet_NaN();
      } else if (from == "Infinity" || from == "-Infinity") {
        value = from == "Infinity" ? std::numeric_limits<double>::infinity() : -std::numeric_limits<double>::infinity();
      } else {
        fail(name, "must be a number");
      }
    } else if constexpr (std::is_same_v<T, bool>) {
      if (!from.is_boolean()) fail(name, "must be true or false");
      value = from.get<bool>();
    } else if constexpr (std::is_same_v<T, std::uint64_t>) {
      if (!from.is_number_unsigned()) fail(name, "must be a whole number, 0 or more");
      value = from.get<std::uint64_t>();
    } else if constexpr (std::is_integral_v<T>) {
      constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<T>::max());
      if (!from.is_number_integer() || (from.is_number_unsigned() && from.get<std::uint64_t>() > kMost))
        fail(name, "must be a whole number");
      value = from.get<T>();
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!from.is_string()) fail(name, "must be a string");
      value = from.get<std::string>();
    } else if constexpr (std::is_enum_v<T>) {
      std::string all;
      for (const auto& [known, text] : names_of(value)) {
        if (from == text) return void(value = known);
        all += (all.empty() ? "" : ", ") + text;
      }
      fail(name, "must be one of " + all);
    } else if constexpr (std::is_same_v<T, dsl::Date>) {
      value = date(from, name);
    } else if constexpr (std::is_same_v<T, Interval>) {
      if (!from.is_array() || from.size() != 2) fail(name, "must be a list of two numbers");
      read(from[0], value.low, name + "[0]");
      read(from[1], value.high, name + "[1]");
    } else if constexpr (IsOptional<T>::value) {
      value.reset();
      if (!from.is_null()) read(from, value.emplace(), name);
    } else if constexpr (IsMap<T>::value) {
      if (!from.is_object()) fail(name, "must be a map of keys");
      value.clear();
      for (const auto& item : from.items()) {
        value.emplace_back(item.key(), typename T::value_type::second_type());
        read(item.value(), value.back().second, name + "." + item.key());
      }
    } else if constexpr (IsVector<T>::value) {
      if (!from.is_array()) fail(name, "must be a list");
      value.clear();
      for (std::size_t i = 0; i < from.size(); ++i)
        read(from[i], value.emplace_back(), name + "[" + std::to_string(i) + "]");
    } else {
      Reader inner(from, path_, where_ + name + ".");
      describe(inner, value);
      inner.refuse_others();
    }
  }

  dsl::Date date(const Tree& from, const std::string& name) const {
    const std::string text = from.is_string() ? from.get<std::string>() : "";
    dsl::Date date;
    const auto number = [&text](std::size_t begin, std::size_t size, int& value) {
      if (begin + size > text.size()) return false;
      const char* end = text.data() + begin + size;
      const auto [stop, error] = std::from_chars(text.data() + begin, end, value);
      return error == std::errc() && stop == end;
    };
    const bool shaped = number(0, 4, date.year) && number(5, 2, date.month) && number(8, 2, date.day);
    if (!shaped || date_text(date) != text) fail(name, "must be a date such as \"2027-03-31\"");
    return date;
  }

  const Tree& tree_;
  const std::string& path_;
  std::string where_;
  std::set<std::string, std::less<>> known_;
};

std::string json_text(const Tree& tree) { return tree.dump(2, ' ', false, Tree::error_handler_t::replace) + "\n"; }

Tree tree_of(std::vector<CircuitResult> circuits) {
  Writer writer(/*reproducible=*/false);
  writer.key("circuits", circuits);
  return std::move(writer.tree);
}

std::string shown(const std::string& text, EvidenceForm form) {
  constexpr std::string_view kHashed = "sha256:";
  constexpr std::size_t kHexDigits = 64;
  if (form == EvidenceForm::full || text.empty()) return text;
  if (form == EvidenceForm::none) return "";
  if (text.size() == kHashed.size() + kHexDigits && text.starts_with(kHashed)) return text;  // of a report read back
  return std::string(kHashed) + model::sha256_hex(std::as_bytes(std::span(text)));
}

}  // namespace

Report redacted(Report report, EvidenceForm form) {
  const auto redact = [form](std::vector<Evidence>& evidence) {
    for (Evidence& item : evidence) {
      item.prompt = shown(item.prompt, form);
      item.output = shown(item.output, form);
    }
  };
  // A hash of all prompts could be guessed where there are few: nothing of prompts is nothing.
  const auto unpaired = [form](ExpectationResult& expectation) {
    if (form == EvidenceForm::none && expectation.sample) expectation.sample->prompts.clear();
  };
  for (CheckResult& check : report.checks)
    for (ExpectationResult& expectation : check.expectations) {
      unpaired(expectation);
      redact(expectation.evidence);
      for (SearchResult& search : expectation.searched) redact(search.evidence);
    }
  for (EditResult& edit : report.edits)
    for (ExpectationResult& expectation : edit.expectations) {
      unpaired(expectation);
      redact(expectation.evidence);
    }
  for (ExampleResult& example : report.examples) {
    redact(example.evidence);
    for (ConditionResult& condition : example.conditions) {
      condition.prompt = shown(condition.prompt, form);
      for (PromptMargin& margin : condition.prompts) margin.prompt = shown(margin.prompt, form);
    }
  }
  if (report.planted_faults) {
    for (FaultResult& fault : report.planted_faults->faults) {
      // They name what prompts are about.
      if (fault.kind == "fact" || fault.kind == "trigger") fault.what = shown(fault.what, form);
      if (fault.outcome == "not planted") fault.reason = shown(fault.reason, form);
    }
  }
  return report;
}

Tree tree_of(const Report& report, const RenderOptions& options) {
  Report shown_report = redacted(report, options.evidence);
  Derived derived{kReportVersion, report.verdict(), summarise(report)};
  Writer writer(options.reproducible);
  describe(writer, shown_report, derived);
  return std::move(writer.tree);
}

Tree number_tree(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

template <class Part>
Tree tree_of_part(const Part& part) {
  Part written = part;
  Writer writer(/*reproducible=*/true);
  describe(writer, written);
  return std::move(writer.tree);
}
template Tree tree_of_part(const CheckResult&);
template Tree tree_of_part(const EditResult&);
template Tree tree_of_part(const CircuitResult&);
template Tree tree_of_part(const ExampleResult&);
template Tree tree_of_part(const RuleActivity&);
template Tree tree_of_part(const Annotated&);

std::string circuits_yaml(const std::vector<CircuitResult>& circuits) { return yaml_text(tree_of(circuits)); }

std::string circuits_json(const std::vector<CircuitResult>& circuits) { return json_text(tree_of(circuits)); }

Report report_of(const Tree& tree, const std::string& path) {
  Report report;
  Derived stated;
  Reader reader(tree, path, "");
  describe(reader, report, stated);
  reader.refuse_others();
  for (CheckResult& check : report.checks)
    check.status_before_waiver = check.status == Status::waived ? worst_of(check.expectations) : check.status;
  const std::string amounts_to(status_name(report.verdict()));
  reader.require(stated.verdict == report.verdict(), "verdict",
                 "says " + std::string(status_name(stated.verdict)) + ", but the results amount to " + amounts_to);
  reader.require(stated.summary == summarise(report), "summary", "does not count what the report holds");
  return report;
}

std::string to_json(const Report& report, const RenderOptions& options) { return json_text(tree_of(report, options)); }

std::string to_yaml(const Report& report, const RenderOptions& options) { return yaml_text(tree_of(report, options)); }

Report from_yaml(const std::string& text, const std::string& path) {
  return report_of(parse_yaml_tree(text, path), path);
}

}  // namespace proviso::audit
