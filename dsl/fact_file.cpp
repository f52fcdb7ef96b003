#include "dsl/fact_file.hpp"

#include <string>
#include <utility>

#include "dsl/record_file.hpp"

namespace proviso::dsl {
namespace {

constexpr std::string_view kSlot = "{}";

std::string text_of(const Record& record, const std::string& field) {
  return string_in(field_of(record, field), field, record.where);
}

std::string target_of(const PromptFile& file, const Record& record, const std::string& field) {
  const std::string& named = file.answer ? *file.answer : field;
  const auto texts = strings_in(field_of(record, named), named, record.where);
  if (!texts.empty()) return texts.front();
  throw RecordFault{Code::prompt_file_field, record.where, "field `" + named + "` is an empty list", {}};
}

Fact counterfact(const PromptFile& file, const Record& record) {
  Fact fact;
  fact.subject = text_of(record, "requested_rewrite.subject");
  fact.prompt_template = text_of(record, "requested_rewrite.prompt");
  fact.from = with_leading_space(text_of(record, "requested_rewrite.target_true.str"));
  fact.to = with_leading_space(target_of(file, record, "requested_rewrite.target_new.str"));
  return fact;
}

/// Where another field names the new target, the record's own answer is what holds now.
void former(const Record& record, const std::string& field, Fact& fact) {
  const auto texts = strings_in(field_of(record, field), field, record.where);
  if (texts.empty() || texts.front().empty()) return;
  const auto own = with_leading_space(texts.front());
  if (own != fact.to) fact.from = own;
}

/// A fact whose text, called `what`, names its subject, where the slot then stands.
Fact naming_its_subject(const Record& record, const char* field, const std::string& what) {
  Fact fact;
  fact.subject = text_of(record, "subject");
  fact.prompt_template = text_of(record, field);
  const auto at = fact.prompt_template.find(fact.subject);
  if (fact.subject.empty() || at == std::string::npos) {
    throw RecordFault{
        Code::template_slot,
        record.where,
        "the " + what + " \"" + fact.prompt_template + "\" does not name its subject \"" + fact.subject + "\"",
        {}};
  }
  fact.prompt_template.replace(at, fact.subject.size(), kSlot);
  return fact;
}

Fact zsre(const PromptFile& file, const Record& record) {
  Fact fact = naming_its_subject(record, "src", "question");
  fact.to = with_leading_space(target_of(file, record, "answers"));
  if (file.answer) former(record, "answers", fact);
  return fact;
}

/// The whole prompt is taken: some templates leave its last word out.
Fact known_fact(const PromptFile& file, const Record& record) {
  Fact fact = naming_its_subject(record, "prompt", "prompt");
  fact.to = with_leading_space(target_of(file, record, "attribute"));
  if (file.answer) former(record, "attribute", fact);
  return fact;
}

Fact plain(const PromptFile& file, const Record& record) {
  Fact fact;
  fact.subject = text_of(record, "subject");
  fact.prompt_template = text_of(record, "template");
  fact.to = target_of(file, record, "to");
  if (record.value.contains("from")) {
    fact.from = text_of(record, "from");
    if (fact.from->empty()) fact.from.reset();  // a CSV record has every column
  }
  return fact;
}

Fact fact_of(const PromptFile& file, const Record& record) {
  if (!record.value.is_object()) {
    throw RecordFault{Code::prompt_file_field,
                      record.where,
                      std::string("a fact is an object with fields, not a JSON ") + record.value.type_name(),
                      {"write {\"subject\": \"…\", \"template\": \"{} is in\", \"from\": \" …\", \"to\": \" …\"}"}};
  }
  Fact fact = record.value.contains(kCounterFactRewrite) ? counterfact(file, record)
              : record.value.contains("src")             ? zsre(file, record)
              : record.value.contains("attribute")       ? known_fact(file, record)
                                                         : plain(file, record);
  fact.span = file.span;
  const auto refuse = [&](Code code, const std::string& message, std::vector<std::string> help) {
    throw RecordFault{code, record.where, message, std::move(help)};
  };
  const auto slot = fact.prompt_template.find(kSlot);
  if (slot == std::string::npos || fact.prompt_template.find(kSlot, slot + 1) != std::string::npos) {
    refuse(Code::template_slot, "the template \"" + fact.prompt_template + "\" must hold {} once",
           {"{} stands where the subject goes"});
  }
  if (fact.subject.empty() || fact.to.empty()) {
    refuse(Code::empty_text, "the subject and the new continuation must not be empty", {});
  }
  if (fact.from == fact.to) {
    refuse(Code::same_sides, "the fact about \"" + fact.subject + "\" is changed to what it already is", {});
  }
  return fact;
}

}  // namespace

Outcome<std::vector<Fact>> read_fact_file(const PromptFile& file, std::string_view bytes) {
  try {
    std::vector<Fact> facts;
    for (const Record& record : read_records(file.path, bytes, file.take, file.seed))
      facts.push_back(fact_of(file, record));
    return {std::move(facts), {}};
  } catch (const RecordFault& fault) {
    return {std::nullopt, {record_diagnostic(fault, file.path, file.span)}};
  }
}

}  // namespace proviso::dsl
