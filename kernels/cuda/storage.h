// Storage: the CUDA backend's tensors, matrices, vectors and buffers: device memory and how it is
// to be read. What could not be allocated has a null view; the backend's status says why.
#pragma once

#include <memory>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/dense_ops.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/views.h"

namespace lorad::kernels::cuda {

class CudaTensor final : public Tensor {
 public:
  CudaTensor(int max_rows, const TensorView& view, DeviceMemory memory)
      : max_rows_(max_rows), view_(view), memory_(std::move(memory)) {}

  int max_rows() const override { return max_rows_; }
  int cols() const override { return view_.cols; }
  const TensorView& view() const { return view_; }
  size_t row_bytes() const { return size_t(view_.stride) * (view_.full ? 4 : 2); }
  // Rows that the last operation wrote.
  int rows() const { return rows_; }
  void set_rows(int rows) { rows_ = rows; }

 private:
  const int max_rows_;
  const TensorView view_;
  const DeviceMemory memory_;
  int rows_ = 0;
};

class CudaMatrix final : public Matrix {
 public:
  int rows() const override { return view.rows; }
  int cols() const override { return view.cols; }
  size_t bytes() const override {
    return data.bytes() + scales.bytes() + bias.bytes() + bf16_bias.bytes();
  }

  WeightsView view;
  DeviceMemory data;
  DeviceMemory scales;
  DeviceMemory bias;       // fp32
  DeviceMemory bf16_bias;  // for a library that wants it like its output
};

class CudaVector final : public Vector {
 public:
  CudaVector(int size, DeviceMemory memory) : size_(size), memory_(std::move(memory)) {}
  int size() const override { return size_; }
  const float* data() const { return reinterpret_cast<const float*>(memory_.data()); }

 private:
  const int size_;
  const DeviceMemory memory_;
};

template <typename Memory>
class OwnedBuffer final : public Buffer {
 public:
  explicit OwnedBuffer(Memory memory) : memory_(std::move(memory)) {}
  std::byte* data() override { return memory_.data(); }
  size_t bytes() const override { return memory_.bytes(); }

 private:
  Memory memory_;
};

// What reaches the backend is what it made.
inline CudaTensor& Of(Tensor& t) { return static_cast<CudaTensor&>(t); }
inline const CudaTensor& Of(const Tensor& t) { return static_cast<const CudaTensor&>(t); }
inline const CudaMatrix& Of(const Matrix& m) { return static_cast<const CudaMatrix&>(m); }
inline const CudaVector& Of(const Vector& v) { return static_cast<const CudaVector&>(v); }

// Makes them, and brings numbers from the host into device memory, in the order of `stream`.
//
// Thread: one at a time.
class Storage {
 public:
  Storage(Runtime& runtime, Stream stream) : runtime_(runtime), stream_(stream) {}

  std::unique_ptr<CudaTensor> NewTensor(int max_rows, int cols, bool full);
  std::unique_ptr<CudaVector> NewVector(std::span<const float> values);
  std::unique_ptr<CudaMatrix> NewMatrix(std::span<const HostMatrix> stacked,
                                        std::span<const float> bias, WeightFormat format,
                                        bool with_bf16_bias);
  // The first allocation that failed.
  const absl::Status& status() const { return status_; }

 private:
  DeviceMemory Allocate(size_t bytes);
  DeviceMemory Upload(std::span<const std::byte> bytes);

  // Numbers travel through two pinned halves.
  struct Half {
    PinnedMemory memory;
    OwnedEvent copied;
  };
  Runtime& runtime_;
  const Stream stream_;
  Half halves_[2];
  int next_ = 0;
  absl::Status status_;
};

}  // namespace lorad::kernels::cuda
