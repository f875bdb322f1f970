// A block has one row (or a slice of it), a thread an octet of columns at a time (octet.h): rows
// are independent, and what is summed over a row is summed in an order that depends on its width
// alone.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/dense_decode.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/octet.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/swiglu.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// ---------------------------------------------------------------------------------------------
struct EmbedArgs {
  const int32_t* ids;
  const int32_t* sampled;
  WeightsView table;
  TensorView out;
};

LORAD_KERNEL(kThreads, 4) void Embed(EmbedArgs args) {
  const int row = BlockX();
  int id = args.ids[row];
  if (id < 0) id = args.sampled[-1 - id];
  // An id from outside can only stand in a row that nobody reads.
  const bool known = id >= 0 && id < args.table.rows;
  for (int octet = Thread(); octet < Octets(args.out.cols); octet += kThreads) {
    Octet values = {};
    if (known) values = LoadWeights(args.table, id, octet * kOctet);
    StoreOctet(args.out, row, octet * kOctet, values);
  }
}

// ---------------------------------------------------------------------------------------------
struct RmsNormArgs {
  TensorView x;
  TensorView y;
  const float* weight;
  float eps;
};

// The sum over the block in every thread, in the order of a fixed tree.
LORAD_DEVICE float BlockSum(float value) {
  LORAD_SHARED(float[kWarps], sums);
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += ShuffleXor(value, mask);
  if (Lane() == 0) sums[Warp()] = value;
  SyncBlock();
  float sum = 0;
  for (int warp = 0; warp < kWarps; ++warp) sum += sums[warp];
  return sum;
}

LORAD_KERNEL(kThreads, 4) void RmsNorm(RmsNormArgs args) {
  const int row = BlockX();
  const int cols = args.x.cols;
  // The padding is zero and adds nothing.
  float squares = 0;
  for (int octet = Thread(); octet < Octets(cols); octet += kThreads) {
    const Octet x = LoadOctet(args.x, row, octet * kOctet);
    for (const float v : x.v) squares += v * v;
  }
  const float mean = BlockSum(squares) / static_cast<float>(cols);
  const float scale = 1.0f / sqrtf(mean + args.eps);
  // The row is read again, from L1.
  for (int octet = Thread(); octet < Octets(cols); octet += kThreads) {
    const int column = octet * kOctet;
    Octet x = LoadOctet(args.x, row, column);
    const Octet weight = LoadOctet(args.weight + column, cols - column);
    for (int i = 0; i < kOctet; ++i) x.v[i] = x.v[i] * scale * weight.v[i];
    StoreOctet(args.y, row, column, x);
  }
}

// ---------------------------------------------------------------------------------------------
struct RopeAnglesArgs {
  const int32_t* positions;
  const float* inv_freq;
  int frequencies;
  TensorView angles;
};

struct CosSin {
  float cosine;
  float sine;
};

// The angle is reduced to [-pi/4, pi/4] in double, with pi/2 in two parts: an error below 1e-15 for
// any float below 2^31. The series' first left-out terms are below 1e-11, far less than half an ulp
// of the result. One source for the device and the host, so both give the same bits but for a
// fused multiply-add.
LORAD_DEVICE CosSin CosSinOf(float angle) {
  constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
  constexpr double kHalfPi = 0x1.921fb54442d18p+0;
  constexpr double kHalfPiRest = 0x1.1a62633145c07p-54;
  const double a = angle;
  const double turns = rint(a * kTwoOverPi);
  const double r = fma(-turns, kHalfPiRest, fma(-turns, kHalfPi, a));
  const double s = r * r;
  double sine = 1.0 / 6227020800;  // 1/13!
  sine = sine * s - 1.0 / 39916800;
  sine = sine * s + 1.0 / 362880;
  sine = sine * s - 1.0 / 5040;
  sine = sine * s + 1.0 / 120;
  sine = sine * s - 1.0 / 6;
  sine = r + r * (s * sine);
  double cosine = 1.0 / 479001600;  // 1/12!
  cosine = cosine * s - 1.0 / 3628800;
  cosine = cosine * s + 1.0 / 40320;
  cosine = cosine * s - 1.0 / 720;
  cosine = cosine * s + 1.0 / 24;
  cosine = cosine * s - 0.5;
  cosine = cosine * s + 1.0;
  const int quadrant = static_cast<int>(static_cast<long long>(turns) & 3);
  const double c = quadrant % 2 == 0 ? cosine : sine;
  const double d = quadrant % 2 == 0 ? sine : cosine;
  return {static_cast<float>(quadrant == 1 || quadrant == 2 ? -c : c),
          static_cast<float>(quadrant >= 2 ? -d : d)};
}

