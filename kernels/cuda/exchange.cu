// A thread adds four neighbouring elements of all parts, or copies one; no element depends on
// another.
#include "kernels/cuda/exchange_ops.h"
#include "kernels/cuda/gpu.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kAtOnce = 4;  // elements a thread

struct AddPartsArgs {
  const float* parts;
  float* sum;
  size_t count;
  int ranks;
};

LORAD_KERNEL(kThreads, 4) void AddParts(AddPartsArgs args) {
  const size_t at = (size_t(BlockX()) * kThreads + size_t(Thread())) * kAtOnce;
  if (at >= args.count) return;
  const Vec4 first = Load16(args.parts + at);
  float sum[kAtOnce] = {BitsToFloat(first.x), BitsToFloat(first.y), BitsToFloat(first.z),
                        BitsToFloat(first.w)};
  for (int rank = 1; rank < args.ranks; ++rank) {
    const Vec4 part = Load16(args.parts + size_t(rank) * args.count + at);
    sum[0] += BitsToFloat(part.x);
    sum[1] += BitsToFloat(part.y);
    sum[2] += BitsToFloat(part.z);
    sum[3] += BitsToFloat(part.w);
  }
  Store16(args.sum + at,
          {FloatToBits(sum[0]), FloatToBits(sum[1]), FloatToBits(sum[2]), FloatToBits(sum[3])});
}

struct JoinPartsArgs {
  const float* parts;
  int cols;
  int stride;
  TensorView whole;
};

LORAD_KERNEL(kThreads, 4) void JoinParts(JoinPartsArgs args) {
  const int row = BlockX(), rows = BlocksX();
  const int column = BlockY() * kThreads + Thread();
  if (column >= args.whole.cols) return;
  const int rank = column / args.cols;
  const float* part =
      args.parts + (size_t(rank) * size_t(rows) + size_t(row)) * size_t(args.stride);
  static_cast<float*>(args.whole.data)[size_t(row) * size_t(args.whole.stride) + size_t(column)] =
      part[column - rank * args.cols];
}

const KernelRef kAddParts = MakeKernel("add_parts", &AddParts, kThreads);
const KernelRef kJoinParts = MakeKernel("join_parts", &JoinParts, kThreads);

}  // namespace

void LaunchAddParts(Launcher& launch, const float* parts, int ranks, size_t count, float* sum) {
  const size_t threads = (count + kAtOnce - 1) / kAtOnce;
  launch(kAddParts, {.x = static_cast<int>((threads + kThreads - 1) / kThreads)},
         AddPartsArgs{parts, sum, count, ranks});
}

void LaunchJoinParts(Launcher& launch, const float* parts, int rows, int cols, int stride,
                     const TensorView& whole) {
  launch(kJoinParts, {.x = rows, .y = (whole.cols + kThreads - 1) / kThreads},
         JoinPartsArgs{parts, cols, stride, whole});
}

std::vector<KernelRef> ExchangeKernels() { return {kAddParts, kJoinParts}; }

}  // namespace lorad::kernels::cuda
