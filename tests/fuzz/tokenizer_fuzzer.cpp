// libFuzzer over the tokenizer's readers of outside text. The first byte picks what the rest is: a tokenizer.json,
// a regular expression with a text, a chat template, or a text to encode.

#include <cstddef>
#include <cstdint>
#include <string>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/tokenizer/jinja.hpp"
#include "runtime/tokenizer/pattern.hpp"
#include "runtime/tokenizer/tokenizer.hpp"
#include "runtime/tokenizer/tokenizer_parts.hpp"
#include "runtime/tokenizer/utf8.hpp"

using namespace proviso::model;

namespace {

void render(std::string_view source) {
  const jinja::List messages = {jinja::Map{{"role", "system"}, {"content", "Be brief."}},
                                jinja::Map{{"role", "user"}, {"content", " Hello\n"}}};
  jinja::render(source, {{"messages", messages}, {"add_generation_prompt", true}, {"bos_token", "<s>"}});
}

void match(std::string_view input) {
  const std::size_t line = input.find('\n');
  if (line == input.npos || find_invalid_utf8(input) != input.npos) return;
  std::vector<TextSpan> matches;
  Pattern(input.substr(0, line)).find_all(input.substr(line + 1), matches);
}

void round_trip(std::string_view text) {
  static const auto tokenizer = Tokenizer::load(PROVISO_SOURCE_DIR "/tests/parity/tokenizer/small/llama3");
  // Added tokens ("<mask>") may take white space with them, which decoding does not give back.
  const bool plain = text.find('<') == text.npos;
  if (tokenizer->decode(tokenizer->encode(text)) != text && plain) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0] % 4) {
      case 0:
        parse_tokenizer_json(input, "tokenizer.json");
        break;
      case 1:
        match(input);
        break;
      case 2:
        render(input);
        break;
      default:
        round_trip(input);
    }
  } catch (const InputError&) {
  }
  return 0;
}
