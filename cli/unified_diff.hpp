#pragma once

#include <string>
#include <string_view>

namespace proviso::cli {

/// What changes from one text of `path` to the other, line by line, as `patch` reads it, with three lines around each
/// change; "" where nothing does.
std::string unified_diff(const std::string& path, std::string_view before, std::string_view after);

}  // namespace proviso::cli
