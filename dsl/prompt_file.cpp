#include "dsl/prompt_file.hpp"

#include <string>
#include <utility>

#include "dsl/record_file.hpp"

namespace proviso::dsl {
namespace {

using Json = nlohmann::json;

/// The field that holds the prompt: the one asked for, or the only one there is.
std::string prompt_field(const PromptFile& file, const Record& record) {
  if (file.field) return *file.field;
  const auto present = field_names(record.value);
  if (present.size() == 1) return present.front();
  std::string all;
  for (const std::string& name : present) all += (all.empty() ? "`" : ", `") + name + "`";
  throw RecordFault{Code::prompt_file_field,
                    record.fields_where,
                    present.empty() ? "an object without fields" : "which field is the prompt? There are " + all,
                    {"say which: from \"" + file.path + "\" { field \"NAME\" }"}};
}

/// The record's prompt, or its prompts where the field holds a list.
void add_prompts(const PromptFile& file, const Record& record, std::vector<Prompt>& prompts) {
  if (record.value.is_string() && !file.field && !file.answer && !file.cluster) {
    prompts.emplace_back().text = record.value.get<std::string>();
    return;
  }
  if (!record.value.is_object()) {
    throw RecordFault{
        Code::prompt_file_field,
        record.where,
        std::string("an object with fields is needed, not a JSON ") + record.value.type_name(),
        {"write {\"prompt\": \"…\"}, or leave out `field`, `answer` and `cluster` for a list of strings"}};
  }
  const std::string field = prompt_field(file, record);
  const Json& texts = field_of(record, field);
  Prompt prompt;
  if (file.answer) {
    prompt.answers = strings_in(field_of(record, *file.answer), *file.answer, record.where);
    if (file.answer->starts_with(kCounterFactRewrite)) {
      for (std::string& answer : prompt.answers) answer = with_leading_space(std::move(answer));
    }
  }
  if (file.cluster) {
    const Json& cluster = field_of(record, *file.cluster);
    prompt.cluster = cluster.is_string() ? cluster.get<std::string>() : cluster.dump();
  } else if (texts.is_array()) {
    prompt.cluster = record.where;  // the prompts of one record are no independent ones
  }
  prompt.span = file.span;
  for (std::string& text : strings_in(texts, field, record.where)) {
    prompt.text = std::move(text);
    prompts.push_back(prompt);
  }
}

}  // namespace

Outcome<std::vector<Prompt>> read_prompt_file(const PromptFile& file, std::string_view bytes) {
  try {
    std::vector<Prompt> prompts;
    for (const Record& record : read_records(file.path, bytes, file.take, file.seed))
      add_prompts(file, record, prompts);
    return {std::move(prompts), {}};
  } catch (const RecordFault& fault) {
    return {std::nullopt, {record_diagnostic(fault, file.path, file.span)}};
  }
}

}  // namespace proviso::dsl
