// Few rows: a block has 8 to 32 outputs and all inputs, its eight warps a chunk of the inputs each;
// the chunks' sums meet in shared memory. Weights go straight from memory to registers, 64 bytes of
// eight matrix rows a load (dense_weights.h), several loads ahead; x comes from L1.
//
// Limit: memory bandwidth, each weight read once. In flight: 8 loads of 512 bytes a warp, 16 warps
// a multiprocessor, 64 KiB; what an H100 needs is about 25 GB/s x 0.8 us = 20 KiB. Next is L1:
// x costs 16 rows * 64 bytes for every block of 32 inputs, whatever the number of outputs, which is
// why int4 has 32 of them. Beyond 32 rows x would take more of L2's bandwidth than the weights do,
// and gemm_tiled.cu takes over.
#include <algorithm>
#include <array>

#include "kernels/cuda/dense_kernels.h"
#include "kernels/cuda/gpu.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kWarps = kMaxChunks;
constexpr int kThreads = kWarps * kWarp;

struct SkinnyArgs {
  int rows;
  const uint16_t* x;
  int x_stride;
  const std::byte* w;
  const float* group_scales;  // int4
  int inputs;                 // of a row of w, with padding
  Output out;
};

// The scales of int4 groups for a line of kTiles tiles of 8 rows: tile n's are in element n / 2,
// that of its row r and group j in lane 16 (n % 2) + 2 r + j.
template <int kTiles>
struct LineScales {
  float of_lane[(kTiles + 1) / 2] = {};

  LORAD_DEVICE float Of(int n, int row, int group) const {
    return Shuffle(of_lane[n / 2], n % 2 * 16 + 2 * row + group);
  }
};

template <int kTiles>
class ScaleReader {
 public:
  ScaleReader() = default;
  LORAD_DEVICE ScaleReader(const SkinnyArgs& args, int first_column)
      : groups_(args.inputs / kScaleInputs) {
    LORAD_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int row = Least(first_column + 16 * i + Lane() / 2, args.out.y.cols - 1);
      from_[i] = args.group_scales + size_t(row) * size_t(groups_);
    }
  }
  LORAD_DEVICE LineScales<kTiles> Load(int line) const {
    LineScales<kTiles> scales;
    LORAD_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      scales.of_lane[i] = from_[i][Least(2 * line + Lane() % 2, groups_ - 1)];
    }
    return scales;
  }

 private:
  static constexpr int kLoads = (kTiles + 1) / 2;
  const float* from_[kLoads];
  int groups_;
};

