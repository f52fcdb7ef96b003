// Calls: which arguments were given, and the values in them.

#include <re2/re2.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <system_error>
#include <utility>

#include "dsl/checker.hpp"
#include "dsl/number_text.hpp"
#include "dsl/paths.hpp"

namespace proviso::dsl {
namespace {

constexpr std::int64_t kMaxRegexBytes = std::int64_t{8} << 20;  // of RE2's compiled program

/// What a value is, as a reader would call it.
struct Description {
  std::string operator()(const ast::Number& number) const { return "the number " + number.text; }
  std::string operator()(const ast::String&) const { return "a text"; }
  std::string operator()(const ast::Regex&) const { return "a regular expression"; }
  std::string operator()(const ast::Name& name) const { return "the name `" + name.text + "`"; }
  std::string operator()(const ast::Indices&) const { return "a range of numbers"; }
  std::string operator()(const ast::PromptList&) const { return "a list of texts"; }
  std::string operator()(const ast::TokenDifference&) const { return "a difference of two texts"; }
  std::string operator()(const ast::Comparison&) const { return "a comparison"; }
  std::string operator()(const ast::Call& call) const { return "`" + call.name.text + "(…)`"; }
  std::string operator()(const ast::Intervention&) const { return "an intervention"; }
  std::string operator()(const ast::Patch&) const { return "a patch"; }
  std::string operator()(const ast::RuleRef&) const { return "a rule"; }
  std::string operator()(const ast::EditRef&) const { return "an edit"; }
};

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

}  // namespace

std::optional<Arguments> Checker::arguments(const ast::Call& call, std::initializer_list<Parameter> parameters) {
  const std::string callee = "`" + call.name.text + "`";
  const auto positional = static_cast<std::size_t>(
      std::count_if(parameters.begin(), parameters.end(), [](const Parameter& each) { return !each.labelled; }));
  std::vector<std::string> labels;
  for (const Parameter& each : parameters) {
    if (each.labelled) labels.emplace_back(each.name);
  }
  const std::string named =
      labels.empty() ? "it has no named parameters" : "its named parameters are " + joined(labels);

  Arguments bound(parameters.size(), nullptr);
  std::size_t next = 0;
  bool sound = true;
  for (const ast::Argument& argument : call.arguments) {
    if (!argument.label && next == positional) {
      Diagnostic& surplus = report(Code::surplus_argument, argument.span,
                                   callee + " takes " + (positional == 0 ? "no" : std::to_string(positional)) +
                                       (positional == 1 ? " argument" : " arguments") + " without a name",
                                   {named});
      const auto* name = std::get_if<ast::Name>(&argument.value);
      if (name != nullptr && &argument != call.arguments.data() &&
          std::holds_alternative<ast::Intervention>((&argument - 1)->value) && site_from_name(name->text)) {
        surplus.help = {"inside parentheses several sites stand in brackets: at [mlp_out[*], " + name->text + "]"};
      }
      // `rate(angry, /idiot/)`: one argument too many, and one that must be named is not.
      std::vector<std::string_view> unnamed;
      for (const Parameter& each : parameters) {
        const auto says = [&](const ast::Argument& other) { return other.label && other.label->text == each.name; };
        if (each.labelled && each.required && std::none_of(call.arguments.begin(), call.arguments.end(), says)) {
          unnamed.push_back(each.name);
        }
      }
      const auto without_label =
          std::count_if(call.arguments.begin(), call.arguments.end(), [](const auto& each) { return !each.label; });
      if (unnamed.size() == 1 && without_label == static_cast<std::ptrdiff_t>(positional) + 1) {
        const Span before{argument.span.source, argument.span.begin, argument.span.begin};
        surplus.fixes.push_back({before, std::string(unnamed.front()) + ": "});
      }
      return std::nullopt;  // what else is missing may be what stands here
    }
    std::size_t slot = next;
    if (argument.label) {
      const auto wanted = std::find(labels.begin(), labels.end(), argument.label->text);
      if (wanted == labels.end()) {
        auto fixes = spelling_fix(argument.label->span, argument.label->text, labels);
        report(Code::unknown_argument, argument.label->span,
               callee + " has no parameter `" + argument.label->text + "`",
               {fixes.empty() ? named : "did you mean `" + fixes.front().replacement + "`?"})
            .fixes = std::move(fixes);
        sound = false;
        continue;
      }
      slot = positional + static_cast<std::size_t>(wanted - labels.begin());
    } else {
      ++next;
    }
    if (bound[slot] != nullptr) {
      report(Code::repeated_argument, argument.span, "`" + argument.label->text + "` is given twice");
      sound = false;
    }
    bound[slot] = &argument;
  }
  for (std::size_t i = 0; i < bound.size(); ++i) {
    const Parameter& parameter = parameters.begin()[i];
    if (bound[i] != nullptr || !parameter.required) continue;
    report(Code::missing_argument, call.span,
           callee + " needs " +
               (parameter.labelled ? "`" + std::string(parameter.name) + ": …`" : std::string(parameter.name)));
    sound = false;
  }
  if (!sound) return std::nullopt;
  return bound;
}

Diagnostic& Checker::wrong_argument(const ast::Argument& argument, const std::string& needed) {
  return report(Code::wrong_argument, argument.span,
                needed + " is needed here, not " + std::visit(Description{}, argument.value));
}

std::optional<double> Checker::number(const ast::Number& node, const std::string& what, const Limits& limits) {
  const double value = node.value;
  if (limits.low <= value && value <= limits.high) return value;

  const bool share = limits.low >= 0 && limits.high <= 1;
  const auto shown = [&](double end) { return share ? number_text(100 * end) + "%" : number_text(end); };
  const std::string range = std::isinf(limits.high) ? "at least " + shown(limits.low)
                                                    : "from " + shown(limits.low) + " to " + shown(limits.high);
  const bool forgotten = share && !node.percent && value > 1 && value <= 100;
  Diagnostic& found = report(Code::out_of_range, node.span, what + " must be " + range + ", not " + node.text);
  if (forgotten) {
    found.help.push_back("did you mean " + node.text + "%?");
    found.fixes.push_back({node.span, node.text + "%"});
  }
  return std::nullopt;
}

std::optional<double> Checker::number(const ast::Argument& argument, const std::string& what, const Limits& limits) {
  if (const auto* value = std::get_if<ast::Number>(&argument.value)) return number(*value, what, limits);
  wrong_argument(argument, "a number");
  return std::nullopt;
}

std::optional<std::int64_t> Checker::whole(const ast::Number& node, const std::string& what, const Limits& limits) {
  const auto value = node.integer();
  if (!value) {
    report(Code::wrong_argument, node.span, what + " must be a whole number, not " + node.text);
    return std::nullopt;
  }
  return number(node, what, limits) ? value : std::nullopt;
}

std::optional<std::int64_t> Checker::whole(const ast::Argument& argument, const std::string& what,
                                           const Limits& limits) {
  if (const auto* value = std::get_if<ast::Number>(&argument.value)) return whole(*value, what, limits);
  wrong_argument(argument, "a whole number");
  return std::nullopt;
}

std::optional<std::string> Checker::non_empty(const ast::String& string, const std::string& what, Code code) {
  if (!string.value.empty()) return string.value;
  report(code, string.span, what + " is empty");
  return std::nullopt;
}

std::optional<std::string> Checker::text(const ast::Argument& argument, const std::string& what) {
  if (const auto* value = std::get_if<ast::String>(&argument.value)) return non_empty(*value, what);
  wrong_argument(argument, "a text");
  return std::nullopt;
}

std::optional<std::string> Checker::word(const ast::Argument& argument,
                                         std::initializer_list<std::string_view> allowed) {
  const auto* name = std::get_if<ast::Name>(&argument.value);
  std::string all;
  for (const std::string_view one : allowed) {
    if (name != nullptr && name->text == one) return name->text;
    all += (all.empty() ? "`" : " or `") + std::string(one) + "`";
  }
  Diagnostic& wrong = wrong_argument(argument, all);
  if (name != nullptr) wrong.fixes = spelling_fix(name->span, name->text, {allowed.begin(), allowed.end()});
  return std::nullopt;
}

std::optional<std::string> Checker::regex(const ast::Regex& node) {
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kMaxRegexBytes);
  const std::string pattern = node.re2();
  const RE2 compiled(pattern, options);
  if (compiled.ok()) return pattern;
  std::vector<std::string> help{"the syntax is RE2's: no lookaround and no backreferences"};
  report(Code::invalid_regex, node.span, "this is no regular expression that RE2 reads: " + compiled.error(),
         std::move(help));
  return std::nullopt;
}

