#include "runtime/tokenizer/pattern.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cctype>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

// Far beyond what any tokenizer's expression needs on ordinary text; a hostile one ends here.
constexpr std::uint32_t kMatchLimit = 10'000'000;
constexpr std::size_t kJitStackStart = 32 * 1024, kJitStackLimit = 8 * 1024 * 1024;

template <auto Free>
struct Deleter {
  void operator()(auto* pointer) const { Free(pointer); }
};
using Code = std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>>;

// What matching writes to: one a thread.
struct Workspace {
  JitStack stack{pcre2_jit_stack_create(kJitStackStart, kJitStackLimit, nullptr)};
  MatchData data{pcre2_match_data_create(1, nullptr)};
  MatchContext context{pcre2_match_context_create(nullptr)};

  Workspace() {
    if (!data || !context) throw MachineError("out of memory for a tokenizer's regular expression");
    pcre2_set_match_limit(context.get(), kMatchLimit);
    if (stack) pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Pattern::Compiled {
  std::vector<std::uint8_t> class_of;
  Code code;
};

Pattern::Pattern(std::string_view expression) : expression_(expression) {
  BytePattern pattern = rewrite_over_bytes(expression);
  const auto refuse = [&](const std::string& why) {
    throw InputError("the regular expression '" + expression_ + "' is not reproduced: " + why);
  };
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.expression.data()), pattern.expression.size(), 0, &error,
                          &offset, nullptr));
  if (!code) refuse(pcre2_message(error));
  std::uint32_t matches_empty = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty) refuse("it can match nothing at all");
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where there is no JIT, PCRE2 interprets
  compiled_ = std::make_unique<const Compiled>(Compiled{std::move(pattern.class_of), std::move(code)});
}

Pattern Pattern::literal(std::string_view text) {
  std::string expression;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80 && !std::isalnum(static_cast<unsigned char>(c))) expression += '\\';
    expression += c;
  }
  return Pattern(expression);
}

Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

void Pattern::find_all(std::string_view text, std::vector<TextSpan>& matches) const {
  thread_local Workspace workspace;
  const bool ascii = is_ascii(text);
  std::string classes;
  std::vector<std::size_t> offsets;  // of each code point, and the end
  if (!ascii) {
    classes.reserve(text.size());
    offsets.reserve(text.size() + 1);
    for (std::size_t offset = 0; offset < text.size();) {
      offsets.push_back(offset);
      classes.push_back(static_cast<char>(compiled_->class_of[next_code_point(text, offset)]));
    }
    offsets.push_back(text.size());
  }
  const std::string_view subject = ascii ? text : classes;
  for (std::size_t start = 0; start < subject.size();) {
    const int found = pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(),
                                  start, 0, workspace.data.get(), workspace.context.get());
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      throw InputError("the tokenizer's regular expression '" + expression_ +
                       "' gave up on this text: " + pcre2_message(found));
    }
    const PCRE2_SIZE* span = pcre2_get_ovector_pointer(workspace.data.get());
    matches.push_back(ascii ? TextSpan{span[0], span[1]} : TextSpan{offsets[span[0]], offsets[span[1]]});
    start = span[1];
  }
}

}  // namespace proviso::model
