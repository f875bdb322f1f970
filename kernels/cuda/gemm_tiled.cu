// Many rows: a block has a tile of 64 or 128 rows by 128 outputs. x and the weights, as they are
// stored, pass through a ring of stages in shared memory; a warp multiplies 32 rows by 32 outputs.
// Low-precision weights are decoded on the way from shared memory to registers. A stage keeps
// 64-byte rows side by side, so that the fragments of 16 bytes a lane are read without bank
// conflicts.
//
// A chunk's sums are in registers, the totals of the chunks in shared memory, which sees them once
// in every eighth of the inputs. Where tiles are too few for the device, the chunks are spread over
// blocks as well; their sums then lie in the workspace, and a second kernel adds them in order.
//
// Limit at 33 to about 250 rows: memory bandwidth. Weights in flight on a multiprocessor with tiles
// of 64 rows: bf16 two blocks, 2 stages of 16 KiB each, 64 KiB; int8, fp8 two blocks, 3 stages of
// 8 KiB, 48 KiB; int4 one block (registers), 4 stages of 8 KiB, 32 KiB, and there the products and
// shared memory's bandwidth take about 1.5 times as long as the weights. Beyond: L2, which must
// give 32 bytes (tiles of 128 rows, bf16) for each 1024 products, and mma.sync itself.
#include <algorithm>
#include <array>

#include "kernels/cuda/dense_kernels.h"
#include "kernels/cuda/gpu.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kColumns = 128;  // of a tile
constexpr int kWarpColumns = 32;
constexpr int kTiles = kWarpColumns / 8;  // of 8 outputs, a warp
constexpr int kWarpRows = 32;
constexpr int kRowTiles = kWarpRows / 16;

// The shapes that follow from a weight format and the rows of a tile.
template <WeightFormat kFormat, int kRows>
struct Shape {
  static constexpr bool kInt4 = kFormat == WeightFormat::kInt4;
  static constexpr int kInputs = kInt4 ? 128 : 64;  // of a stage
  static constexpr int kBlocks = kInputs / kBlockInputs;
  static constexpr int kLines = kInputs / LineInputs(kFormat);
  static constexpr int kLineBlocks = kBlocks / kLines;
  static constexpr int kXBytes = kBlocks * kRows * kLineBytes;
  static constexpr int kStageBytes = kXBytes + kLines * kColumns * kLineBytes;
  static constexpr int kStages = kInt4 ? 5 : kFormat == WeightFormat::kBf16 ? 3 : 4;
  static constexpr int kThreads = kRows / kWarpRows * (kColumns / kWarpColumns) * kWarp;
  static constexpr int kTotalBytes = kRows * kColumns * 4;
  static constexpr int kScaleBytes = kInt4 ? 4 * 4 * kColumns : 0;
  static constexpr int kSharedBytes = kStages * kStageBytes + kTotalBytes + kScaleBytes;
  static constexpr int kMinBlocks = kRows == 64 && !kInt4 ? 2 : 1;
};

struct TiledArgs {
  int rows;
  const uint16_t* x;
  int x_stride;
  const std::byte* w;
  const float* group_scales;  // int4
  int inputs;                 // of a row of w, with padding
  int row_tiles;
  int chunks_per_block;
  float* partial;  // [chunks][rows][partial_stride] where chunks are spread, or null
  int partial_stride;
  Output out;
};

// A stage holds rows of 64-byte lines: line l of row r starts at LineAt(l, r, rows).
LORAD_DEVICE constexpr int LineAt(int line, int row, int rows) {
  return (line * rows + row) * kLineBytes;
}

