// LtApi: the few functions of cublasLt that lorad calls, found at run time: the library is not
// needed to build or to start, and a test can put others in their place. lt_api_check.cc holds what
// is declared here against the library's own header.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

namespace lorad::kernels::cuda {

// cublasLtMatmulAlgo_t: may be stored and used again with the same version of the library.
struct LtAlgorithm {
  uint64_t data[8] = {};
};
// cublasLtMatmulHeuristicResult_t
struct LtCandidate {
  LtAlgorithm algorithm;
  size_t workspace_bytes = 0;
  int status = 0;
  float waves = 0;
  int reserved[4] = {};
};

using LtHandle = struct LtContext*;
using LtOperation = struct LtOperationObject*;    // cublasLtMatmulDesc_t
using LtLayout = struct LtLayoutObject*;          // cublasLtMatrixLayout_t
using LtPreference = struct LtPreferenceObject*;  // cublasLtMatmulPreference_t

inline constexpr int kLtSuccess = 0;
inline constexpr int kLtFloat = 0;           // CUDA_R_32F
inline constexpr int kLtBf16 = 14;           // CUDA_R_16BF
inline constexpr int kLtComputeFloat = 68;   // CUBLAS_COMPUTE_32F
inline constexpr int kLtTransposed = 1;      // CUBLAS_OP_T
inline constexpr int kLtTransposeA = 3;      // CUBLASLT_MATMUL_DESC_TRANSA
inline constexpr int kLtEpilogue = 7;        // CUBLASLT_MATMUL_DESC_EPILOGUE
inline constexpr int kLtBiasPointer = 8;     // CUBLASLT_MATMUL_DESC_BIAS_POINTER
inline constexpr int kLtEpilogueBias = 4;    // CUBLASLT_EPILOGUE_BIAS
inline constexpr int kLtWorkspaceBytes = 1;  // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES

struct LtApi {
  int (*create)(LtHandle*) = nullptr;
  int (*destroy)(LtHandle) = nullptr;
  size_t (*version)() = nullptr;
  int (*operation_create)(LtOperation*, int compute_type, int scale_type) = nullptr;
  int (*operation_destroy)(LtOperation) = nullptr;
  int (*operation_set)(LtOperation, int attribute, const void* value, size_t bytes) = nullptr;
  int (*layout_create)(LtLayout*, int type, uint64_t rows, uint64_t cols, int64_t stride) = nullptr;
  int (*layout_destroy)(LtLayout) = nullptr;
  int (*preference_create)(LtPreference*) = nullptr;
  int (*preference_destroy)(LtPreference) = nullptr;
  int (*preference_set)(LtPreference, int attribute, const void* value, size_t bytes) = nullptr;
  int (*candidates)(LtHandle, LtOperation, LtLayout a, LtLayout b, LtLayout c, LtLayout d,
                    LtPreference, int wanted, LtCandidate* found, int* count) = nullptr;
  int (*matmul)(LtHandle, LtOperation, const void* alpha, const void* a, LtLayout, const void* b,
                LtLayout, const void* beta, const void* c, LtLayout, void* d, LtLayout,
                const LtAlgorithm*, void* workspace, size_t workspace_bytes,
                void* stream) = nullptr;
};

// Of libcublasLt.so.13 or .12.  Unavailable: neither is there, or a function is missing.
absl::StatusOr<LtApi> LoadLtApi();

}  // namespace lorad::kernels::cuda
