#include "kernels/cuda/lt_api.h"

#include <dlfcn.h>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace lorad::kernels::cuda {

absl::StatusOr<LtApi> LoadLtApi() {
  void* library = nullptr;
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);  // kept until the process ends
    if (library != nullptr) break;
  }
  if (library == nullptr) {
    const char* why = dlerror();
    return absl::UnavailableError(fmt::format("cublasLt: {}", why ? why : "not found"));
  }
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    using Function = std::remove_reference_t<decltype(function)>;
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (function == nullptr) missing = name;
  };
  LtApi api;
  find(api.create, "cublasLtCreate");
  find(api.destroy, "cublasLtDestroy");
  find(api.version, "cublasLtGetVersion");
  find(api.operation_create, "cublasLtMatmulDescCreate");
  find(api.operation_destroy, "cublasLtMatmulDescDestroy");
  find(api.operation_set, "cublasLtMatmulDescSetAttribute");
  find(api.layout_create, "cublasLtMatrixLayoutCreate");
  find(api.layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(api.preference_create, "cublasLtMatmulPreferenceCreate");
  find(api.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(api.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(api.candidates, "cublasLtMatmulAlgoGetHeuristic");
  find(api.matmul, "cublasLtMatmul");
  if (missing != nullptr) return absl::UnavailableError(fmt::format("cublasLt lacks {}", missing));
  return api;
}

}  // namespace lorad::kernels::cuda
