#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace proviso::model {

/// Writes `path` so that a kill at any moment leaves the old file or the new one: a temporary file in
/// the same folder, fsync, rename, fsync of the folder. Throws `MachineError` (disk full, no
/// permission), leaving nothing behind.
void write_file_atomically(const std::string& path, std::string_view bytes);

/// Builds a whole folder under a temporary name beside `directory` and renames it when `fill` is done.
/// An existing `directory` is an `InputError`: nothing is ever overwritten.
void write_directory_atomically(const std::string& directory, const std::function<void(const std::string& temporary)>& fill);

}  // namespace proviso::model
