#include "runtime/encode_prompt.hpp"

namespace proviso::runtime {

EncodedPrompt encode_prompt(const model::Tokenizer& tokenizer, const std::optional<dsl::Chat>& chat,
                            const std::string& text) {
  EncodedPrompt prompt{text, {}};
  if (chat) {
    std::vector<model::ChatMessage> messages;
    if (chat->system) messages.push_back({"system", *chat->system});
    messages.push_back({"user", text});
    prompt.text = model::apply_chat_template(tokenizer, messages);
  }
  prompt.tokens = tokenizer.encode(prompt.text, /*add_special=*/!chat);
  return prompt;
}

}  // namespace proviso::runtime
