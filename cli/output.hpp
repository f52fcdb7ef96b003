#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.hpp"

namespace proviso::cli {

/// Puts a command's result where `-o` says: "" and "-" are standard output, else a file, written atomically.
void write_result(const Invocation& invocation, const std::string& path, std::string_view text);

/// What a command writes to `path`: as `--output` says where it is given, else as the ending of a file says, else text.
/// Throws `InputError` for an ending that is none of `offered`'s.
OutputFormat format_for(const Invocation& invocation, const std::string& path,
                        const std::vector<OutputFormat>& offered);

/// Whether `out`, one of the invocation's streams, is shown on a terminal.
bool is_terminal(const std::ostream& out);

/// What text looks like on the way to `out`, one of the invocation's streams.
struct Terminal {
  std::size_t columns = 100;
  bool colour = false;  ///< never in a pipe, nor where NO_COLOR is set
};
Terminal terminal(const std::ostream& out);

/// One document as YAML (keys in its order, strings quoted, numbers as JSON writes them) or indented JSON.
std::string render_document(const nlohmann::ordered_json& document, OutputFormat format);

}  // namespace proviso::cli
