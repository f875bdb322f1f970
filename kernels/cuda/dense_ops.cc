#include "kernels/cuda/dense_ops.h"

#include "kernels/cuda/dense_kernels.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {

size_t GemmWorkspaceBytes(const DeviceFacts& device, int rows, const WeightsView& w) {
  return rows <= kSkinnyRows ? 0 : TiledGemmWorkspaceBytes(device, rows, w);
}

void LaunchGemm(Launcher& launch, const DeviceFacts& device, const GemmParams& params) {
  LORAD_CHECK(params.rows >= 1 && !params.x.full);
  LORAD_CHECK(params.x.cols == params.w.cols && params.y.cols == params.w.rows);
  LORAD_CHECK(params.x.stride >= params.w.stride &&
              params.w.stride == PaddedColumns(params.w.cols));
  if (params.rows <= kSkinnyRows) {
    LaunchSkinnyGemm(launch, device, params);
  } else {
    LaunchTiledGemm(launch, device, params);
  }
}

std::vector<KernelRef> DenseKernels() {
  std::vector<KernelRef> kernels = SkinnyKernels();
  for (const auto& more : {TiledKernels(), DequantiseKernels()}) {
    kernels.insert(kernels.end(), more.begin(), more.end());
  }
  return kernels;
}

}  // namespace lorad::kernels::cuda
