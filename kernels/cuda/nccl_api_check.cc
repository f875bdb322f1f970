// nccl_api.h against NCCL's own header, where it is installed.
#if __has_include(<nccl.h>)
#include <nccl.h>

#include <type_traits>

#include "kernels/cuda/nccl_api.h"

namespace lorad::kernels::cuda {

static_assert(ncclSuccess == kNcclSuccess && ncclFloat32 == kNcclFloat);
static_assert(sizeof(ncclResult_t) == sizeof(int) && sizeof(ncclDataType_t) == sizeof(int) &&
              std::is_pointer_v<ncclComm_t> && std::is_pointer_v<cudaStream_t>);
// The same arguments in the same order.
template <auto kFunction, typename Function>
constexpr bool kIs = std::is_same_v<decltype(kFunction), Function>;
static_assert(kIs<&ncclCommInitAll, ncclResult_t (*)(ncclComm_t*, int, const int*)>);
static_assert(kIs<&ncclCommDestroy, ncclResult_t (*)(ncclComm_t)>);
static_assert(kIs<&ncclCommAbort, ncclResult_t (*)(ncclComm_t)>);
static_assert(kIs<&ncclAllGather, ncclResult_t (*)(const void*, void*, size_t, ncclDataType_t,
                                                   ncclComm_t, cudaStream_t)>);
static_assert(kIs<&ncclSend, ncclResult_t (*)(const void*, size_t, ncclDataType_t, int, ncclComm_t,
                                              cudaStream_t)>);
static_assert(
    kIs<&ncclRecv, ncclResult_t (*)(void*, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t)>);
static_assert(kIs<&ncclGroupStart, ncclResult_t (*)()>);
static_assert(kIs<&ncclGroupEnd, ncclResult_t (*)()>);
static_assert(kIs<&ncclGetErrorString, const char* (*)(ncclResult_t)>);

}  // namespace lorad::kernels::cuda
#endif
