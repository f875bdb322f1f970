// Tensors and vectors of the CPU backend: fp32 rows in this process's memory.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/host_rows.h"
#include "memory/base/check.h"

namespace lorad::kernels::cpu {

class HostTensor final : public HostRows {
 public:
  HostTensor(int max_rows, int cols) : max_rows_(max_rows), cols_(cols), stride_(StrideFor(cols)) {
    auto memory = HostMemory::Allocate(size_t(max_rows) * size_t(stride_) * sizeof(float));
    LORAD_CHECK(memory.ok());
    memory_ = *std::move(memory);
  }

  int max_rows() const override { return max_rows_; }
  int cols() const override { return cols_; }
  // Rows are padded to whole lines. What lies in the padding is of no meaning.
  int64_t stride() const { return stride_; }
  float* data() { return reinterpret_cast<float*>(memory_.data()); }
  const float* data() const { return reinterpret_cast<const float*>(memory_.data()); }
  float* Row(int row) { return data() + row * stride_; }
  const float* Row(int row) const { return data() + row * stride_; }
  std::span<float> HostRow(int row) override { return {Row(row), static_cast<size_t>(cols_)}; }
  std::span<const float> HostRow(int row) const override {
    return {Row(row), static_cast<size_t>(cols_)};
  }

 private:
  // An odd number of cache lines: rows a power of two apart would compete for the same few places
  // of a cache.
  static int64_t StrideFor(int cols) {
    return int64_t{((cols + kPanel - 1) / kPanel) | 1} * kPanel;
  }

  int max_rows_;
  int cols_;
  int64_t stride_;
  HostMemory memory_;
};

class HostVector final : public Vector {
 public:
  explicit HostVector(std::span<const float> values) : values_(values.begin(), values.end()) {}
  int size() const override { return static_cast<int>(values_.size()); }
  const float* data() const { return values_.data(); }
  std::span<const float> values() const { return values_; }

 private:
  std::vector<float> values_;
};

}  // namespace lorad::kernels::cpu
