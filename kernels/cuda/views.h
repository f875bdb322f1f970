// Device memory as kernels and launches see it: plain pointers and strides. Borrowed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/host_device.h"
#include "kernels/types.h"

namespace lorad::kernels::cuda {

// Tensors' rows are padded to kColumnGranule elements; the padding is always zero, so a product may
// run over it.
inline constexpr int kColumnGranule = 64;

LORAD_HOST_DEVICE constexpr int PaddedColumns(int columns) {
  return (columns + kColumnGranule - 1) / kColumnGranule * kColumnGranule;
}

// Activations of a tensor: bf16, or fp32 where the decoder wants full precision (residual stream,
// angles, logits).
struct TensorView {
  void* data = nullptr;
  int cols = 0;
  int stride = 0;  // elements, a multiple of kColumnGranule
  bool full = false;
};

// A weight matrix in device memory, [rows, stride], row-major, padding zero. See dense_weights.h
// for the formats other than bf16.
struct WeightsView {
  WeightFormat format = WeightFormat::kBf16;
  const void* data = nullptr;
  const float* scales = nullptr;  // null for bf16
  const float* bias = nullptr;    // [rows] or null
  int rows = 0;                   // outputs
  int cols = 0;                   // inputs
  int stride = 0;                 // elements, PaddedColumns(cols)
};

// A list whose length lies in device memory too, so that a recorded graph serves any length.
template <typename T>
struct ListView {
  const int* count = nullptr;
  const T* items = nullptr;
};

}  // namespace lorad::kernels::cuda
