#include "dsl/record_file.hpp"

#include <algorithm>
#include <cctype>
#include <limits>
#include <numeric>
#include <utility>

#include "dsl/utf8.hpp"

namespace proviso::dsl {
namespace {

using Json = nlohmann::json;
using Records = std::vector<Record>;

std::string ticked(std::string_view name) { return '`' + std::string(name) + '`'; }

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + ticked(name);
  return text;
}

RecordFault missing_field(const std::string& where, const std::string& field, const std::vector<std::string>& present) {
  RecordFault fault{Code::prompt_file_field, where, "no field " + ticked(field), {}};
  if (const auto nearest = nearest_name(field, present)) {
    fault.help = {"did you mean " + ticked(*nearest) + "?"};
  } else {
    fault.help = {present.empty() ? "it has no fields" : "its fields are " + joined(present)};
  }
  return fault;
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

Records read_text(std::string_view bytes) {
  Records records;
  for_each_line(bytes, [&](std::size_t number, std::string_view text) {
    const std::string where = "line " + std::to_string(number);
    records.push_back({std::string(text), where, where});
  });
  return records;
}

// ---- JSON ------------------------------------------------------------------------------------

Json parse_json(std::string_view bytes, std::size_t first_line) {
  try {
    return Json::parse(bytes);
  } catch (const Json::parse_error& error) {
    const std::size_t at = error.byte > 0 ? error.byte - 1 : 0;
    const auto line = first_line + std::count(bytes.begin(), bytes.begin() + std::min(at, bytes.size()), '\n');
    throw RecordFault{Code::prompt_file_syntax, "line " + std::to_string(line), "this is not JSON", {}};
  }
}

Records read_json_lines(std::string_view bytes) {
  Records records;
  for_each_line(bytes, [&](std::size_t number, std::string_view text) {
    const std::string where = "line " + std::to_string(number);
    records.push_back({parse_json(text, number), where, where});
  });
  return records;
}

Records read_json(std::string_view bytes) {
  if (bytes.find_first_not_of(" \t\r\n") == std::string_view::npos) return {};
  Json items = parse_json(bytes, 1);
  if (!items.is_array()) {
    throw RecordFault{Code::prompt_file_syntax,
                      "line 1",
                      "an array of strings or objects is needed, not a JSON " + std::string(items.type_name()),
                      {"wrap it as [ … ], or name the file .jsonl where each line is an object"}};
  }
  Records records;
  for (Json& item : items) {
    const std::string where = "item " + std::to_string(records.size() + 1);
    records.push_back({std::move(item), where, where});
  }
  return records;
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
        throw RecordFault{Code::prompt_file_syntax,
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
        throw RecordFault{Code::prompt_file_syntax,
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

Records read_csv(std::string_view bytes) {
  CsvReader reader(bytes);
  std::vector<std::string> header, fields;
  if (!reader.next(header)) return {};
  const std::string header_where = reader.where();
  Records records;
  while (reader.next(fields)) {
    if (fields.size() != header.size()) {
      throw RecordFault{Code::prompt_file_syntax,
                        reader.where(),
                        std::to_string(fields.size()) + " fields where the header has " + std::to_string(header.size()),
                        {"quote fields that hold a comma: \"a, b\""}};
    }
    Json object = Json::object();
    for (std::size_t i = 0; i < header.size(); ++i) object.emplace(header[i], fields[i]);
    records.push_back({std::move(object), reader.where(), header_where});
  }
  return records;
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

Records taken(Records records, std::size_t count, std::optional<std::uint64_t> seed) {
  if (count >= records.size()) return records;
  std::vector<std::size_t> chosen(records.size());
  std::iota(chosen.begin(), chosen.end(), std::size_t{0});
  if (seed) {
    SplitMix64 random(*seed);
    for (std::size_t i = 0; i < count; ++i) std::swap(chosen[i], chosen[i + random.below(chosen.size() - i)]);
  }
  chosen.resize(count);
  std::sort(chosen.begin(), chosen.end());
  Records kept;
  for (const std::size_t i : chosen) kept.push_back(std::move(records[i]));
  return kept;
}

Records read(const std::string& path, std::string_view bytes) {
  if (bytes.size() > kMaxRecordFileBytes) {
    throw RecordFault{Code::prompt_file_too_large,
                      "",
                      std::to_string(bytes.size() >> 20) + " MiB, where at most " +
                          std::to_string(kMaxRecordFileBytes >> 20) + " are read",
                      {"split the file, or keep a sample of it"}};
  }
  if (const auto bad = invalid_utf8(bytes)) {
    throw RecordFault{Code::prompt_file_syntax,
                      line_of(bytes, *bad),
                      "these bytes are not UTF-8",
                      {"convert the file: iconv -t UTF-8"}};
  }
  if (bytes.starts_with("\xef\xbb\xbf")) bytes.remove_prefix(3);
  switch (record_format(path).value_or(RecordFormat::text)) {
    case RecordFormat::json_lines:
      return read_json_lines(bytes);
    case RecordFormat::json:
      return read_json(bytes);
    case RecordFormat::csv:
      return read_csv(bytes);
    case RecordFormat::text:
      return read_text(bytes);
  }
  return {};
}

}  // namespace

std::optional<RecordFormat> record_format(std::string_view path) {
  const std::size_t dot = path.find_last_of("./\\");
  if (dot == std::string_view::npos || path[dot] != '.') return std::nullopt;
  std::string extension(path.substr(dot));
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (extension == ".txt") return RecordFormat::text;
  if (extension == ".jsonl" || extension == ".ndjson") return RecordFormat::json_lines;
  if (extension == ".json") return RecordFormat::json;
  if (extension == ".csv") return RecordFormat::csv;
  return std::nullopt;
}

std::vector<Record> read_records(const std::string& path, std::string_view bytes, std::optional<std::int64_t> take,
                                 std::optional<std::uint64_t> seed) {
  auto records = read(path, bytes);
  return take ? taken(std::move(records), static_cast<std::size_t>(*take), seed) : records;
}

std::vector<std::string> field_names(const Json& object) {
  std::vector<std::string> names;
  for (const auto& entry : object.items()) names.push_back(entry.key());
  return names;
}

const Json& field_of(const Record& record, const std::string& field) {
  const Json* at = &record.value;
  for (std::string rest = field;;) {
    if (const auto found = at->find(rest); found != at->end()) return *found;
    const auto dot = rest.find('.');
    const auto inner = dot == std::string::npos ? at->end() : at->find(rest.substr(0, dot));
    if (inner == at->end() || !inner->is_object()) throw missing_field(record.fields_where, rest, field_names(*at));
    at = &*inner;
    rest = rest.substr(dot + 1);
  }
}

std::string string_in(const Json& value, const std::string& field, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  throw RecordFault{Code::prompt_file_field,
                    where,
                    "field " + ticked(field) + " holds no string but a JSON " + value.type_name(),
                    {}};
}

std::vector<std::string> strings_in(const Json& value, const std::string& field, const std::string& where) {
  if (!value.is_array()) return {string_in(value, field, where)};
  std::vector<std::string> texts;
  for (const Json& one : value) texts.push_back(string_in(one, field, where));
  return texts;
}

std::string with_leading_space(std::string text) { return text.starts_with(' ') ? text : " " + std::move(text); }

Diagnostic record_diagnostic(const RecordFault& fault, const std::string& path, Span span) {
  const std::string place = fault.where.empty() ? path : path + ", " + fault.where;
  return make_diagnostic(fault.code, span, place + ": " + fault.message, fault.help);
}

}  // namespace proviso::dsl