// Copies kLines lines of each of kRows rows into a stage. Four threads have a row, 16 bytes of each
// of its lines a thread.
template <int kRows, int kLines, int kThreads>
class RowCopier {
 public:
  // `from`: the first row. Rows beyond the `rows` that there are, are read as the last.
  LORAD_DEVICE RowCopier(const std::byte* from, int row_bytes, int rows) : from_(from) {
    const int row = Least(Thread() / 4, rows - 1);
    at_ = row * row_bytes + Thread() % 4 * 16;
    next_ = (Least(row + kThreads / 4, rows - 1) - row) * row_bytes;
  }
  // `to`: where this thread's first 16 bytes go. Where a row of int4 ends half-way in a stage, that
  // half is read twice, and nobody uses the second.
  LORAD_DEVICE void Copy(std::byte* to, int lines) {
    LORAD_UNROLL
    for (int line = 0; line < kLines; ++line) {
      const int there = 2 * line >= kLines && lines < kLines ? line - kLines / 2 : line;
      const std::byte* const from = from_ + at_ + there * kLineBytes;
      CopyAsync16(to + LineAt(line, 0, kRows), from);
      if (4 * kRows > kThreads) CopyAsync16(to + LineAt(line, kThreads / 4, kRows), from + next_);
    }
    at_ += kLines * kLineBytes;
  }

 private:
  static_assert(4 * kRows == kThreads || 4 * kRows == 2 * kThreads);
  const std::byte* from_;
  int at_;    // bytes to this thread's first row and on
  int next_;  // bytes from there to its second row
};

// Sums of a warp: of its row tiles by its column tiles.
struct Sums {
  float v[kRowTiles][kTiles][4] = {};
};

// Outputs of a warp are dealt to products so that a lane ends up with eight neighbours: output
// 8 (c / 2) + 2 n + c % 2 is column c of product n, and a lane has columns 2t and 2t + 1.
LORAD_DEVICE int OutputOfColumn(int n, int c) { return 8 * (c / 2) + 2 * n + c % 2; }

LORAD_DEVICE Octet OctetOfSums(const Sums& sums, int m, int upper) {
  Octet octet;
  LORAD_UNROLL
  for (int i = 0; i < kOctet; ++i) octet.v[i] = sums.v[m][i / 2][2 * upper + i % 2];
  return octet;
}

// The scales of int4 groups on their way to shared memory, one for each thread: two groups of each
// output for a stage, in two places that take turns.
class ScaleCopier {
 public:
  static constexpr int kPlaceFloats = 2 * kColumns;

  ScaleCopier() = default;
  // `first_input`: of the first stage.
  LORAD_DEVICE ScaleCopier(const TiledArgs& args, int first_column, int first_input)
      : groups_(args.inputs / kScaleInputs),
        from_(args.group_scales + int64_t{first_column} * groups_),
        at_(Least(Thread() % kColumns, args.out.y.cols - first_column - 1) * groups_) {
    Load(first_input);
  }
  // Puts a stage's scales where they belong, and loads those of the next, from `next_input` on.
  LORAD_DEVICE void Put(float* to, int next_input) {
    to[Thread()] = scale_;
    Load(next_input);
  }

 private:
  LORAD_DEVICE void Load(int input) {
    scale_ = from_[at_ + Least(input / kScaleInputs + Thread() / kColumns, groups_ - 1)];
  }
  int groups_ = 0;
  const float* from_ = nullptr;
  int at_ = 0;
  float scale_ = 0;
};

// Adds the sums of an int4 group, of one row tile. `scales`: of the lane's first output.
LORAD_DEVICE void AddGroup(float (&sums)[kTiles][4], const float (&group_sums)[kTiles][4],
                           const float* scales) {
  const Octet octet = OctetOfFloats(Load16(scales), Load16(scales + 4));
  LORAD_UNROLL
  for (int n = 0; n < kTiles; ++n) {
    LORAD_UNROLL
    for (int i = 0; i < 4; ++i) {
      sums[n][i] = fmaf(group_sums[n][i], octet.v[2 * n + i % 2], sums[n][i]);
    }
  }
}

