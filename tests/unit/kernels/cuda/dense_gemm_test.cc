#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "tests/emulator/block.h"
#include "tests/unit/kernels/cuda/dense_case.h"

namespace lorad::kernels::cuda {
namespace {

DeviceFacts Device(int multiprocessors) {
  return {.compute_capability = 80,
          .multiprocessors = multiprocessors,
          .shared_bytes_per_block = 163 * 1024};
}

std::set<std::string>& KernelsSeen() {
  static std::set<std::string> names;
  return names;
}

class EmulatedLauncher final : public Launcher {
 public:
  EmulatedLauncher(const DeviceFacts& device, uint64_t order_seed)
      : device_(device), order_seed_(order_seed) {}
  void Launch(const KernelRef& kernel, const Grid& grid, const void* args) override {
    EXPECT_LE(grid.y, device_.max_grid_y);
    KernelsSeen().insert(kernel.name);
    emulator::RunGrid(kernel, grid, args,
                      {.order_seed = order_seed_, .shared_limit = device_.shared_bytes_per_block});
  }

 private:
  const DeviceFacts& device_;
  const uint64_t order_seed_;
};

struct Problem {
  WeightFormat format = WeightFormat::kBf16;
  int cols = 64;     // inputs
  int outputs = 64;  // rows of the matrix
  bool bias = false;
  bool accumulate = false;
  bool full = true;  // y in fp32
  uint64_t seed = 5;
};

// Bits of an output, and its value.
struct Value {
  uint32_t bits = 0;
  float value = 0;
  bool operator==(const Value& other) const { return bits == other.bits; }
};
using RowValues = std::vector<Value>;

// A matrix with `max_rows` rows of x and of what y holds before. Rows are told apart by their
// number: row i is the same in every run.
class Loaded {
 public:
  Loaded(const Problem& problem, int max_rows)
      : problem_(problem),
        weights_(NormalValues(size_t(problem.cols) * size_t(problem.outputs), problem.seed, 0.1f),
                 problem.outputs, problem.cols, problem.format,
                 problem.bias ? NormalValues(size_t(problem.outputs), problem.seed + 1)
                              : std::vector<float>{}) {
    x_ = NormalValues(size_t(max_rows) * size_t(problem.cols), problem.seed + 2);
    for (float& v : x_) v = FromBf16(ToBf16(v));
    before_ = NormalValues(size_t(max_rows) * size_t(problem.outputs), problem.seed + 3, 3.0f);
    if (!problem.full) {
      for (float& v : before_) v = FromBf16(ToBf16(v));
    }
  }

  // Outputs of rows [first, first + rows).
  std::vector<RowValues> Run(int first, int rows, int multiprocessors = 4,
                             uint64_t order_seed = 1) const {
    const int x_stride = PaddedColumns(problem_.cols), y_stride = PaddedColumns(problem_.outputs);
    const size_t element = problem_.full ? 4 : 2;
    Memory x(size_t(rows) * size_t(x_stride) * 2), y(size_t(rows) * size_t(y_stride) * element);
    for (int row = 0; row < rows; ++row) {
      auto* to = reinterpret_cast<uint16_t*>(x.data()) + row * x_stride;
      for (int i = 0; i < problem_.cols; ++i) to[i] = ToBf16(X(first + row)[i]);
      for (int i = 0; i < problem_.outputs; ++i) {
        const float value = problem_.accumulate ? Before(first + row)[i] : std::nanf("");
        const uint16_t half = ToBf16(value);
        std::memcpy(y.data() + size_t(row * y_stride + i) * element,
                    problem_.full ? static_cast<const void*>(&value) : &half, element);
      }
    }
    const DeviceFacts device = Device(multiprocessors);
    const size_t workspace_bytes = GemmWorkspaceBytes(device, rows, weights_.view());
    Memory workspace(workspace_bytes);
    std::memset(workspace.data(), 0xff, workspace_bytes);
    EmulatedLauncher launcher(device, order_seed);
    LaunchGemm(launcher, device,
               {.rows = rows,
                .x = {x.data(), problem_.cols, x_stride, false},
                .w = weights_.view(),
                .y = {y.data(), problem_.outputs, y_stride, problem_.full},
                .accumulate = problem_.accumulate,
                .workspace = workspace_bytes == 0 ? nullptr : workspace.data()});
    std::vector<RowValues> values(static_cast<size_t>(rows));
    for (int row = 0; row < rows; ++row) {
      for (int i = 0; i < y_stride; ++i) {
        uint32_t bits = 0;
        std::memcpy(&bits, y.data() + size_t(row * y_stride + i) * element, element);
        if (i < problem_.outputs) {
          values[size_t(row)].push_back(
              {bits, problem_.full ? BitsToFloat(bits) : FromBf16(static_cast<uint16_t>(bits))});
        } else {
          EXPECT_EQ(bits, 0u) << "padding of row " << row;
        }
      }
    }
    return values;
  }

