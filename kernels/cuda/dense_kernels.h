// The kernels behind dense_ops.h, one function for each .cu file.
#pragma once

#include <vector>

#include "kernels/cuda/dense_ops.h"
#include "kernels/cuda/dense_sum.h"

namespace lorad::kernels::cuda {

inline Output OutputOf(const GemmParams& params) {
  const bool row_scales =
      params.w.format == WeightFormat::kInt8 || params.w.format == WeightFormat::kFp8;
  return {params.y, row_scales ? params.w.scales : nullptr, params.w.bias, params.accumulate};
}

// gemm_skinny.cu: at most 32 rows.
inline constexpr int kSkinnyRows = 32;
void LaunchSkinnyGemm(Launcher& launch, const DeviceFacts& device, const GemmParams& params);
std::vector<KernelRef> SkinnyKernels();

// gemm_tiled.cu: any number of rows.
size_t TiledGemmWorkspaceBytes(const DeviceFacts& device, int rows, const WeightsView& w);
void LaunchTiledGemm(Launcher& launch, const DeviceFacts& device, const GemmParams& params);
std::vector<KernelRef> TiledKernels();

// dequantise.cu
std::vector<KernelRef> DequantiseKernels();

}  // namespace lorad::kernels::cuda
