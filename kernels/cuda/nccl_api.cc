#include "kernels/cuda/nccl_api.h"

#include <dlfcn.h>

#include <type_traits>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace lorad::kernels::cuda {

absl::StatusOr<NcclApi> LoadNcclApi() {
  void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);  // kept until the end
  if (library == nullptr) {
    const char* why = dlerror();
    return absl::UnavailableError(fmt::format("NCCL: {}", why ? why : "not found"));
  }
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    using Function = std::remove_reference_t<decltype(function)>;
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (function == nullptr) missing = name;
  };
  NcclApi api;
  find(api.init_all, "ncclCommInitAll");
  find(api.destroy, "ncclCommDestroy");
  find(api.abort, "ncclCommAbort");
  find(api.all_gather, "ncclAllGather");
  find(api.send, "ncclSend");
  find(api.receive, "ncclRecv");
  find(api.group_start, "ncclGroupStart");
  find(api.group_end, "ncclGroupEnd");
  find(api.error_text, "ncclGetErrorString");
  if (missing != nullptr) return absl::UnavailableError(fmt::format("NCCL lacks {}", missing));
  return api;
}

}  // namespace lorad::kernels::cuda