constexpr int kAngleThreads = 64;

LORAD_KERNEL(kAngleThreads, 8) void RopeAngles(RopeAnglesArgs args) {
  const int row = BlockX();
  const float position = static_cast<float>(args.positions[row]);
  float* angles = static_cast<float*>(args.angles.data) + size_t(row) * size_t(args.angles.stride);
  for (int f = Thread(); f < args.frequencies; f += kAngleThreads) {
    // Rounded to fp32 as in training: at long positions that rounding is part of the model.
    const CosSin value = CosSinOf(position * args.inv_freq[f]);
    angles[f] = value.cosine;
    angles[args.frequencies + f] = value.sine;
  }
}

// ---------------------------------------------------------------------------------------------
struct SwiGluArgs {
  TensorView gate_up;
  TensorView out;
};

LORAD_KERNEL(kThreads, 4) void SwiGlu(SwiGluArgs args) {
  const int row = BlockX();
  const int column = (BlockY() * kThreads + Thread()) * kOctet;
  if (column >= args.out.cols) return;
  Octet gate = LoadOctet(args.gate_up, row, column);
  const Octet up = LoadOctet(args.gate_up, row, args.out.cols + column, 2 * args.out.cols);
  for (int i = 0; i < kOctet; ++i) gate.v[i] = SwiGluOf(gate.v[i], up.v[i]);
  StoreOctet(args.out, row, column, gate);
}

// ---------------------------------------------------------------------------------------------
struct GatherRowsArgs {
  const int32_t* indices;
  TensorView x;
  TensorView out;
  int row_bytes;  // a multiple of 16
};

LORAD_KERNEL(kThreads, 4) void GatherRows(GatherRowsArgs args) {
  const size_t element = args.x.full ? sizeof(float) : sizeof(uint16_t);
  const auto* from = static_cast<const std::byte*>(args.x.data) +
                     size_t(args.indices[BlockX()]) * size_t(args.x.stride) * element;
  auto* to =
      static_cast<std::byte*>(args.out.data) + size_t(BlockX()) * size_t(args.out.stride) * element;
  for (int at = Thread() * 16; at < args.row_bytes; at += kThreads * 16) {
    Store16(to + at, Load16(from + at));
  }
}

// ---------------------------------------------------------------------------------------------
struct CopyRowArgs {
  TensorView x;
  int row;
  float* out;
};

LORAD_KERNEL(kThreads, 4) void CopyRow(CopyRowArgs args) {
  const int column = (BlockX() * kThreads + Thread()) * kOctet;
  if (column >= args.x.cols) return;
  const Octet octet = LoadOctet(args.x, args.row, column);
  for (int i = 0; i < kOctet && column + i < args.x.cols; ++i) args.out[column + i] = octet.v[i];
}

// ---------------------------------------------------------------------------------------------
struct CopyPagesArgs {
  std::byte* slab;
  size_t page_bytes;
  ListView<PageCopy> copies;
  int capacity;
};

constexpr int kCopyUnroll = 4;
constexpr int kCopyBytes = kThreads * 16 * kCopyUnroll;  // a block's share of a page

