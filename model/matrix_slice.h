// Parts of host matrices: what a rank of a tensor-parallel model takes of a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/types.h"

namespace lorad {

// Rows [begin, begin + count) of m, in place. Shapes without data stay so.
kernels::HostMatrix SliceRows(const kernels::HostMatrix& m, int64_t begin, int64_t count);

// Columns [begin, begin + count) of m, copied to `storage`, which must live as long as the result.
// Shapes without data stay so.
kernels::HostMatrix CopyColumns(const kernels::HostMatrix& m, int64_t begin, int64_t count,
                                std::vector<std::byte>* storage);

}  // namespace lorad