// Totals of the chunks so far, in shared memory, where they cost no registers: `totals` is this
// thread's first, the next lies `stride` further.
LORAD_DEVICE void AddSums(float* totals, int stride, const Sums& sums, bool first) {
  LORAD_UNROLL
  for (int m = 0; m < kRowTiles; ++m) {
    LORAD_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      LORAD_UNROLL
      for (int i = 0; i < 4; ++i, totals += stride) {
        *totals = (first ? 0.0f : *totals) + sums.v[m][n][i];
      }
    }
  }
}
LORAD_DEVICE Sums LoadSums(const float* totals, int stride) {
  Sums sums;
  LORAD_UNROLL
  for (int m = 0; m < kRowTiles; ++m) {
    LORAD_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      LORAD_UNROLL
      for (int i = 0; i < 4; ++i, totals += stride) sums.v[m][n][i] = *totals;
    }
  }
  return sums;
}

// `row`, `column`: the warp's first.
LORAD_DEVICE void StorePartial(const TiledArgs& args, int chunk, int row, int column,
                               const Sums& sums) {
  column += Lane() % 4 * kOctet;
  if (column >= args.partial_stride) return;
  row += Lane() / 4;
  float* to = args.partial + (int64_t{chunk} * args.rows + row) * args.partial_stride + column;
  LORAD_UNROLL
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    if (row + 8 * i < args.rows) {
      const Octet octet = OctetOfSums(sums, i / 2, i % 2);
      for (int j = 0; j < kOctet; j += 4) {
        Store16(to + j, {FloatToBits(octet.v[j]), FloatToBits(octet.v[j + 1]),
                         FloatToBits(octet.v[j + 2]), FloatToBits(octet.v[j + 3])});
      }
    }
    to += 8 * args.partial_stride;
  }
}

// The products of kBlocks blocks with kTiles tiles of outputs and one tile of 16 rows. `x`: where
// this lane's quarter of the first row is in the stage.
template <int kRows, int kBlocks>
LORAD_DEVICE void MultiplyBlocks(float (&sums)[kTiles][4], const std::byte* x,
                                 const OctetBits (&weights)[kBlocks][kTiles]) {
  LORAD_UNROLL
  for (int b = 0; b < kBlocks; ++b) {
    const Vec4 x0 = Load16(x + LineAt(b, 0, kRows));
    const Vec4 x8 = Load16(x + LineAt(b, 8, kRows));
    LORAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      LORAD_UNROLL
      for (int n = 0; n < kTiles; ++n) MultiplyHalf(sums[n], x0, x8, weights[b][n], half);
    }
  }
}

// Adds a stage's products to the sums of a warp. `x` and `w`: where this lane's quarter of the
// warp's first row is in the stage. `scales`: of int4, of the lane's first output. `blocks`: how
// many of the stage's there are.
template <WeightFormat kFormat, int kRows>
LORAD_DEVICE void MultiplyStage(Sums& sums, const std::byte* x, const std::byte* w,
                                const float* scales, int blocks) {
  using S = Shape<kFormat, kRows>;
  // What one load of weights holds: a line, of int4 half of one, which is a group.
  constexpr int kSpanBlocks = S::kInt4 ? 2 : S::kLineBlocks;
  constexpr int kSpans = S::kBlocks / kSpanBlocks;
  LORAD_UNROLL
  for (int span = 0; span < kSpans; ++span) {
    if (S::kInt4 && span * kSpanBlocks >= blocks) break;
    OctetBits weights[kSpanBlocks][kTiles];
    LORAD_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      Vec4 quarter;
      if constexpr (S::kInt4) {
        const Vec2 half = Load8(w + LineAt(0, 2 * n, kColumns) + span * 8);
        quarter = {half.x, half.y, 0, 0};
      } else {
        quarter = Load16(w + LineAt(span, 2 * n, kColumns));
      }
      LORAD_UNROLL
      for (int b = 0; b < kSpanBlocks; ++b) weights[b][n] = DecodeQuarter<kFormat>(quarter, b);
    }
    LORAD_UNROLL
    for (int m = 0; m < kRowTiles; ++m) {
      const std::byte* const from = x + LineAt(span * kSpanBlocks, 16 * m, kRows);
      if constexpr (S::kInt4) {
        float group_sums[kTiles][4] = {};
        MultiplyBlocks<kRows>(group_sums, from, weights);
        AddGroup(sums.v[m], group_sums, scales + span * kColumns);
      } else {
        MultiplyBlocks<kRows>(sums.v[m], from, weights);
      }
    }
  }
}

