#include <algorithm>
#include <map>

#include "dsl/fact_file.hpp"
#include "runtime/binder.hpp"

namespace proviso::runtime {

using dsl::Code;

void Binder::edit(const dsl::EditDecl& declaration) {
  const auto exists = [&](std::int64_t layer) {
    if (layer < card_.config.layers) return;
    error(Code::index_out_of_range, declaration.method.span,
          "layer " + std::to_string(layer) + " does not exist: " + card_.name + " has " +
              std::to_string(card_.config.layers) + " layers",
          {"the last layer is " + std::to_string(card_.config.layers - 1)});
  };
  if (const auto layer = declaration.method.parameters.find("layer"); layer != declaration.method.parameters.end())
    exists(static_cast<std::int64_t>(std::get<double>(layer->second)));
  if (declaration.method.layers) {
    for (const auto& range : declaration.method.layers->ranges) exists(range.last);
  }
  for (const auto& change : declaration.changes) {
    if (const auto* fact = std::get_if<dsl::Fact>(&change)) {
      this->fact(*fact);
    } else if (const auto* file = std::get_if<dsl::FactFile>(&change)) {
      for (const auto& fact : read_file(file->file, dsl::read_fact_file)) this->fact(fact);
    } else if (const auto* direction = std::get_if<dsl::Remove>(&change)) {
      remove(*direction);
    } else if (const auto* labels = std::get_if<dsl::Erase>(&change)) {
      erase(*labels);
    }
  }
}

void Binder::true_targets(const dsl::Metric& metric, const std::vector<dsl::EditId>& edits) {
  const bool weighs = std::holds_alternative<dsl::metric::Efficacy>(metric.node) ||
                      std::holds_alternative<dsl::metric::Paraphrase>(metric.node) ||
                      std::holds_alternative<dsl::metric::Specificity>(metric.node);
  if (!weighs) return;
  for (const dsl::EditId edit : edits) {
    for (const auto& fact : bound_.facts[edit]) {
      if (fact.fact.from) continue;
      error(Code::no_true_target, metric.span,
            "the fact about \"" + fact.fact.subject + "\" names no old continuation to weigh the new one against",
            {"measure accuracy(P) on prompts that are to be continued by the new one"});
      return;
    }
  }
}

void Binder::fact(const dsl::Fact& fact) {
  const std::string prefix = fact.prompt_template.substr(0, fact.prompt_template.find("{}")) + fact.subject;
  if (bound_.tokenizer->encode(prefix, true).size() < 2) {
    error(Code::subject_at_sink, fact.span,
          "the last token of \"" + fact.subject +
              "\" is at position 0, the attention sink: an edit there breaks the "
              "model",
          {"write a template with words before the subject: \"I think that {} …\""});
  }
  BoundFact bound{fact, {}, {}, bound_.tokenizer->encode(fact.to)};
  if (fact.from) bound.from = bound_.tokenizer->encode(*fact.from);
  if (bound.to.empty() || (fact.from && bound.from.empty())) {
    error(Code::empty_prompt, fact.span, "a target has no tokens");
    return;
  }
  BoundPrompt& prompt = bound.prompt;
  prompt.text = prefix + fact.prompt_template.substr(fact.prompt_template.find("{}") + 2);
  prompt.tokens = bound_.tokenizer->encode(prompt.text, true);
  prompt.cluster = facts_++;
  context(prompt.tokens.size() + bound.to.size(), fact.span);
  bound_.facts.back().push_back(std::move(bound));
}

void Binder::remove(const dsl::Remove& remove) {
  const std::size_t before = diagnostics_.size();
  for (const auto& spec : remove.sites) site(spec);
  if (diagnostics_.size() != before) return;
  const auto width = card_.site_width(bound_.feature_sites[remove.feature]);
  for (const auto& where : bound_.expand(remove.sites)) {
    if (card_.site_width(where) == width) continue;
    error(Code::width_mismatch, remove.span,
          "feature " + quoted(bound_.feature_name(remove.feature)) + " has " + std::to_string(width) +
              " elements, and " + dsl::to_string(where) + " has " + std::to_string(card_.site_width(where)));
    return;
  }
}

void Binder::erase(const dsl::Erase& erase) {
  for (const auto& spec : erase.sites) site(spec);
  std::map<std::string, std::size_t> classes;
  for (std::size_t i = 0; i < erase.sets.size(); ++i) {
    if (!erase.by_answer) classes[std::to_string(i)] = 0;
    for (const auto& prompt : bound_.prompts[erase.sets[i]]) {
      if (prompt.tokens.size() < 2)
        error(Code::prompt_too_short, erase.span,
              "\"" + prompt.text + "\" is one token, the attention sink, where nothing is read",
              {"write prompts of two tokens or more"});
      if (erase.by_answer && prompt.answer_texts.empty()) {
        error(Code::no_answer, erase.span, "\"" + prompt.text + "\" names no class",
              {"give every record of the set an answer"});
        return;
      }
      ++classes[erase.by_answer ? prompt.answer_texts.front() : std::to_string(i)];
    }
  }
  const auto least = std::min_element(classes.begin(), classes.end(),
                                      [](const auto& a, const auto& b) { return a.second < b.second; });
  if (classes.size() >= 2 && least->second >= 2) return;
  error(Code::too_few_classes, erase.span,
        classes.size() < 2 ? "these prompts are all of one class" : "a class has fewer than two prompts",
        {"give two classes or more, of two prompts or more each: erase [she, he]"});
}

}  // namespace proviso::runtime
