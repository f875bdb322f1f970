// Counts what a test program allocates: linked into it, heap_count.cc replaces operator new and
// delete.
#pragma once

#include <cstdint>

namespace lorad {

// Bytes that are allocated now, with what malloc adds to each block. Any thread.
int64_t LiveHeapBytes();

}  // namespace lorad