template <WeightFormat kFormat, int kRowTiles, int kTiles>
LORAD_KERNEL(kThreads, 2)
void Skinny(SkinnyArgs args) {
  constexpr bool kInt4 = kFormat == WeightFormat::kInt4;
  constexpr int kBlocks = LineInputs(kFormat) / kBlockInputs;  // a line
  constexpr int kDepth = 8 / kTiles;                           // lines ahead
  constexpr int kColumns = 8 * kTiles;
  constexpr int kRows = 16 * kRowTiles;
  LORAD_SHARED(float[kMaxChunks][kRows][kColumns + 4], chunk_sums);

  const int g = Lane() / 4, t = Lane() % 4;
  const int first_column = BlockX() * kColumns;
  const int chunk_inputs = ChunkInputs(args.inputs);
  const int begin = Warp() * chunk_inputs;
  const int chunks = Chunks(args.inputs);

  if (Warp() < chunks) {
    const int blocks = Least(chunk_inputs, args.inputs - begin) / kBlockInputs;
    const int lines = (blocks + kBlocks - 1) / kBlocks;
    const int first_line = begin / LineInputs(kFormat);
    // Rows that are not there are read as the last one; nobody stores what comes of them.
    const std::byte* w[kTiles];
    LORAD_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      const int column = Least(first_column + 8 * n + g, args.out.y.cols - 1);
      w[n] = args.w + size_t(column) * size_t(WeightRowBytes(kFormat, args.inputs)) +
             size_t(first_line) * kLineBytes + t * 16;
    }
    const uint16_t* x[kRowTiles][2];
    LORAD_UNROLL
    for (int i = 0; i < 2 * kRowTiles; ++i) {
      x[i / 2][i % 2] =
          args.x + size_t(Least(8 * i + g, args.rows - 1)) * size_t(args.x_stride) + begin + 8 * t;
    }
    ScaleReader<kTiles> scale_reader;
    if constexpr (kInt4) scale_reader = ScaleReader<kTiles>(args, first_column);

    Vec4 ahead[kDepth][kTiles];
    LineScales<kTiles> scales[kDepth];
    LORAD_UNROLL
    for (int d = 0; d < kDepth; ++d) {
      if (d >= lines) continue;
      LORAD_UNROLL
      for (int n = 0; n < kTiles; ++n) ahead[d][n] = LoadOnce16(w[n] + d * kLineBytes);
      if constexpr (kInt4) scales[d] = scale_reader.Load(first_line + d);
    }
    Vec4 next_x[kRowTiles][2];
    LORAD_UNROLL
    for (int i = 0; i < 2 * kRowTiles; ++i) next_x[i / 2][i % 2] = Load16(x[i / 2][i % 2]);

    float sums[kRowTiles][kTiles][4] = {};
    float group_sums[kRowTiles][kTiles][4] = {};
    for (int from = 0; from < lines; from += kDepth) {
      LORAD_UNROLL
      for (int d = 0; d < kDepth; ++d) {
        const int line = from + d;
        if (line >= lines) continue;
        LORAD_UNROLL
        for (int b = 0; b < kBlocks; ++b) {
          const int block = line * kBlocks + b;
          if (kInt4 && block >= blocks) continue;
          Vec4 now_x[kRowTiles][2];
          OctetBits weights[kTiles];
          LORAD_UNROLL
          for (int i = 0; i < 2 * kRowTiles; ++i) {
            now_x[i / 2][i % 2] = next_x[i / 2][i % 2];
            next_x[i / 2][i % 2] =
                Load16(x[i / 2][i % 2] + Least(block + 1, blocks - 1) * kBlockInputs);
          }
          LORAD_UNROLL
          for (int n = 0; n < kTiles; ++n) weights[n] = DecodeQuarter<kFormat>(ahead[d][n], b);
          LORAD_UNROLL
          for (int half = 0; half < 2; ++half) {
            LORAD_UNROLL
            for (int m = 0; m < kRowTiles; ++m) {
              LORAD_UNROLL
              for (int n = 0; n < kTiles; ++n) {
                MultiplyHalf(kInt4 ? group_sums[m][n] : sums[m][n], now_x[m][0], now_x[m][1],
                             weights[n], half);
              }
            }
          }
          if constexpr (kInt4) {
            if (b % 2 == 0) continue;
            LORAD_UNROLL
            for (int n = 0; n < kTiles; ++n) {
              float scale[2];
              LORAD_UNROLL
              for (int i = 0; i < 2; ++i) {
                scale[i] = scales[d].Of(n, 2 * t + i, b / 2);
              }
              LORAD_UNROLL
              for (int m = 0; m < kRowTiles; ++m) {
                LORAD_UNROLL
                for (int i = 0; i < 4; ++i) {
                  sums[m][n][i] = fmaf(group_sums[m][n][i], scale[i % 2], sums[m][n][i]);
                  group_sums[m][n][i] = 0;
                }
              }
            }
          }
        }
        if (line + kDepth >= lines) continue;
        LORAD_UNROLL
        for (int n = 0; n < kTiles; ++n) {
          ahead[d][n] = LoadOnce16(w[n] + (line + kDepth) * kLineBytes);
        }
        if constexpr (kInt4) scales[d] = scale_reader.Load(first_line + line + kDepth);
      }
    }

    LORAD_UNROLL
    for (int m = 0; m < kRowTiles; ++m) {
      LORAD_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        LORAD_UNROLL
        for (int i = 0; i < 4; ++i) {
          chunk_sums[Warp()][16 * m + g + i / 2 * 8][8 * n + 2 * t + i % 2] = sums[m][n][i];
        }
      }
    }
  }
  SyncBlock();

  const int row = Thread() / kTiles;
  const int column = Thread() % kTiles * 8;
  if (row >= Least(kRows, args.rows) || first_column + column >= args.out.y.cols) return;
  Octet total = {};
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const float* from = &chunk_sums[chunk][row][column];
    const Octet octet = OctetOfFloats(Load16(from), Load16(from + 4));
    for (int i = 0; i < kOctet; ++i) total.v[i] += octet.v[i];
  }
  StoreSums(args.out, row, first_column + column, total);
}

