// Adapters, rows and pages for the tests of the adapter ops, and steps over them on the emulator.
//
// Whatever a kernel need not read is NaN: pages of no image, what follows an image in its last
// page, scratch, items behind a list's end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/adapter_ops.h"

namespace lorad::kernels::cuda {

struct ModuleShape {
  uint32_t site = 0;
  uint32_t out_begin = 0;
  int rank = 8;
  int out_cols = 32;
  int d_in = 0;  // 0: the problem's inputs
  float scale = 1.0f;
};

// kGrid: small whole numbers, so that every sum of a product is exact whatever its order; the
// exact result is then the only right one. kNormal: sums round, so that their order shows.
enum class Numbers { kGrid, kNormal };

struct AdapterProblem {
  int inputs = 64;
  int outputs = 32;
  bool full = false;  // y in fp32
  std::vector<std::vector<ModuleShape>> adapters;
  uint32_t sites = 3;
  size_t page_bytes = 4096;
  Numbers numbers = Numbers::kGrid;
  DType dtype = DType::kF32;
  int multiprocessors = 2;
  uint64_t seed = 1;
};

// `rows` rows of a step with one adapter (-1: none). Row i of the step is input row first_input +
// i, whose x and y depend on nothing else.
struct Rows {
  int adapter = -1;
  int rows = 1;
  int first_input = 0;
  float weight = 1.0f;
};

class AdapterRig {
 public:
  explicit AdapterRig(const AdapterProblem& problem);

  struct Result {
    int stride = 0;
    std::vector<float> y;        // [rows, stride] after the step
    std::vector<uint32_t> bits;  // the same, as they lie in memory
    std::span<const uint32_t> Bits(int row) const {
      return std::span(bits).subspan(size_t(row) * size_t(stride), size_t(stride));
    }
  };
  // Shrink and expand of one site over y as it is before. The lists' memory is longer than their
  // counts say.
  Result Step(uint32_t site, std::span<const Rows> runs, uint64_t order_seed = 1) const;
  Result Step(uint32_t site, std::initializer_list<Rows> runs, uint64_t order_seed = 1) const {
    return Step(site, std::span(runs.begin(), runs.size()), order_seed);
  }
  // Then SwiGLU of y, which is gate and up: by itself, or fused with the expansion (y must then
  // stay as it is). Gives its result, none if it cannot be fused or y has changed.
  Result SwiGlu(uint32_t site, std::span<const Rows> runs, bool fused,
                uint64_t order_seed = 1) const;

  // y of one input row before a step, and x; padding zero.
  std::vector<float> Before(int input) const;
  std::vector<float> X(int input) const;
  // What exact arithmetic gives for a row, and the sum of the magnitudes of what is added to each
  // output.
  struct Exact {
    std::vector<double> y;
    std::vector<double> added;
  };
  Exact Expected(uint32_t site, int adapter, float weight, int input) const;

  const AdapterLayout& layout(int adapter) const { return adapters_[size_t(adapter)]->layout; }
  std::span<const uint32_t> pages(int adapter) const { return adapters_[size_t(adapter)]->pages; }

 private:
  struct Adapter {
    std::vector<std::vector<float>> a, b;  // of each module, as bf16 has them
    std::vector<std::vector<std::byte>> files;
    AdapterLayout layout;
    std::vector<uint32_t> pages;
  };
  struct Batch;  // a step in the device's memory
  const AdapterProblem problem_;
  std::vector<std::unique_ptr<Adapter>> adapters_;
  std::vector<std::byte> slab_memory_;
  std::byte* slab_ = nullptr;
};

}  // namespace lorad::kernels::cuda