template <WeightFormat kFormat, int kRows>
LORAD_KERNEL((Shape<kFormat, kRows>::kThreads), (Shape<kFormat, kRows>::kMinBlocks))
void Tiled(TiledArgs args) {
  using S = Shape<kFormat, kRows>;
  std::byte* const shared = DynamicShared();
  const int g = Lane() / 4, t = Lane() % 4;
  const int first_row = BlockX() % args.row_tiles * kRows;
  const int first_column = BlockY() * kColumns;
  const int warp_row = Warp() / 4 * kWarpRows;
  const int warp_column = Warp() % 4 * kWarpColumns;
  const int chunk_inputs = ChunkInputs(args.inputs);
  const int first_chunk = BlockX() / args.row_tiles * args.chunks_per_block;
  const int begin = first_chunk * chunk_inputs;
  const int end = Least(begin + args.chunks_per_block * chunk_inputs, args.inputs);

  const int x_bytes = args.x_stride * 2;
  const int w_bytes = static_cast<int>(WeightRowBytes(kFormat, args.inputs));
  RowCopier<kRows, S::kBlocks, S::kThreads> x_copier(
      reinterpret_cast<const std::byte*>(args.x + begin) + int64_t{first_row} * x_bytes, x_bytes,
      args.rows - first_row);
  RowCopier<kColumns, S::kLines, S::kThreads> w_copier(
      args.w + begin / LineInputs(kFormat) * kLineBytes + int64_t{first_column} * w_bytes, w_bytes,
      args.out.y.cols - first_column);
  // The stage that holds these inputs.
  const auto stage = [&](int input) {
    return shared + input / S::kInputs % S::kStages * S::kStageBytes;
  };
  const auto copy = [&](int input) {
    if (input < end) {
      std::byte* const to = stage(input) + Thread() * 16;
      x_copier.Copy(to, S::kInt4 ? (end - input) / kBlockInputs : S::kBlocks);
      w_copier.Copy(to + S::kXBytes, S::kLines);
    }
    CopyAsyncCommit();  // an empty group, too, keeps the count
  };
  LORAD_UNROLL
  for (int i = 0; i < S::kStages - 1; ++i) copy(begin + i * S::kInputs);

  const int x_at = LineAt(0, warp_row + g, kRows) + t * 16;
  const int w_at = S::kXBytes + LineAt(0, warp_column + OutputOfColumn(0, g), kColumns) + t * 16;
  // After the stages: totals, then scales.
  float* const totals = reinterpret_cast<float*>(shared + S::kStages * S::kStageBytes) + Thread();
  float* const scales =
      reinterpret_cast<float*>(shared + S::kStages * S::kStageBytes + S::kTotalBytes);
  const auto scales_of = [&](int input) {
    return scales + input / S::kInputs % 2 * ScaleCopier::kPlaceFloats;
  };
  ScaleCopier scale_copier;
  if constexpr (S::kInt4) {
    static_assert(S::kThreads == ScaleCopier::kPlaceFloats);
    scale_copier = ScaleCopier(args, first_column, begin);
    scale_copier.Put(scales_of(begin), begin + S::kInputs);
  }
  int input = begin;
  for (int chunk = first_chunk; input < end; ++chunk) {
    Sums sums;
    const int chunk_end = Least(input + chunk_inputs, end);
    for (; input < chunk_end; input += S::kInputs) {
      CopyAsyncWait<S::kStages - 2>();
      SyncBlock();  // this stage is there, and all are done with the one that is filled next
      copy(input + (S::kStages - 1) * S::kInputs);
      if constexpr (S::kInt4) {
        scale_copier.Put(scales_of(input + S::kInputs), input + 2 * S::kInputs);
      }
      const std::byte* const from = stage(input);
      MultiplyStage<kFormat, kRows>(sums, from + x_at, from + w_at,
                                    scales_of(input) + warp_column + 8 * t,
                                    (chunk_end - input) / kBlockInputs);
    }
    if (args.partial != nullptr) {
      StorePartial(args, chunk, first_row + warp_row, first_column + warp_column, sums);
    } else {
      AddSums(totals, S::kThreads, sums, chunk == first_chunk);
    }
  }
  CopyAsyncWait<0>();
  const int column = first_column + warp_column + 8 * t;
  if (args.partial != nullptr || column >= args.out.y.cols) return;
  const Sums total = LoadSums(totals, S::kThreads);
  LORAD_UNROLL
  for (int i = 0; i < 2 * kRowTiles; ++i) {
    const int row = first_row + warp_row + 8 * i + g;
    if (row < args.rows) StoreSums(args.out, row, column, OctetOfSums(total, i / 2, i % 2));
  }
}