// ---------------------------------------------------------------------------------------------
struct SkinnyKernel {
  KernelRef kernel;
  int columns = 0;  // a block
};
struct SkinnyChoice {
  SkinnyKernel wide;    // 16 rows
  SkinnyKernel narrow;  // 16 rows, for matrices with few outputs
  SkinnyKernel tall;    // 32 rows
};

template <WeightFormat kFormat, int kRowTiles, int kTiles>
SkinnyKernel KernelOf(const char* name) {
  return {MakeKernel(name, &Skinny<kFormat, kRowTiles, kTiles>, kThreads), 8 * kTiles};
}

// By WeightFormat.
const std::array<SkinnyChoice, 4> kSkinny = {
    SkinnyChoice{KernelOf<WeightFormat::kBf16, 1, 2>("gemm_skinny_bf16_16x16"),
                 KernelOf<WeightFormat::kBf16, 1, 1>("gemm_skinny_bf16_16x8"),
                 KernelOf<WeightFormat::kBf16, 2, 2>("gemm_skinny_bf16_32x16")},
    SkinnyChoice{KernelOf<WeightFormat::kInt8, 1, 2>("gemm_skinny_int8_16x16"),
                 KernelOf<WeightFormat::kInt8, 1, 1>("gemm_skinny_int8_16x8"),
                 KernelOf<WeightFormat::kInt8, 2, 2>("gemm_skinny_int8_32x16")},
    SkinnyChoice{KernelOf<WeightFormat::kInt4, 1, 4>("gemm_skinny_int4_16x32"),
                 KernelOf<WeightFormat::kInt4, 1, 2>("gemm_skinny_int4_16x16"),
                 KernelOf<WeightFormat::kInt4, 2, 2>("gemm_skinny_int4_32x16")},
    SkinnyChoice{KernelOf<WeightFormat::kFp8, 1, 2>("gemm_skinny_fp8_16x16"),
                 KernelOf<WeightFormat::kFp8, 1, 1>("gemm_skinny_fp8_16x8"),
                 KernelOf<WeightFormat::kFp8, 2, 2>("gemm_skinny_fp8_32x16")},
};

}  // namespace

void LaunchSkinnyGemm(Launcher& launch, const DeviceFacts& device, const GemmParams& params) {
  LORAD_CHECK(params.rows <= kSkinnyRows);
  const SkinnyChoice& choice = kSkinny[static_cast<size_t>(params.w.format)];
  const auto blocks = [&](const SkinnyKernel& kernel) {
    return (params.w.rows + kernel.columns - 1) / kernel.columns;
  };
  const bool few_blocks = 4 * blocks(choice.wide) < 3 * device.multiprocessors;
  const SkinnyKernel& kernel = params.rows > 16 ? choice.tall
                               : few_blocks     ? choice.narrow
                                                : choice.wide;
  launch(kernel.kernel, {.x = blocks(kernel)},
         SkinnyArgs{.rows = params.rows,
                    .x = static_cast<const uint16_t*>(params.x.data),
                    .x_stride = params.x.stride,
                    .w = static_cast<const std::byte*>(params.w.data),
                    .group_scales = params.w.scales,
                    .inputs = params.w.stride,
                    .out = OutputOf(params)});
}

std::vector<KernelRef> SkinnyKernels() {
  std::vector<KernelRef> kernels;
  for (const SkinnyChoice& choice : kSkinny) {
    for (const SkinnyKernel& k : {choice.wide, choice.narrow, choice.tall}) {
      kernels.push_back(k.kernel);
    }
  }
  return kernels;
}

}  // namespace lorad::kernels::cuda
