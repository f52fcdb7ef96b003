#include "runtime/formats/tensor_file.hpp"
#include "runtime/tokenizer/jinja.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::model {

std::string apply_chat_template(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages) {
  if (!tokenizer.chat_template()) {
    throw InputError("this model has no chat template: give its prompts as they are, without chat");
  }
  jinja::List conversation;
  for (const ChatMessage& message : messages) {
    conversation.push_back(jinja::Map{{"role", message.role}, {"content", message.content}});
  }
  jinja::Map variables = {
      {"messages", conversation}, {"add_generation_prompt", true}, {"tools", nullptr}, {"documents", nullptr}};
  for (const auto& [name, text] : tokenizer.named_tokens()) variables.emplace(name, text);
  return jinja::render(*tokenizer.chat_template(), variables);
}

}  // namespace proviso::model
