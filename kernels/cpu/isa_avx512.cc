// Kernels for AVX-512 that widen bf16 and use fused multiply-add.
#include "kernels/cpu/isa_table_inl.h"

namespace lorad::kernels::cpu {

const KernelTable* Avx512Kernels() {
  static constexpr KernelTable kTable = MakeTable("avx512");
  return &kTable;
}

}  // namespace lorad::kernels::cpu
