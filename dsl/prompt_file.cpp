#include "dsl/prompt_file.hpp"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <utility>

#include "dsl/utf8.hpp"

namespace proviso::dsl {
namespace {

using Json = nlohmann::json;

/// Ends the reading of a file; `read_prompt_file` turns it into the diagnostic.
struct Fault {
  Code code;
  std::string where;  ///< "line 3", "item 3"
  std::string message;
  std::vector<std::string> help;
};

/// A prompt's text and what `answer` and `cluster` ask for, before spans are put on.
using Prompts = std::vector<Prompt>;

std::string ticked(std::string_view name) { return '`' + std::string(name) + '`'; }

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + ticked(name);
  return text;
}

Fault missing_field(const std::string& where, const std::string& field, const std::vector<std::string>& present) {
  Fault fault{Code::prompt_file_field, where, "no field " + ticked(field), {}};
  if (const auto nearest = nearest_name(field, present)) {
    fault.help = {"did you mean " + ticked(*nearest) + "?"};
  } else {
    fault.help = {present.empty() ? "it has no fields" : "its fields are " + joined(present)};
  }
  return fault;
}

/// The field that holds the prompt: the one asked for, or the only one there is.
std::string prompt_field(const PromptFile& file, const std::string& where, const std::vector<std::string>& present) {
  if (file.field) return *file.field;
  if (present.size() == 1) return present.front();
  throw Fault{Code::prompt_file_field,
              where,
              present.empty() ? "an object without fields" : "which field is the prompt? There are " + joined(present),
              {"say which: from \"" + file.path + "\" { field \"NAME\" }"}};
}

/// Calls `line(number, text)` for every line that is not blank; "\r\n" ends a line too.
template <class F>
void for_each_line(std::string_view bytes, F line) {
  for (std::size_t number = 1, begin = 0; begin < bytes.size(); ++number) {
    const std::size_t end = std::min(bytes.find('\n', begin), bytes.size());
    std::string_view text = bytes.substr(begin, end - begin);
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.find_first_not_of(" \t") != std::string_view::npos) line(number, text);
    begin = end + 1;
  }
}

std::string line_of(std::string_view bytes, std::size_t offset) {
  const std::string_view before = bytes.substr(0, std::min(offset, bytes.size()));
  return "line " + std::to_string(1 + std::count(before.begin(), before.end(), '\n'));
}

Prompts read_text(std::string_view bytes) {
  Prompts prompts;
  for_each_line(bytes, [&](std::size_t, std::string_view text) { prompts.emplace_back().text = text; });
  return prompts;
}

// ---- JSON ------------------------------------------------------------------------------------

Json parse_json(std::string_view bytes, std::size_t first_line) {
  try {
    return Json::parse(bytes);
  } catch (const Json::parse_error& error) {
    const std::size_t at = error.byte > 0 ? error.byte - 1 : 0;
    const auto line = first_line + std::count(bytes.begin(), bytes.begin() + std::min(at, bytes.size()), '\n');
    throw Fault{Code::prompt_file_syntax, "line " + std::to_string(line), "this is not JSON", {}};
  }
}

const Json& field_of(const Json& object, const std::string& field, const std::string& where) {
  const auto found = object.find(field);
  if (found != object.end()) return *found;
  std::vector<std::string> present;
  for (const auto& item : object.items()) present.push_back(item.key());
  throw missing_field(where, field, present);
}

std::string string_in(const Json& value, const std::string& field, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  throw Fault{Code::prompt_file_field,
              where,
              "field " + ticked(field) + " holds no string but a JSON " + value.type_name(),
              {}};
}

