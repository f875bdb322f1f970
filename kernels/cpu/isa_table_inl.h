// Makes the KernelTable of the translation unit that includes it. No guard and no include of its
// own: an isa_*.cc includes it once, after the kernels.
#include "kernels/cpu/adapter_inl.h"
#include "kernels/cpu/attention_inl.h"
#include "kernels/cpu/elementwise_inl.h"
#include "kernels/cpu/gemm_inl.h"
#include "kernels/cpu/kernel_table.h"

namespace lorad::kernels::cpu {
namespace {

constexpr KernelTable MakeTable(const char* name) {
  return {
      .name = name,
      .bf16_activations = kDotNative,
      .tile_order = TileOrder::kRankMajor,
      .gemm_rows = kTaskRows,
      .gemm_panels = kTaskPanels,
      .gemm_scratch_floats = kTaskRows * kTaskPanels * kPanel,
      .gemm = Gemm,
      .shrink = Shrink,
      .expand = Expand,
      .convert = Convert,
      .rms_norm = RmsNormKernel,
      .swiglu = SwiGluKernel,
      .rope = RopeKernel,
      .append = AppendKernel,
      .attend = AttendKernel,
      .fold = FoldKernel,
      .finish = FinishKernel,
  };
}

}  // namespace
}  // namespace lorad::kernels::cpu
