// NcclApi: the few functions of NCCL that lorad calls, found at run time: the library is not needed
// to build, or to start with one rank, and a test can put others in their place. As NCCL 2.28
// documents them (docs.nvidia.com/deeplearning/nccl/user-guide/docs/api.html); nccl_api_check.cc
// holds them against the library's own header where it is installed.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"

namespace lorad::kernels::cuda {

using NcclComm = struct NcclCommObject*;  // ncclComm_t

inline constexpr int kNcclSuccess = 0;
inline constexpr int kNcclFloat = 7;  // ncclFloat32

// Enumerations travel as int, streams as pointers.
struct NcclApi {
  int (*init_all)(NcclComm* comms, int count, const int* devices) = nullptr;
  int (*destroy)(NcclComm) = nullptr;
  int (*abort)(NcclComm) = nullptr;
  int (*all_gather)(const void* from, void* to, size_t count, int type, NcclComm,
                    void* stream) = nullptr;
  int (*send)(const void* from, size_t count, int type, int peer, NcclComm, void* stream) = nullptr;
  int (*receive)(void* to, size_t count, int type, int peer, NcclComm, void* stream) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;
  const char* (*error_text)(int) = nullptr;
};

// Of libnccl.so.2.  Unavailable: it is not there, or a function is missing.
absl::StatusOr<NcclApi> LoadNcclApi();

}  // namespace lorad::kernels::cuda
