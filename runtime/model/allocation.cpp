#include "runtime/model/allocation.hpp"

#include <malloc.h>

#include <limits>

namespace proviso::model {

void reuse_freed_memory() {
  constexpr int kNeverByItself = 1 << 30, kNeverTrimmed = std::numeric_limits<int>::max(), kGrowBy = 64 << 20;
  if (mallopt(M_MMAP_THRESHOLD, kNeverByItself) == 0) return;  // the other two alone would do harm
  mallopt(M_TRIM_THRESHOLD, kNeverTrimmed);
  mallopt(M_TOP_PAD, kGrowBy);
}

}  // namespace proviso::model
