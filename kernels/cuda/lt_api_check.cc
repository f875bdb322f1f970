// Compiled where CUDA's toolkit is: lt_api.h against the library's own header.
#include <cublasLt.h>

#include <cstddef>
#include <type_traits>

#include "kernels/cuda/lt_api.h"

namespace lorad::kernels::cuda {

static_assert(CUBLAS_STATUS_SUCCESS == kLtSuccess && CUBLAS_COMPUTE_32F == kLtComputeFloat &&
              CUDA_R_32F == kLtFloat && CUDA_R_16BF == kLtBf16 && CUBLAS_OP_T == kLtTransposed);
static_assert(CUBLASLT_MATMUL_DESC_TRANSA == kLtTransposeA &&
              CUBLASLT_MATMUL_DESC_EPILOGUE == kLtEpilogue &&
              CUBLASLT_MATMUL_DESC_BIAS_POINTER == kLtBiasPointer &&
              CUBLASLT_EPILOGUE_BIAS == kLtEpilogueBias &&
              CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES == kLtWorkspaceBytes);
static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(LtAlgorithm) &&
              sizeof(cublasLtMatmulHeuristicResult_t) == sizeof(LtCandidate) &&
              offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) ==
                  offsetof(LtCandidate, workspace_bytes) &&
              offsetof(cublasLtMatmulHeuristicResult_t, state) == offsetof(LtCandidate, status) &&
              offsetof(cublasLtMatmulHeuristicResult_t, wavesCount) ==
                  offsetof(LtCandidate, waves));
// Enumerations travel as int, opaque objects as pointers.
static_assert(sizeof(cublasStatus_t) == sizeof(int) && sizeof(cublasComputeType_t) == sizeof(int) &&
              sizeof(cudaDataType) == sizeof(int) &&
              sizeof(cublasLtMatmulDescAttributes_t) == sizeof(int) &&
              std::is_pointer_v<cublasLtHandle_t> && std::is_pointer_v<cublasLtMatmulDesc_t> &&
              std::is_pointer_v<cublasLtMatrixLayout_t> && std::is_pointer_v<cudaStream_t>);
// The same arguments in the same order.
static_assert(
    std::is_same_v<decltype(&cublasLtMatmul),
                   cublasStatus_t (*)(cublasLtHandle_t, cublasLtMatmulDesc_t, const void*,
                                      const void*, cublasLtMatrixLayout_t, const void*,
                                      cublasLtMatrixLayout_t, const void*, const void*,
                                      cublasLtMatrixLayout_t, void*, cublasLtMatrixLayout_t,
                                      const cublasLtMatmulAlgo_t*, void*, size_t, cudaStream_t)>);
static_assert(
    std::is_same_v<decltype(&cublasLtMatmulAlgoGetHeuristic),
                   cublasStatus_t (*)(
                       cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                       cublasLtMatmulPreference_t, int, cublasLtMatmulHeuristicResult_t*, int*)>);
static_assert(std::is_same_v<decltype(&cublasLtMatrixLayoutCreate),
                             cublasStatus_t (*)(cublasLtMatrixLayout_t*, cudaDataType, uint64_t,
                                                uint64_t, int64_t)>);
static_assert(
    std::is_same_v<decltype(&cublasLtMatmulDescCreate),
                   cublasStatus_t (*)(cublasLtMatmulDesc_t*, cublasComputeType_t, cudaDataType_t)>);

}  // namespace lorad::kernels::cuda
