#include "kernels/cuda/gpu.h"
#include "tests/bench/cuda/calibration.h"
#include "tests/bench/cuda/values.h"

namespace lorad::bench {
namespace {

namespace gpu = lorad::kernels::cuda;

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;

int Blocks(const gpu::DeviceFacts& device) {
  return device.multiprocessors * kBlocksPerMultiprocessor;
}

LORAD_KERNEL(256, 4) void Fill(FillArgs args) {
  const int64_t count = args.rows * args.stride;
  const int64_t step = int64_t{gpu::BlocksX()} * kThreads;
  for (int64_t i = int64_t{gpu::BlockX()} * kThreads + gpu::Thread(); i < count; i += step) {
    const int64_t row = i / args.stride;
    const int64_t col = i % args.stride;
    const float value =
        col < args.cols ? ValueAt(args.seed, static_cast<uint64_t>(row * args.cols + col)) : 0.0f;
    if (args.full) {
      static_cast<float*>(args.data)[i] = value;
    } else {
      static_cast<uint16_t*>(args.data)[i] = gpu::ToBf16(value);
    }
  }
}

struct ReadArgs {
  const std::byte* data;
  size_t vectors;  // of 16 bytes
  uint32_t* sink;
};

// Four loads under way in each thread: 8 blocks of 256 threads keep 128 KiB a multiprocessor in
// flight, four times what latency times bandwidth asks for.
LORAD_KERNEL(256, 8) void Read(ReadArgs args) {
  constexpr int kUnroll = 4;
  const size_t step = size_t(gpu::BlocksX()) * kThreads;
  uint32_t seen = 0;
  size_t i = size_t(gpu::BlockX()) * kThreads + size_t(gpu::Thread());
  for (; i + (kUnroll - 1) * step < args.vectors; i += kUnroll * step) {
    gpu::Vec4 v[kUnroll];
    for (int j = 0; j < kUnroll; ++j) {
      v[j] = gpu::LoadOnce16(args.data + (i + size_t(j) * step) * 16);
    }
    for (int j = 0; j < kUnroll; ++j) seen |= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  for (; i < args.vectors; i += step) {
    const gpu::Vec4 v = gpu::LoadOnce16(args.data + i * 16);
    seen |= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (seen == 0x12345678u) *args.sink = seen;  // practically never, but the loads must happen
}

struct CopyArgs {
  const std::byte* from;
  std::byte* to;
  size_t vectors;
};

LORAD_KERNEL(256, 8) void Copy(CopyArgs args) {
  const size_t step = size_t(gpu::BlocksX()) * kThreads;
  for (size_t i = size_t(gpu::BlockX()) * kThreads + size_t(gpu::Thread()); i < args.vectors;
       i += step) {
    gpu::Store16(args.to + i * 16, gpu::LoadOnce16(args.from + i * 16));
  }
}

struct MultiplyArgs {
  int rounds;
  float* sink;
};

constexpr int kChains = 8;  // independent sums, so that no product waits for another

LORAD_KERNEL(256, 2) void Multiply(MultiplyArgs args) {
  float sums[kChains][4] = {};
  const uint32_t one = gpu::PackBf16(1.0f, 1.0f);
  const uint32_t a[4] = {one, one, one, one};
  for (int round = 0; round < args.rounds; ++round) {
    for (int c = 0; c < kChains; ++c) gpu::Mma16816(sums[c], a, one, one);
  }
  float total = 0;
  for (int c = 0; c < kChains; ++c) total += sums[c][0] + sums[c][1] + sums[c][2] + sums[c][3];
  if (gpu::Thread() == 0) args.sink[gpu::BlockX()] = total;
}

const gpu::KernelRef kFill = gpu::MakeKernel("bench_fill", &Fill, kThreads);
const gpu::KernelRef kRead = gpu::MakeKernel("bench_read", &Read, kThreads);
const gpu::KernelRef kCopy = gpu::MakeKernel("bench_copy", &Copy, kThreads);
const gpu::KernelRef kMultiply = gpu::MakeKernel("bench_multiply", &Multiply, kThreads);

}  // namespace

void LaunchFill(gpu::Launcher& launch, const gpu::DeviceFacts& device, const FillArgs& args) {
  launch(kFill, {.x = Blocks(device)}, args);
}

void LaunchRead(gpu::Launcher& launch, const gpu::DeviceFacts& device, const void* data,
                size_t bytes, uint32_t* sink) {
  launch(kRead, {.x = Blocks(device)},
         ReadArgs{static_cast<const std::byte*>(data), bytes / 16, sink});
}

void LaunchCopy(gpu::Launcher& launch, const gpu::DeviceFacts& device, const void* from, void* to,
                size_t bytes) {
  launch(kCopy, {.x = Blocks(device)},
         CopyArgs{static_cast<const std::byte*>(from), static_cast<std::byte*>(to), bytes / 16});
}

double LaunchMultiply(gpu::Launcher& launch, const gpu::DeviceFacts& device, int rounds,
                      float* sink) {
  const int blocks = device.multiprocessors * 2;
  launch(kMultiply, {.x = blocks}, MultiplyArgs{rounds, sink});
  return 2.0 * 16 * 8 * 16 * kChains * rounds * (kThreads / 32) * blocks;
}

}  // namespace lorad::bench
