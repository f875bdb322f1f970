// Storage of the reference backend: everything is plain fp32 in a vector, row-major, no padding.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/host_rows.h"

namespace lorad::kernels::reference {

class F32Tensor final : public HostRows {
 public:
  F32Tensor(int max_rows, int cols)
      : max_rows_(max_rows), cols_(cols), values_(size_t(max_rows) * size_t(cols)) {}

  int max_rows() const override { return max_rows_; }
  int cols() const override { return cols_; }
  std::span<float> Row(int row);
  std::span<const float> Row(int row) const;
  std::span<float> HostRow(int row) override { return Row(row); }
  std::span<const float> HostRow(int row) const override { return Row(row); }

 private:
  int max_rows_;
  int cols_;
  std::vector<float> values_;  // [max_rows, cols]
};

class F32Matrix final : public Matrix {
 public:
  F32Matrix(int rows, int cols, std::vector<float> values, std::vector<float> bias)
      : rows_(rows), cols_(cols), values_(std::move(values)), bias_(std::move(bias)) {}

  int rows() const override { return rows_; }
  int cols() const override { return cols_; }
  size_t bytes() const override { return (values_.size() + bias_.size()) * sizeof(float); }
  std::span<const float> Row(int row) const;
  float Bias(int row) const { return bias_.empty() ? 0.0f : bias_[size_t(row)]; }

 private:
  int rows_;
  int cols_;
  std::vector<float> values_;  // [rows, cols]
  std::vector<float> bias_;    // [rows] or empty
};

class F32Vector final : public Vector {
 public:
  explicit F32Vector(std::span<const float> values) : values_(values.begin(), values.end()) {}

  int size() const override { return static_cast<int>(values_.size()); }
  std::span<const float> values() const { return values_; }

 private:
  std::vector<float> values_;
};

// The tensors, matrices and vectors that reach a backend are the ones it made.
inline const F32Tensor& Of(const Tensor& t) { return static_cast<const F32Tensor&>(t); }
inline F32Tensor& Of(Tensor& t) { return static_cast<F32Tensor&>(t); }
inline const F32Matrix& Of(const Matrix& m) { return static_cast<const F32Matrix&>(m); }
inline std::span<const float> Of(const Vector& v) {
  return static_cast<const F32Vector&>(v).values();
}

// Element `index` of a host matrix in any of the file formats, exactly.
float Element(const HostMatrix& matrix, int64_t index);

// Sum of a[i] * b[i], in double.  REQUIRES: equal sizes.
double Dot(std::span<const float> a, std::span<const float> b);

}  // namespace lorad::kernels::reference
