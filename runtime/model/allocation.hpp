#pragma once

#include <cstdint>

namespace proviso::model {

/// For a program's start: what is freed is used again. The C library would give every tensor of more than 128 KiB back
/// to the system and have the next one cleared anew, a tenth of an edit's time. Memory that a passing peak took stays
/// with the process until its end.
void reuse_freed_memory();

/// Bytes that a process may still take; 0 where the system does not tell.
std::uint64_t available_memory();

}  // namespace proviso::model