Prompt prompt_of(const PromptFile& file, const Json& item, const std::string& where) {
  Prompt prompt;
  if (item.is_string() && !file.field && !file.answer && !file.cluster) {
    prompt.text = item.get<std::string>();
    return prompt;
  }
  if (!item.is_object()) {
    throw Fault{Code::prompt_file_field,
                where,
                std::string("an object with fields is needed, not a JSON ") + item.type_name(),
                {"write {\"prompt\": \"…\"}, or leave out `field`, `answer` and `cluster` for a list of strings"}};
  }
  std::vector<std::string> present;
  for (const auto& entry : item.items()) present.push_back(entry.key());

  const std::string field = prompt_field(file, where, present);
  prompt.text = string_in(field_of(item, field, where), field, where);
  if (file.answer) {
    const Json& answer = field_of(item, *file.answer, where);
    if (answer.is_array()) {
      for (const Json& one : answer) prompt.answers.push_back(string_in(one, *file.answer, where));
    } else {
      prompt.answers.push_back(string_in(answer, *file.answer, where));
    }
  }
  if (file.cluster) {
    const Json& cluster = field_of(item, *file.cluster, where);
    prompt.cluster = cluster.is_string() ? cluster.get<std::string>() : cluster.dump();
  }
  return prompt;
}

Prompts read_json_lines(const PromptFile& file, std::string_view bytes) {
  Prompts prompts;
  for_each_line(bytes, [&](std::size_t number, std::string_view text) {
    prompts.push_back(prompt_of(file, parse_json(text, number), "line " + std::to_string(number)));
  });
  return prompts;
}

Prompts read_json(const PromptFile& file, std::string_view bytes) {
  if (bytes.find_first_not_of(" \t\r\n") == std::string_view::npos) return {};
  const Json items = parse_json(bytes, 1);
  if (!items.is_array()) {
    throw Fault{Code::prompt_file_syntax,
                "line 1",
                "an array of strings or objects is needed, not a JSON " + std::string(items.type_name()),
                {"wrap it as [ … ], or name the file .jsonl where each line is an object"}};
  }
  Prompts prompts;
  for (const Json& item : items) {
    prompts.push_back(prompt_of(file, item, "item " + std::to_string(prompts.size() + 1)));
  }
  return prompts;
}

// ---- CSV -------------------------------------------------------------------------------------

/// The records of RFC 4180: fields may be quoted, and then hold commas, line breaks and doubled quotes.
class CsvReader {
 public:
  explicit CsvReader(std::string_view bytes) : bytes_(bytes) {}

  /// The next record that is not a blank line, or nothing at the end.
  bool next(std::vector<std::string>& record) {
    do {
      if (at_ == bytes_.size()) return false;
      start_ = at_;
      record.clear();
      do {
        record.push_back(field());
      } while (take(','));
      take('\r');
      if (at_ < bytes_.size() && !take('\n')) {
        throw Fault{Code::prompt_file_syntax,
                    line_of(bytes_, at_),
                    "text after a closing quote",
                    {"inside a quoted field write \" as \"\""}};
      }
    } while (record.size() == 1 && record.front().empty());
    return true;
  }

  std::string where() const { return line_of(bytes_, start_); }

 private:
  bool take(char c) {
    if (at_ == bytes_.size() || bytes_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::string field() {
    if (take('"')) return quoted_field();
    const std::size_t end = std::min(bytes_.find_first_of(",\n", at_), bytes_.size());
    std::string text(bytes_.substr(at_, end - at_));
    if (text.ends_with('\r')) text.pop_back();
    at_ = end;
    return text;
  }

  std::string quoted_field() {
    const std::size_t opened = at_ - 1;
    std::string text;
    while (true) {
      const std::size_t quote = bytes_.find('"', at_);
      if (quote == std::string_view::npos) {
        throw Fault{Code::prompt_file_syntax,
                    line_of(bytes_, opened),
                    "a quote opens here and never closes",
                    {"close it, and write \" inside a quoted field as \"\""}};
      }
      text += bytes_.substr(at_, quote - at_);
      at_ = quote + 1;
      if (!take('"')) return text;
      text += '"';
    }
  }

  std::string_view bytes_;
  std::size_t at_ = 0;
  std::size_t start_ = 0;
};

Prompts read_csv(const PromptFile& file, std::string_view bytes) {
  CsvReader reader(bytes);
  std::vector<std::string> header, record;
  if (!reader.next(header)) return {};

  const auto column = [&](const std::string& field) {
    const auto found = std::find(header.begin(), header.end(), field);
    if (found == header.end()) throw missing_field(reader.where(), field, header);
    return static_cast<std::size_t>(found - header.begin());
  };
  const std::size_t text = column(prompt_field(file, reader.where(), header));
  const auto answer = file.answer ? std::optional(column(*file.answer)) : std::nullopt;
  const auto cluster = file.cluster ? std::optional(column(*file.cluster)) : std::nullopt;

  Prompts prompts;
  while (reader.next(record)) {
    if (record.size() != header.size()) {
      throw Fault{Code::prompt_file_syntax,
                  reader.where(),
                  std::to_string(record.size()) + " fields where the header has " + std::to_string(header.size()),
                  {"quote fields that hold a comma: \"a, b\""}};
    }
    Prompt& prompt = prompts.emplace_back();
    prompt.text = record[text];
    if (answer) prompt.answers.push_back(record[*answer]);
    if (cluster) prompt.cluster = record[*cluster];
  }
  return prompts;
}

// ---- take … seed … ---------------------------------------------------------------------------

class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}

