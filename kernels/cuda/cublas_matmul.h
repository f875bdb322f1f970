// CublasMatmul: the base model's products with many rows by cublasLt, y (+)= x W^T + bias in bf16
// with fp32 sums.
//
// The library's own first choice of an algorithm is often not the fastest one: the first product of
// a shape tries the best few, each over weights that are not in the cache, and the fastest is kept
// (gemm_choices.h). A result has the same bits whenever the same algorithm computes the same number
// of rows, not for other numbers of rows: see CudaOptions::batch_invariant.
//
// Thread: the engine's.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/cuda/dense_ops.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/gemm_choices.h"
#include "kernels/cuda/lt_api.h"
#include "kernels/cuda/program.h"
#include "kernels/cuda/runtime.h"

namespace lorad::kernels::cuda {

class CublasMatmul {
 public:
  // `choices_file`: see GemmChoices. ResourceExhausted, or what the library says.
  static absl::StatusOr<std::unique_ptr<CublasMatmul>> Create(Runtime& runtime, const LtApi& api,
                                                              const std::string& choices_file);
  ~CublasMatmul();
  CublasMatmul(const CublasMatmul&) = delete;
  CublasMatmul& operator=(const CublasMatmul&) = delete;

  // Adds the product to the program; params.workspace is not used. `bf16_bias` is w.bias in bf16,
  // null if there is none.  REQUIRES: weights in bf16.
  void Record(Program& program, const GemmParams& params, const void* bf16_bias);

  const GemmChoices& choices() const { return choices_; }

 private:
  struct Product;  // what Record keeps in the program
  class Problem;   // a product in the library's terms

  CublasMatmul(Runtime& runtime, const LtApi& api, LtHandle handle, DeviceMemory workspace,
               GemmChoices choices);
  void Run(Stream stream, const Product& product);
  // Times the library's candidates. All zeros: it had none.
  LtAlgorithm Try(Stream stream, const Product& product, const Problem& problem);
  int Multiply(Stream stream, const Product& product, const Problem& problem, void* y,
               const LtAlgorithm* algorithm);

  Runtime& runtime_;
  const LtApi api_;
  const LtHandle handle_;
  const DeviceMemory workspace_;
  GemmChoices choices_;
};

}  // namespace lorad::kernels::cuda