// ---------------------------------------------------------------------------------------------
// Adds the chunks' sums; a thread has eight columns of a row. Limit: L2 bandwidth, 32 bytes a
// chunk and thread, all loads independent.
constexpr int kAddThreads = 256;

struct AddChunksArgs {
  int rows;
  int chunks;
  const float* partial;
  int partial_stride;
  Output out;
};

LORAD_KERNEL(kAddThreads, 4) void AddChunks(AddChunksArgs args) {
  const int octets = Octets(args.out.y.cols);
  const int64_t at = int64_t{BlockX()} * kAddThreads + Thread();
  if (at >= int64_t{args.rows} * octets) return;
  const int row = static_cast<int>(at / octets);
  const int column = static_cast<int>(at % octets) * kOctet;
  const int64_t chunk_floats = int64_t{args.rows} * args.partial_stride;
  const float* from = args.partial + int64_t{row} * args.partial_stride + column;
  Octet total = {};
  LORAD_UNROLL
  for (int chunk = 0; chunk < kMaxChunks; ++chunk, from += chunk_floats) {
    if (chunk >= args.chunks) continue;
    const Octet octet = OctetOfFloats(Load16(from), Load16(from + 4));
    for (int i = 0; i < kOctet; ++i) total.v[i] += octet.v[i];
  }
  StoreSums(args.out, row, column, total);
}

const KernelRef kAddChunks = MakeKernel("gemm_add_chunks", &AddChunks, kAddThreads);

// ---------------------------------------------------------------------------------------------
struct TiledKernel {
  KernelRef kernel;
  int rows = 0;  // of a tile
  size_t shared_bytes = 0;
  int blocks = 0;  // that a multiprocessor holds
};

template <WeightFormat kFormat, int kRows>
TiledKernel KernelOf(const char* name) {
  using S = Shape<kFormat, kRows>;
  return {MakeKernel(name, &Tiled<kFormat, kRows>, S::kThreads), kRows, size_t{S::kSharedBytes},
          S::kMinBlocks};
}

// By WeightFormat: tiles of 64 rows and tiles of 128. For int4, which keeps a third set of sums,
// these would not fit the registers.
const std::array<std::array<TiledKernel, 2>, 4> kTiled = {{
    {KernelOf<WeightFormat::kBf16, 64>("gemm_tiled_bf16_64"),
     KernelOf<WeightFormat::kBf16, 128>("gemm_tiled_bf16_128")},
    {KernelOf<WeightFormat::kInt8, 64>("gemm_tiled_int8_64"),
     KernelOf<WeightFormat::kInt8, 128>("gemm_tiled_int8_128")},
    {KernelOf<WeightFormat::kInt4, 64>("gemm_tiled_int4_64"), {}},
    {KernelOf<WeightFormat::kFp8, 64>("gemm_tiled_fp8_64"),
     KernelOf<WeightFormat::kFp8, 128>("gemm_tiled_fp8_128")},
}};