  /// Uniform among 0 … bound−1.
  std::uint64_t below(std::uint64_t bound) {
    const std::uint64_t rejected = (std::numeric_limits<std::uint64_t>::max() % bound + 1) % bound;  // 2^64 mod bound
    std::uint64_t x = next();
    while (x > std::numeric_limits<std::uint64_t>::max() - rejected) x = next();
    return x % bound;
  }

 private:
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  std::uint64_t state_;
};

Prompts taken(Prompts prompts, std::size_t count, std::optional<std::uint64_t> seed) {
  if (count >= prompts.size()) return prompts;
  std::vector<std::size_t> chosen(prompts.size());
  std::iota(chosen.begin(), chosen.end(), std::size_t{0});
  if (seed) {
    SplitMix64 random(*seed);
    for (std::size_t i = 0; i < count; ++i) std::swap(chosen[i], chosen[i + random.below(chosen.size() - i)]);
  }
  chosen.resize(count);
  std::sort(chosen.begin(), chosen.end());
  Prompts kept;
  for (const std::size_t i : chosen) kept.push_back(std::move(prompts[i]));
  return kept;
}

Prompts read(const PromptFile& file, std::string_view bytes) {
  if (bytes.size() > kMaxPromptFileBytes) {
    throw Fault{Code::prompt_file_too_large,
                "",
                std::to_string(bytes.size() >> 20) + " MiB, where at most " +
                    std::to_string(kMaxPromptFileBytes >> 20) + " are read",
                {"split the file, or keep a sample of it"}};
  }
  if (const auto bad = invalid_utf8(bytes)) {
    throw Fault{Code::prompt_file_syntax,
                line_of(bytes, *bad),
                "these bytes are not UTF-8",
                {"convert the file: iconv -t UTF-8"}};
  }
  if (bytes.starts_with("\xef\xbb\xbf")) bytes.remove_prefix(3);
  switch (prompt_format(file.path).value_or(PromptFormat::text)) {
    case PromptFormat::json_lines:
      return read_json_lines(file, bytes);
    case PromptFormat::json:
      return read_json(file, bytes);
    case PromptFormat::csv:
      return read_csv(file, bytes);
    case PromptFormat::text:
      return read_text(bytes);
  }
  return {};
}

}  // namespace

std::optional<PromptFormat> prompt_format(std::string_view path) {
  const std::size_t dot = path.find_last_of("./\\");
  if (dot == std::string_view::npos || path[dot] != '.') return std::nullopt;
  std::string extension(path.substr(dot));
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (extension == ".txt") return PromptFormat::text;
  if (extension == ".jsonl" || extension == ".ndjson") return PromptFormat::json_lines;
  if (extension == ".json") return PromptFormat::json;
  if (extension == ".csv") return PromptFormat::csv;
  return std::nullopt;
}

Outcome<std::vector<Prompt>> read_prompt_file(const PromptFile& file, std::string_view bytes) {
  try {
    Prompts prompts = read(file, bytes);
    if (file.take) prompts = taken(std::move(prompts), static_cast<std::size_t>(*file.take), file.seed);
    for (Prompt& prompt : prompts) prompt.span = file.span;
    return {std::move(prompts), {}};
  } catch (const Fault& fault) {
    const std::string place = fault.where.empty() ? file.path : file.path + ", " + fault.where;
    return {std::nullopt, {make_diagnostic(fault.code, file.span, place + ": " + fault.message, fault.help)}};
  }
}

}  // namespace proviso::dsl
