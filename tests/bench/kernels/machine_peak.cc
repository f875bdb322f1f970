#include "tests/bench/kernels/machine_peak.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "kernels/cpu/cpu_features.h"

namespace lorad::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kBufferBytes = size_t{192} << 20;  // of each thread

// Seconds of the fastest slice in which every thread runs `work(thread)` once, by the threads' own
// clocks: the thread that starts them may itself be late.
double BestSlice(int threads, int slices, const std::function<void(int)>& work) {
  std::atomic<int> arrived = 0;  // spun on: a thread that sleeps at a barrier starts late
  std::vector<std::array<Clock::time_point, 2>> spans(static_cast<size_t>(threads) * slices);
  {
    std::vector<std::jthread> pool;
    for (int t = 0; t < threads; ++t) {
      pool.emplace_back([&, t] {
        for (int s = 0; s < slices; ++s) {
          arrived.fetch_add(1);
          while (arrived.load() < threads * (s + 1)) continue;
          auto& span = spans[static_cast<size_t>(s * threads + t)];
          span[0] = Clock::now();
          work(t);
          span[1] = Clock::now();
        }
      });
    }
  }
  double best = 1e9;
  for (int s = 0; s < slices; ++s) {
    auto first = spans[static_cast<size_t>(s * threads)];
    for (int t = 1; t < threads; ++t) {
      const auto& span = spans[static_cast<size_t>(s * threads + t)];
      first[0] = std::min(first[0], span[0]);
      first[1] = std::max(first[1], span[1]);
    }
    best = std::min(best, std::chrono::duration<double>(first[1] - first[0]).count());
  }
  return best;
}

volatile uint64_t sink;

void ReadAll(const std::byte* data, size_t bytes) {
  using Word = uint64_t __attribute__((vector_size(32), aligned(32)));
  const auto* words = reinterpret_cast<const Word*>(data);
  Word a{}, b{}, c{}, d{};
  for (size_t i = 0; i < bytes / sizeof(Word); i += 4) {
    a |= words[i];
    b |= words[i + 1];
    c |= words[i + 2];
    d |= words[i + 3];
  }
  const Word all = a | b | c | d;
  sink = all[0] ^ all[1] ^ all[2] ^ all[3];
}

constexpr int kChains = 12;     // independent, more than any latency times rate
constexpr int kRounds = 20000;  // some 65 us: less than a scheduler's slice

// One instruction on twelve accumulators, in assembly: a compiler would spill or drop them.
#define LORAD_TWELVE(op, r)                                                                        \
  op r "30," r "31," r "0\n" op r "30," r "31," r "1\n" op r "30," r "31," r "2\n" op r "30," r    \
       "31," r "3\n" op r "30," r "31," r "4\n" op r "30," r "31," r "5\n" op r "30," r "31," r    \
       "6\n" op r "30," r "31," r "7\n" op r "30," r "31," r "8\n" op r "30," r "31," r "9\n" op r \
       "30," r "31," r "10\n" op r "30," r "31," r "11\n"
#define LORAD_CLOBBER \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"

void DotChains() {
  for (int i = 0; i < kRounds; ++i) {
    asm volatile(LORAD_TWELVE("vdpbf16ps ", "%%zmm")::: LORAD_CLOBBER);
  }
}

void FmaChains512() {
  for (int i = 0; i < kRounds; ++i) {
    asm volatile(LORAD_TWELVE("vfmadd231ps ", "%%zmm")::: LORAD_CLOBBER);
  }
}

void FmaChains256() {
  for (int i = 0; i < kRounds; ++i) {
    asm volatile(
        "vfmadd231ps %%ymm15,%%ymm14,%%ymm0\nvfmadd231ps %%ymm15,%%ymm14,%%ymm1\n"
        "vfmadd231ps %%ymm15,%%ymm14,%%ymm2\nvfmadd231ps %%ymm15,%%ymm14,%%ymm3\n"
        "vfmadd231ps %%ymm15,%%ymm14,%%ymm4\nvfmadd231ps %%ymm15,%%ymm14,%%ymm5\n"
        "vfmadd231ps %%ymm15,%%ymm14,%%ymm6\nvfmadd231ps %%ymm15,%%ymm14,%%ymm7\n"
        "vfmadd231ps %%ymm15,%%ymm14,%%ymm8\nvfmadd231ps %%ymm15,%%ymm14,%%ymm9\n"
        "vfmadd231ps %%ymm15,%%ymm14,%%ymm10\nvfmadd231ps %%ymm15,%%ymm14,%%ymm11\n" ::
            : LORAD_CLOBBER);
  }
}