  // What dense_sum.h says, word for word, in the order in which the emulated product adds.
  RowValues Defined(int row) const {
    const int stride = PaddedColumns(problem_.cols);
    const WeightsView& w = weights_.view();
    const bool int4 = problem_.format == WeightFormat::kInt4;
    const bool row_scaled = w.scales != nullptr && !int4;
    const int chunk_inputs = (stride + 1023) / 1024 * 128;
    RowValues values;
    for (int output = 0; output < problem_.outputs; ++output) {
      const std::vector<float>& codes = Codes(output);
      float total = 0;
      for (int begin = 0; begin < stride; begin += chunk_inputs) {
        const int end = std::min(begin + chunk_inputs, stride);
        float sum = 0, chain = 0;
        for (int input = begin; input < end; input += 16) {  // of one product
          for (int k = 0; k < 16; ++k) {
            const int at = input / 32 * 32 + 8 * (k % 8 / 2) + k % 2 + 2 * (k / 8) + input % 32 / 4;
            if (at < problem_.cols) chain += X(row)[at] * codes[size_t(at)];
          }
          if (int4 && input % 64 == 48) {
            sum = fmaf(chain, w.scales[output * (stride / 64) + input / 64], sum);
            chain = 0;
          }
        }
        total += int4 ? sum : chain;
      }
      const float bias = w.bias != nullptr ? w.bias[output] : 0.0f;
      float value = row_scaled ? fmaf(total, w.scales[output], bias) : total + bias;
      if (problem_.accumulate) value += Before(row)[output];
      const uint16_t half = ToBf16(value);
      values.push_back(problem_.full ? Value{FloatToBits(value), value}
                                     : Value{half, FromBf16(half)});
    }
    return values;
  }

  // The product in double, and the sum of its terms' magnitudes.
  std::pair<double, double> Exact(int row, int output) const {
    double sum = weights_.view().bias != nullptr ? weights_.view().bias[output] : 0.0;
    double magnitude = std::fabs(sum);
    for (int i = 0; i < problem_.cols; ++i) {
      const double term = double{X(row)[i]} * weights_.Weight(output, i);
      sum += term;
      magnitude += std::fabs(term);
    }
    if (problem_.accumulate) sum += Before(row)[output];
    return {sum, magnitude};
  }

 private:
  const float* X(int row) const { return x_.data() + size_t(row) * size_t(problem_.cols); }
  const float* Before(int row) const {
    return before_.data() + size_t(row) * size_t(problem_.outputs);
  }
  // A row of the matrix without its scales.
  const std::vector<float>& Codes(int output) const {
    if (codes_.empty()) codes_.resize(size_t(problem_.outputs));
    std::vector<float>& codes = codes_[size_t(output)];
    if (!codes.empty()) return codes;
    WeightsView plain = weights_.view();
    const std::vector<float> ones(
        size_t(plain.rows) * size_t(ScalesPerRow(plain.format, plain.stride)), 1.0f);
    plain.scales = ones.data();
    for (int col = 0; col < problem_.cols; ++col) {
      codes.push_back(LoadWeights(plain, output, col / 8 * 8).v[col % 8]);
    }
    return codes;
  }

