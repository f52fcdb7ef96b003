#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dsl/diagnostic.hpp"

namespace proviso::dsl {

/// How a file of records is read: by its extension, in any case.
enum class RecordFormat { text, json_lines, json, csv };
std::optional<RecordFormat> record_format(std::string_view path);  ///< .txt, .jsonl (.ndjson), .json, .csv

/// Larger files are refused before they are parsed.
inline constexpr std::size_t kMaxRecordFileBytes = std::size_t{64} << 20;

/// Ends the reading of a file; who asked for it turns it into a diagnostic.
struct RecordFault {
  Code code;
  std::string where;  ///< "line 3", "item 3"
  std::string message;
  std::vector<std::string> help;
};

/// A line, a JSON item, or a CSV record (an object whose values are strings).
struct Record {
  nlohmann::json value;
  std::string where;
  std::string fields_where;  ///< where its fields are named: a CSV file's header
};

/// Blank lines hold no record. Throws `RecordFault`.
///
/// `take` keeps the first ones. With `seed` it keeps as many drawn without replacement, in the file's order, the same
/// on every machine: with SplitMix64 seeded by it, step i = 0 … take−1 of a Fisher-Yates shuffle of the records'
/// indices swaps i with i + r, where r is the first output below the largest multiple of (count − i) that fits in 64
/// bits, modulo (count − i).
std::vector<Record> read_records(const std::string& path, std::string_view bytes, std::optional<std::int64_t> take,
                                 std::optional<std::uint64_t> seed);

/// The names of an object's fields, as written.
std::vector<std::string> field_names(const nlohmann::json& object);
/// An object's field; a dot in the name leads into an object within it, where no field has the whole name.
/// Throws `RecordFault`, with the nearest name, where there is none.
const nlohmann::json& field_of(const Record& record, const std::string& field);
/// A field's value where it must be a text, or a list of texts (one text gives a list of it).
std::string string_in(const nlohmann::json& value, const std::string& field, const std::string& where);
std::vector<std::string> strings_in(const nlohmann::json& value, const std::string& field, const std::string& where);

/// CounterFact and zsRE leave the space before a continuation to their reader.
inline constexpr std::string_view kCounterFactRewrite = "requested_rewrite";
std::string with_leading_space(std::string text);

/// At the path in the rule file, naming the place in the file itself.
Diagnostic record_diagnostic(const RecordFault& fault, const std::string& path, Span span);

}  // namespace proviso::dsl
