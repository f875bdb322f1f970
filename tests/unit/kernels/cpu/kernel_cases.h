// Layers and adapters to run a KernelTable's kernels on, and the same computed in double.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/types.h"

namespace lorad::kernels::cpu {

// The tables of this machine and the emulated matrix tiles.
std::vector<const KernelTable*> TablesToTest();
const KernelTable* EmulatedAmxKernels();  // gemm, shrink, expand and convert only

// A value in (-1, 1) that bf16 holds exactly, so that only sums round.
float ValueAt(uint64_t seed, int64_t index);
std::vector<float> Values(uint64_t seed, int64_t count);

struct Layer {
  int outputs;
  int inputs;
  std::vector<float> w;     // [outputs, inputs], what the packed weights stand for
  std::vector<float> bias;  // [outputs] or empty
  std::unique_ptr<PackedMatrix> packed;
};
Layer MakeLayer(int outputs, int inputs, bool bias, WeightFormat format = WeightFormat::kBf16);

// How one GEMM is cut into tasks.
struct GemmCut {
  int panels;  // of a task, at most the table's
  int rows;    // of a task, at most the table's
  bool backwards = false;
};

// Rows as a table wants them, with NaN between and after them.
class ActivationRows {
 public:
  ActivationRows(const KernelTable& kernels, const std::vector<float>& x, int rows, int cols);
  Activations view() const { return {bytes_.data(), stride_}; }
  Activations From(int row) const;

 private:
  int64_t stride_;
  size_t element_bytes_;
  std::vector<std::byte> bytes_;
};

// y (+)= x W^T + bias for x [rows, inputs]; y [rows, outputs].
std::vector<float> RunGemm(const KernelTable& kernels, const Layer& layer,
                           const std::vector<float>& x, int rows, const GemmCut& cut,
                           const std::vector<float>* y_before = nullptr);

// Root mean square of `got - want` over that of `want`.
double RelativeError(const std::vector<float>& got, const std::vector<double>& want);

}  // namespace lorad::kernels::cpu
