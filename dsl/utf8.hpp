#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

namespace proviso::dsl {

/// The offset of the first byte that belongs to no code point (RFC 3629: no surrogates, no overlong forms),
/// or nothing where all of `text` is UTF-8.
std::optional<std::size_t> invalid_utf8(std::string_view text);

}  // namespace proviso::dsl
