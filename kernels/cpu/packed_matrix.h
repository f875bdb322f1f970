// PackedMatrix: a weight matrix in the order in which every CPU GEMM kernel reads it: bf16, panels
// of 16 outputs, within a panel pairs of inputs, [outputs/16][inputs/2][16][2], padded with zeros
// to 16 outputs and 32 inputs. One 64-byte line holds a pair of inputs of 16 outputs: an operand of
// a bf16 dot product, half a step of widen-and-multiply, a row of a matrix tile.
//
// As int8 (quantise.h) the same with a byte for each weight, the even inputs of a line before the
// odd ones, [outputs/16][inputs/2][2][16], so that a vector of either widens without a shuffle; and
// a scale for each output.
//
// Immutable after Make; any thread reads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/kernel_table.h"

namespace lorad::kernels::cpu {

class PackedMatrix final : public Matrix {
 public:
  using ForEach = std::function<void(int n, const std::function<void(int)>& fn)>;

  // Matrices of equal width stacked by rows. `bias`: one float per stacked row, or empty.
  // `for_each` runs the panels. REQUIRES: the format is kBf16 or kInt8.
  PackedMatrix(std::span<const HostMatrix> stacked, std::span<const float> bias,
               WeightFormat format, const ForEach& for_each);

  int rows() const override { return rows_; }
  int cols() const override { return cols_; }
  size_t bytes() const override {
    return memory_.bytes() + (bias_.size() + scales_.size()) * sizeof(float);
  }

  int panels() const { return (rows_ + kPanel - 1) / kPanel; }
  int padded_cols() const { return (cols_ + kBlockK - 1) / kBlockK * kBlockK; }
  const uint16_t* data() const { return coded_ ? nullptr : Panel<uint16_t>(0); }  // of bf16
  const int8_t* codes() const { return coded_ ? Panel<int8_t>(0) : nullptr; }     // of int8
  const float* scales() const { return coded_ ? scales_.data() : nullptr; }       // [panels * 16]
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }    // [panels * 16]

  // Row `row` as fp32 into out [cols], so that one copy serves an embedding tied to the output
  // layer.
  void UnpackRow(int row, float* out) const;

 private:
  template <typename T>
  T* Panel(int panel) const {
    return reinterpret_cast<T*>(memory_.data()) + int64_t{panel} * padded_cols() * kPanel;
  }

  int rows_ = 0;
  int cols_ = 0;
  bool coded_ = false;  // int8
  HostMemory memory_;
  std::vector<float> scales_;
  std::vector<float> bias_;
};

}  // namespace lorad::kernels::cpu
