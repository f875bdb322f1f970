// The attention kernels by shape, for LaunchAttention.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/cuda/attention_ops.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/launch.h"

namespace lorad::kernels::cuda {

inline constexpr int kMaxHeadDim = 256;

KvLayout LayoutOf(const KvGeometry& geometry, KvFormat format);

// Each takes AttendArgs (attention_core.h) and a grid of one block an item.
const KernelRef& ItemKernel(int head_dim, KvFormat format);
const KernelRef& TileKernel(int head_dim, KvFormat format);
// Dynamic shared memory of a block of TileKernel.
size_t TileSharedBytes(int head_dim, const KvLayout& layout);

std::vector<KernelRef> ItemKernels();
std::vector<KernelRef> TileKernels();
std::vector<KernelRef> RopeAppendKernels();

}  // namespace lorad::kernels::cuda
