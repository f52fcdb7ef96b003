#include "runtime/model/allocation.hpp"

#include <malloc.h>

#include <fstream>
#include <limits>
#include <sstream>
#include <string>

namespace proviso::model {

void reuse_freed_memory() {
  constexpr int kNeverByItself = 1 << 30, kNeverTrimmed = std::numeric_limits<int>::max(), kGrowBy = 64 << 20;
  if (mallopt(M_MMAP_THRESHOLD, kNeverByItself) == 0) return;  // the other two alone would do harm
  mallopt(M_TRIM_THRESHOLD, kNeverTrimmed);
  mallopt(M_TOP_PAD, kGrowBy);
}

std::uint64_t available_memory() {
  std::ifstream meminfo("/proc/meminfo");
  for (std::string line; std::getline(meminfo, line);) {
    std::istringstream words(line);
    std::string key;
    std::uint64_t kibibytes = 0;
    if (words >> key >> kibibytes && key == "MemAvailable:") return kibibytes * 1024;
  }
  return 0;
}

}  // namespace proviso::model