struct Plan {
  const TiledKernel* kernel = nullptr;
  int row_tiles = 0;
  int column_tiles = 0;
  int chunks_per_block = 0;
  int splits = 0;  // blocks that share a tile
};

Plan PlanOf(const DeviceFacts& device, int rows, const WeightsView& w) {
  const auto& kernels = kTiled[static_cast<size_t>(w.format)];
  const int small_tiles = (rows + 63) / 64;
  // Large tiles, unless a good part of the last one would be idle.
  const bool large = kernels[1].rows != 0 && (small_tiles > 8 || small_tiles % 2 == 0);
  Plan plan;
  plan.kernel = &kernels[large ? 1 : 0];
  plan.row_tiles = (rows + plan.kernel->rows - 1) / plan.kernel->rows;
  plan.column_tiles = (w.rows + kColumns - 1) / kColumns;
  // Two thirds of the blocks that the device holds are enough to keep its memory busy.
  const int64_t enough = int64_t{2} * plan.kernel->blocks * device.multiprocessors / 3;
  const int chunks = Chunks(w.stride);
  plan.chunks_per_block = chunks;
  while (plan.chunks_per_block > 1 &&
         int64_t{plan.row_tiles} * plan.column_tiles *
                 ((chunks + plan.chunks_per_block - 1) / plan.chunks_per_block) <
             enough) {
    plan.chunks_per_block = (plan.chunks_per_block + 1) / 2;
  }
  plan.splits = (chunks + plan.chunks_per_block - 1) / plan.chunks_per_block;
  return plan;
}

}  // namespace

size_t TiledGemmWorkspaceBytes(const DeviceFacts& device, int rows, const WeightsView& w) {
  if (PlanOf(device, rows, w).splits == 1) return 0;
  return sizeof(float) * size_t(Chunks(w.stride)) * size_t(rows) * size_t(PaddedColumns(w.rows));
}

void LaunchTiledGemm(Launcher& launch, const DeviceFacts& device, const GemmParams& params) {
  const Plan plan = PlanOf(device, params.rows, params.w);
  const int partial_stride = PaddedColumns(params.w.rows);
  float* const partial = plan.splits > 1 ? static_cast<float*>(params.workspace) : nullptr;
  LORAD_CHECK(plan.splits == 1 || partial != nullptr);
  const Output out = OutputOf(params);
  launch(plan.kernel->kernel,
         {.x = plan.row_tiles * plan.splits,
          .y = plan.column_tiles,
          .shared_bytes = plan.kernel->shared_bytes},
         TiledArgs{.rows = params.rows,
                   .x = static_cast<const uint16_t*>(params.x.data),
                   .x_stride = params.x.stride,
                   .w = static_cast<const std::byte*>(params.w.data),
                   .group_scales = params.w.scales,
                   .inputs = params.w.stride,
                   .row_tiles = plan.row_tiles,
                   .chunks_per_block = plan.chunks_per_block,
                   .partial = partial,
                   .partial_stride = partial_stride,
                   .out = out});
  if (partial == nullptr) return;
  const int64_t octets = int64_t{params.rows} * Octets(params.w.rows);
  launch(kAddChunks, {.x = static_cast<int>((octets + kAddThreads - 1) / kAddThreads)},
         AddChunksArgs{.rows = params.rows,
                       .chunks = Chunks(params.w.stride),
                       .partial = partial,
                       .partial_stride = partial_stride,
                       .out = out});
}

std::vector<KernelRef> TiledKernels() {
  std::vector<KernelRef> kernels = {kAddChunks};
  for (const auto& of_format : kTiled) {
    for (const TiledKernel& k : of_format) {
      if (k.rows != 0) kernels.push_back(k.kernel);
    }
  }
  return kernels;
}

}  // namespace lorad::kernels::cuda
