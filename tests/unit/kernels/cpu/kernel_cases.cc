#include "tests/unit/kernels/cpu/kernel_cases.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/isa_choice.h"

namespace lorad::kernels::cpu {

std::vector<const KernelTable*> TablesToTest() {
  std::vector<const KernelTable*> tables = UsableKernels();
  tables.push_back(EmulatedAmxKernels());
  return tables;
}

float ValueAt(uint64_t seed, int64_t index) {
  uint64_t mixed = (seed + 1) * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(index);
  mixed = (mixed ^ (mixed >> 29)) * 0xbf58476d1ce4e5b9u;
  mixed = (mixed ^ (mixed >> 32)) * 0x94d049bb133111ebu;
  return (static_cast<float>(mixed >> 57) - 63.5f) / 64.0f;
}

std::vector<float> Values(uint64_t seed, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = ValueAt(seed, i);
  return values;
}

Layer MakeLayer(int outputs, int inputs, bool bias, WeightFormat format) {
  Layer layer{outputs, inputs, Values(1, int64_t{outputs} * inputs), {}, nullptr};
  if (bias) layer.bias = Values(2, outputs);
  const HostMatrix view = {DType::kF32, layer.w.data(), outputs, inputs};
  layer.packed = std::make_unique<PackedMatrix>(std::span(&view, 1), layer.bias, format,
                                                [](int n, const std::function<void(int)>& fn) {
                                                  for (int i = 0; i < n; ++i) fn(i);
                                                });
  for (int row = 0; row < outputs; ++row) {
    layer.packed->UnpackRow(row, layer.w.data() + int64_t{row} * inputs);
  }
  return layer;
}

ActivationRows::ActivationRows(const KernelTable& kernels, const std::vector<float>& x, int rows,
                               int cols)
    : element_bytes_(kernels.bf16_activations ? 2 : 4) {
  const int padded = (cols + kBlockK - 1) / kBlockK * kBlockK;
  stride_ = padded + kBlockK;
  bytes_.resize(static_cast<size_t>(rows * stride_) * element_bytes_, std::byte{0xff});
  for (int row = 0; row < rows; ++row) {
    kernels.convert({.x = x.data() + int64_t{row} * cols,
                     .out = const_cast<void*>(From(row).data),
                     .n = cols,
                     .padded = padded});
  }
}

Activations ActivationRows::From(int row) const {
  return {bytes_.data() + static_cast<size_t>(row * stride_) * element_bytes_, stride_};
}

std::vector<float> RunGemm(const KernelTable& kernels, const Layer& layer,
                           const std::vector<float>& x, int rows, const GemmCut& cut,
                           const std::vector<float>* y_before) {
  const PackedMatrix& w = *layer.packed;
  const int64_t stride = int64_t{w.panels()} * kPanel + 8;
  std::vector<float> y(static_cast<size_t>(rows * stride), std::nanf(""));
  for (int row = 0; y_before && row < rows; ++row) {
    std::copy_n(y_before->begin() + int64_t{row} * layer.outputs, layer.outputs,
                y.begin() + row * stride);
  }
  const ActivationRows activations(kernels, x, rows, layer.inputs);
  std::vector<float> scratch(static_cast<size_t>(kernels.gemm_scratch_floats), std::nanf(""));
  std::vector<GemmTask> tasks;
  for (int panel = 0; panel < w.panels(); panel += cut.panels) {
    for (int row = 0; row < rows; row += cut.rows) {
      tasks.push_back({.x = activations.view(),
                       .w = w.data(),
                       .codes = w.codes(),
                       .scales = w.scales(),
                       .bias = w.bias(),
                       .y = y.data(),
                       .y_stride = stride,
                       .k = w.padded_cols(),
                       .accumulate = y_before != nullptr,
                       .first_panel = panel,
                       .end_panel = std::min(w.panels(), panel + cut.panels),
                       .first_row = row,
                       .end_row = std::min(rows, row + cut.rows),
                       .scratch = scratch.data()});
    }
  }
  if (cut.backwards) std::reverse(tasks.begin(), tasks.end());
  for (const GemmTask& task : tasks) kernels.gemm(task);
  std::vector<float> out;
  for (int row = 0; row < rows; ++row) {
    out.insert(out.end(), y.begin() + row * stride, y.begin() + row * stride + layer.outputs);
  }
  return out;
}

double RelativeError(const std::vector<float>& got, const std::vector<double>& want) {
  if (got.size() != want.size()) return std::numeric_limits<double>::infinity();
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  const double relative = std::sqrt(error / norm);
  return std::isnan(relative) ? std::numeric_limits<double>::infinity() : relative;
}

}  // namespace lorad::kernels::cpu
