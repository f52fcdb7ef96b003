#pragma once

// One body for each processor, chosen at start by the loader (whose choice comes before a sanitizer is ready).
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define PROVISO_FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PROVISO_FOR_EACH_CPU
#endif