void MulAddChains128() {
  for (int i = 0; i < kRounds; ++i) {
    asm volatile(
        "mulps %%xmm15,%%xmm0\naddps %%xmm15,%%xmm1\nmulps %%xmm15,%%xmm2\naddps %%xmm15,%%xmm3\n"
        "mulps %%xmm15,%%xmm4\naddps %%xmm15,%%xmm5\nmulps %%xmm15,%%xmm6\naddps %%xmm15,%%xmm7\n"
        "mulps %%xmm15,%%xmm8\naddps %%xmm15,%%xmm9\nmulps %%xmm15,%%xmm10\naddps "
        "%%xmm15,%%xmm11\n" ::
            : LORAD_CLOBBER);
  }
}

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

__attribute__((target("amx-tile,amx-bf16"))) void TileChains() {
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    config.row_bytes[t] = 64;
    config.rows[t] = 16;
  }
  asm volatile("ldtilecfg (%0)" ::"r"(&config) : "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (int i = 0; i < kRounds / 10; ++i) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_release();
}

double Gflops(int threads, double flops_per_thread, void (*work)()) {
  return threads * flops_per_thread / BestSlice(threads, 400, [work](int) { work(); }) * 1e-9;
}

double ReadBandwidth(int threads) {
  std::vector<std::byte*> buffers;
  for (int t = 0; t < threads; ++t) {
    void* p =
        mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return 0;
    madvise(p, kBufferBytes, MADV_HUGEPAGE);
    std::memset(p, 1, kBufferBytes);
    buffers.push_back(static_cast<std::byte*>(p));
  }
  constexpr size_t kSliceBytes = size_t{4} << 20;
  std::vector<size_t> offsets(static_cast<size_t>(threads));
  const double seconds = BestSlice(threads, 200, [&](int t) {
    size_t& offset = offsets[static_cast<size_t>(t)];
    ReadAll(buffers[static_cast<size_t>(t)] + offset, kSliceBytes);
    offset = (offset + kSliceBytes) % kBufferBytes;
  });
  for (std::byte* p : buffers) munmap(p, kBufferBytes);
  return threads * static_cast<double>(kSliceBytes) / seconds * 1e-9;
}

}  // namespace

double MachinePeak::GflopsOf(std::string_view backend_name) const {
  if (backend_name.ends_with("amx")) return amx_gflop_per_s;
  if (backend_name.ends_with("avx512bf16")) return bf16_dot_gflop_per_s;
  return fp32_gflop_per_s;
}

MachinePeak MeasureMachinePeak(int threads) {
  const kernels::cpu::CpuFeatures features = kernels::cpu::DetectCpuFeatures();
  constexpr double kSteps = double{kRounds} * kChains;
  MachinePeak peak;
  peak.read_gb_per_s = ReadBandwidth(threads);
  if (features.avx512) {
    peak.fp32_gflop_per_s = Gflops(threads, kSteps * 32, FmaChains512);
  } else if (features.avx2) {
    peak.fp32_gflop_per_s = Gflops(threads, kSteps * 16, FmaChains256);
  } else {
    peak.fp32_gflop_per_s = Gflops(threads, kSteps * 4, MulAddChains128);
  }
  if (features.avx512bf16) peak.bf16_dot_gflop_per_s = Gflops(threads, kSteps * 64, DotChains);
  if (features.amx_bf16) {
    peak.amx_gflop_per_s = Gflops(threads, double{kRounds / 10} * 4 * 16 * 16 * 32 * 2, TileChains);
  }
  return peak;
}

}  // namespace lorad::bench