std::optional<std::string> Checker::path(const ast::String& node) {
  auto opened = open_path(module_->folder, node, options_.allowed_paths);
  if (auto* found = std::get_if<std::string>(&opened)) {
    std::error_code unknown;
    if (!options_.look_for_data || std::filesystem::exists(*found, unknown)) return std::move(*found);
    report(Code::unreadable_file, node.span, "there is no " + *found, {"paths are relative to the rule file"});
    return std::nullopt;
  }
  diagnostics_.push_back(std::get<Diagnostic>(std::move(opened)));
  return std::nullopt;
}

bool Checker::each_prompt_set(const ast::Call& call, const std::function<bool(PromptsId, Span)>& see) {
  const std::string name = "`" + call.name.text + "`";
  if (call.arguments.empty()) {
    report(Code::missing_argument, call.span, name + " needs at least one set of prompts");
    return false;
  }
  for (const ast::Argument& argument : call.arguments) {
    if (argument.label) {
      report(Code::unknown_argument, argument.label->span, name + " has no named parameters");
      return false;
    }
    const auto set = prompts(argument);
    if (!set || !see(*set, argument.span)) return false;
  }
  return true;
}

std::optional<PromptsId> Checker::prompts(const ast::Argument& argument) {
  if (const auto* name = std::get_if<ast::Name>(&argument.value)) return prompts(*name);
  if (const auto* list = std::get_if<ast::PromptList>(&argument.value)) return anonymous(*list);
  if (const auto* text = std::get_if<ast::String>(&argument.value)) {
    return anonymous({{{.text = *text, .answers = {}, .span = text->span}}, text->span});
  }
  wrong_argument(argument, "a set of prompts (a name, or a list of texts)");
  return std::nullopt;
}

std::optional<FeatureId> Checker::feature(const ast::Argument& argument) {
  if (const auto* name = std::get_if<ast::Name>(&argument.value)) return find_id(SymbolKind::feature, *name);
  wrong_argument(argument, "a feature's name");
  return std::nullopt;
}

}  // namespace proviso::dsl
