// Launches attention, and merges what was cut by chunks.
//
// Merging is limited by latency: it reads a few KiB a row out of L2, chunk after chunk, in as many
// threads as a row has dims / 4.
#include <cmath>
#include <numbers>

#include "kernels/cuda/attention_core.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/gpu.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

struct MergeArgs {
  AttendArgs attend;
  ListView<MergeItem> merges;
};

LORAD_KERNEL(kAttendThreads, 8) void MergePartials(MergeArgs args) {
  if (BlockX() >= *args.merges.count) return;
  const MergeItem item = args.merges.items[BlockX()];
  const AttendArgs& attend = args.attend;
  constexpr int kDims = 4;  // of a thread
  const int groups = attend.layout.padded_dim / kDims;
  const int left = item.tokens * item.heads - item.row_begin;
  const int count = (left < kItemRows ? left : kItemRows) * groups;
  const size_t stride = size_t(item.stride) * size_t(attend.partial_floats);
  for (int i = Thread(); i < count; i += kAttendThreads) {
    const int row = i / groups;
    const int dim = i % groups * kDims;
    const float* from = attend.partials + size_t(item.partial) * size_t(attend.partial_floats);
    const float* values = from + 2 * kItemRows + row * attend.layout.padded_dim + dim;
    float reference = kUnseen;
    float sum = 0;
    float total[kDims] = {};
    for (int p = 0; p < item.partials; ++p) {
      const size_t at = size_t(p) * stride;
      const Vec4 v = Load16(values + at);
      const float chunk_sum = from[at + size_t(kItemRows + row)];
      const MergeFactors factors = MoveTotal(reference, from[at + size_t(row)]);
      sum = Merge(sum, chunk_sum, factors);
      total[0] = Merge(total[0], BitsToFloat(v.x), factors);
      total[1] = Merge(total[1], BitsToFloat(v.y), factors);
      total[2] = Merge(total[2], BitsToFloat(v.z), factors);
      total[3] = Merge(total[3], BitsToFloat(v.w), factors);
    }
    const float inverse = 1.0f / sum;
    const int index = item.row_begin + row;
    const int head = item.kv_head * attend.group + item.head_begin + index % item.heads;
    uint16_t* out = attend.out +
                    size_t(item.first_row + index / item.heads) * size_t(attend.out_stride) +
                    head * attend.head_dim + dim;
    for (int j = 0; j < kDims; j += 2) {  // head_dim is even
      if (dim + j >= attend.head_dim) break;
      *reinterpret_cast<uint32_t*>(out + j) =
          PackBf16(Normalised(total[j], inverse), Normalised(total[j + 1], inverse));
    }
  }
}

const KernelRef kMergePartials = MakeKernel("merge_partials", &MergePartials, kAttendThreads);

}  // namespace

void LaunchAttention(Launcher& launch, const DeviceFacts&, const AttentionParams& params) {
  const AttentionShape& shape = params.shape;
  LORAD_CHECK(!params.qkv.full && !params.out.full);
  LORAD_CHECK(shape.head_dim % 2 == 0 && shape.head_dim <= kMaxHeadDim);
  LORAD_CHECK(shape.heads % shape.kv_heads == 0 && shape.scale > 0);
  LORAD_CHECK(params.kv.geometry.kv_heads == shape.kv_heads &&
              params.kv.geometry.head_dim == shape.head_dim);
  const KvFormat format = params.kv.format;
  AttendArgs args{};
  args.qkv = static_cast<const uint16_t*>(params.qkv.data);
  args.out = static_cast<uint16_t*>(params.out.data);
  args.pages = params.pages;
  args.partials = params.partials;
  args.layout = LayoutOf(params.kv.geometry, format);
  args.layer = params.kv.slab + args.layout.Head(params.layer, 0);
  args.page_bytes = params.kv.page_bytes;
  args.page_blocks = DivisorOf(args.layout.page_tokens / kBlockTokens);
  args.qkv_stride = params.qkv.stride;
  args.out_stride = params.out.stride;
  args.head_dim = shape.head_dim;
  args.group = shape.heads / shape.kv_heads;
  args.window = shape.window;
  args.partial_floats = static_cast<int>(PartialFloats(shape));
  args.scale_log2 = shape.scale * std::numbers::log2e_v<float>;
  args.items = params.tiles;
  launch(TileKernel(shape.head_dim, format),
         {params.tile_capacity, 1, TileSharedBytes(shape.head_dim, args.layout)}, args);
  args.items = params.items;
  launch(ItemKernel(shape.head_dim, format), {params.item_capacity, 1, 0}, args);
  launch(kMergePartials, {params.merge_capacity, 1, 0}, MergeArgs{args, params.merges});
}

std::vector<KernelRef> AttentionKernels() {
  std::vector<KernelRef> all = {kMergePartials};
  for (const auto& kernels : {ItemKernels(), TileKernels(), RopeAppendKernels()}) {
    all.insert(all.end(), kernels.begin(), kernels.end());
  }
  return all;
}

}  // namespace lorad::kernels::cuda