// Blocks take shares of pages in turn, as many as the list in device memory has.
LORAD_KERNEL(kThreads, 4) void CopyPages(CopyPagesArgs args) {
  const int count = *args.copies.count < args.capacity ? *args.copies.count : args.capacity;
  const int shares = static_cast<int>((args.page_bytes + kCopyBytes - 1) / kCopyBytes);
  for (long long work = BlockX(); work < static_cast<long long>(count) * shares;
       work += BlocksX()) {
    const PageCopy copy = args.copies.items[work / shares];
    const std::byte* from = args.slab + copy.from * args.page_bytes;
    std::byte* to = args.slab + copy.to * args.page_bytes;
    const size_t begin = size_t(work % shares) * kCopyBytes + size_t(Thread()) * 16;
    Vec4 lines[kCopyUnroll];
    for (int i = 0; i < kCopyUnroll; ++i) {
      const size_t at = begin + size_t(i) * kThreads * 16;
      if (at < args.page_bytes) lines[i] = Load16(from + at);
    }
    for (int i = 0; i < kCopyUnroll; ++i) {
      const size_t at = begin + size_t(i) * kThreads * 16;
      if (at < args.page_bytes) Store16(to + at, lines[i]);
    }
  }
}

const KernelRef kEmbed = MakeKernel("embed", &Embed, kThreads);
const KernelRef kRmsNorm = MakeKernel("rms_norm", &RmsNorm, kThreads);
const KernelRef kRopeAngles = MakeKernel("rope_angles", &RopeAngles, kAngleThreads);
const KernelRef kSwiGlu = MakeKernel("swiglu", &SwiGlu, kThreads);
const KernelRef kGatherRows = MakeKernel("gather_rows", &GatherRows, kThreads);
const KernelRef kCopyRow = MakeKernel("copy_row", &CopyRow, kThreads);
const KernelRef kCopyPages = MakeKernel("copy_pages", &CopyPages, kThreads);

// Blocks of kThreads octets that cover a row.
int OctetBlocks(int columns) { return (Octets(columns) + kThreads - 1) / kThreads; }

}  // namespace

void LaunchEmbed(Launcher& launch, int rows, const int32_t* ids, const int32_t* sampled,
                 const WeightsView& table, const TensorView& out) {
  launch(kEmbed, {.x = rows}, EmbedArgs{ids, sampled, table, out});
}

void LaunchRmsNorm(Launcher& launch, int rows, const TensorView& x, const float* weight, float eps,
                   const TensorView& y) {
  launch(kRmsNorm, {.x = rows}, RmsNormArgs{x, y, weight, eps});
}

void LaunchRopeAngles(Launcher& launch, int rows, const int32_t* positions, const float* inv_freq,
                      int frequencies, const TensorView& angles) {
  launch(kRopeAngles, {.x = rows}, RopeAnglesArgs{positions, inv_freq, frequencies, angles});
}

void LaunchSwiGlu(Launcher& launch, int rows, const TensorView& gate_up, const TensorView& out) {
  launch(kSwiGlu, {.x = rows, .y = OctetBlocks(out.cols)}, SwiGluArgs{gate_up, out});
}

void LaunchGatherRows(Launcher& launch, int rows, const int32_t* indices, const TensorView& x,
                      const TensorView& out) {
  const int row_bytes = Octets(x.cols) * kOctet * (x.full ? 4 : 2);
  launch(kGatherRows, {.x = rows}, GatherRowsArgs{indices, x, out, row_bytes});
}

void LaunchCopyRow(Launcher& launch, const TensorView& x, int row, float* out) {
  launch(kCopyRow, {.x = OctetBlocks(x.cols)}, CopyRowArgs{x, row, out});
}

void LaunchCopyPages(Launcher& launch, const DeviceFacts& device, std::byte* slab,
                     size_t page_bytes, ListView<PageCopy> copies, int capacity) {
  const size_t shares = (page_bytes + kCopyBytes - 1) / kCopyBytes;
  const size_t blocks = std::min(shares * size_t(capacity), 4 * size_t(device.multiprocessors));
  launch(kCopyPages, {.x = static_cast<int>(blocks)},
         CopyPagesArgs{slab, page_bytes, copies, capacity});
}

std::vector<KernelRef> RowKernels() {
  return {kEmbed, kRmsNorm, kRopeAngles, kSwiGlu, kGatherRows, kCopyRow, kCopyPages};
}

}  // namespace lorad::kernels::cuda