  const Problem problem_;
  const Weights weights_;
  std::vector<float> x_;
  std::vector<float> before_;
  mutable std::vector<std::vector<float>> codes_;
};

// The widths and heights that a kernel might get wrong; few rows of K at once.
TEST(GemmTest, EveryShapeAsDefined) {
  uint64_t seed = 1;
  for (const WeightFormat format : kFormats) {
    for (const int cols : {8, 64, 65, 192, 200, 1100}) {
      for (const int outputs : {1, 8, 15, 16, 17, 130}) {
        if (cols == 1100 && outputs != 17 && outputs != 130) continue;
        ++seed;
        const Problem problem{format,        cols,          outputs,       seed % 2 == 0,
                              seed % 3 == 0, seed % 5 != 0, 100 + 7 * seed};
        const Loaded loaded(problem, 40);
        std::vector<RowValues> defined;
        for (int row = 0; row < 40; ++row) defined.push_back(loaded.Defined(row));
        for (const int rows : {1, 16, 17, 33, 40}) {
          const auto values = loaded.Run(0, rows, seed % 2 == 0 ? 1 : 64, seed);
          for (int row = 0; row < rows; ++row) {
            ASSERT_EQ(values[size_t(row)], defined[size_t(row)])
                << "format " << int(format) << " cols " << cols << " outputs " << outputs
                << " rows " << rows << " row " << row;
          }
        }
      }
    }
  }
}

// One row alone, and the same row among up to 300 others, on devices of different sizes.
TEST(GemmTest, ARowHasTheSameBitsInEveryBatch) {
  for (const WeightFormat format : kFormats) {
    for (const bool full : {true, false}) {
      const Problem problem{format, 264, 72, true, full, full, 40};
      const Loaded loaded(problem, 300);
      const int row = 3;
      const RowValues alone = loaded.Run(row, 1)[0];
      EXPECT_EQ(alone, loaded.Defined(row));
      for (const int rows : {7, 16, 17, 64, 65, 130, 300}) {
        if (rows == 300 && full != (format == WeightFormat::kBf16)) continue;  // for time's sake
        for (const int multiprocessors : {1, 7, 132}) {
          if (rows == 300 && multiprocessors == 1) continue;
          // In the middle, at the end, at the start.
          for (const int first : {0, std::max(0, row + 1 - rows), row}) {
            if (first + rows > 300 || row - first >= rows) continue;
            EXPECT_EQ(loaded.Run(first, rows, multiprocessors)[size_t(row - first)], alone)
                << "format " << int(format) << " rows " << rows << " multiprocessors "
                << multiprocessors << " first " << first;
            if (multiprocessors != 7) break;
          }
        }
      }
    }
  }
}

TEST(GemmTest, LargeBatchesAsDefined) {
  for (const WeightFormat format : kFormats) {
    const Problem problem{format, 1100, 130, true, true, true, 77};
    const Loaded loaded(problem, 129);
    for (const int multiprocessors : {1, 132}) {
      const auto values = loaded.Run(0, 129, multiprocessors);
      for (int row = 0; row < 129; row += 16) {
        ASSERT_EQ(values[size_t(row)], loaded.Defined(row)) << int(format) << " " << row;
      }
    }
  }
}

// As many chunks as there can be, and chunks with more lines than a thread has on their way.
TEST(GemmTest, LongRowsAsDefined) {
  for (const WeightFormat format : kFormats) {
    for (const int cols : {1000, 5000}) {
      const Loaded loaded({format, cols, 20, false, false, true, 55}, 36);
      for (const int rows : {2, 20, 36}) {
        for (const int multiprocessors : {1, 132}) {
          const auto values = loaded.Run(0, rows, multiprocessors);
          for (const int row : {0, rows - 1}) {
            ASSERT_EQ(values[size_t(row)], loaded.Defined(row))
                << int(format) << " " << cols << " " << rows << " " << multiprocessors;
          }
        }
      }
    }
  }
}

// A result that depends on which thread goes first is a race.
TEST(GemmTest, TheOrderOfThreadsDoesNotShow) {
  for (const WeightFormat format : kFormats) {
    const Loaded loaded({format, 700, 40, true, true, true, 9}, 70);
    for (const int rows : {3, 20, 70}) {
      const auto first = loaded.Run(0, rows, 132, 1);
      for (uint64_t seed = 2; seed < 5; ++seed) {
        EXPECT_EQ(loaded.Run(0, rows, 132, seed), first) << int(format) << " " << rows;
      }
    }
  }
}

TEST(GemmTest, CloseToTheExactSum) {
  for (const WeightFormat format : kFormats) {
    for (const bool full : {true, false}) {
      const Problem problem{format, 1500, 24, true, full, full, 31};
      const Loaded loaded(problem, 36);
      for (const int rows : {4, 36}) {
        const auto values = loaded.Run(0, rows);
        for (int row = 0; row < rows; ++row) {
          for (int output = 0; output < problem.outputs; ++output) {
            const auto [exact, magnitude] = loaded.Exact(row, output);
            const double rounding = full ? 0 : std::fabs(exact) * 0x1p-8;
            EXPECT_NEAR(values[size_t(row)][size_t(output)].value, exact,
                        magnitude * 1e-6 + rounding);
          }
        }
      }
    }
  }
}

TEST(GemmTest, TheWorkspaceIsForFewTilesOnly) {
  WeightsView w{.rows = 4096, .cols = 4096, .stride = 4096};
  const DeviceFacts device = Device(132);
  EXPECT_EQ(GemmWorkspaceBytes(device, 1, w), 0u);
  EXPECT_EQ(GemmWorkspaceBytes(device, 32, w), 0u);
  EXPECT_EQ(GemmWorkspaceBytes(device, 64, w), size_t{4 * 8 * 64 * 4096});
  EXPECT_EQ(GemmWorkspaceBytes(device, 2048, w), 0u);
  w.rows = 28672;
  EXPECT_EQ(GemmWorkspaceBytes(device, 64, w), 0u);
}

TEST(DequantiseTest, PlainRowsOfBf16) {
  for (const WeightFormat format : kFormats) {
    for (const int cols : {1, 64, 200, 320}) {
      const int rows = 21, stride = PaddedColumns(cols);
      const Weights weights(NormalValues(size_t(rows * cols), 6, 0.1f), rows, cols, format);
      const Memory out(size_t(rows * stride) * 2);
      const DeviceFacts device = Device(4);
      EmulatedLauncher launcher(device, 1);
      LaunchDequantise(launcher, device, weights.view(), out.data());
      const auto* bits = reinterpret_cast<const uint16_t*>(out.data());
      for (int row = 0; row < rows; ++row) {
        for (int col = 0; col < stride; ++col) {
          EXPECT_EQ(bits[row * stride + col],
                    col < cols ? ToBf16(static_cast<float>(weights.Weight(row, col))) : 0)
              << int(format) << " " << row << " " << col;
        }
      }
    }
  }
}

// Last: the tests above ran every kernel, and none needs more than the smallest device has.
TEST(KernelsTest, EveryKernelRan) {
  std::set<std::string> names;
  for (const KernelRef& kernel : DenseKernels()) {
    EXPECT_TRUE(names.insert(kernel.name).second) << kernel.name;
  }
  EXPECT_EQ(KernelsSeen(), names);
}

}  // namespace
}  // namespace lorad::kernels::cuda
