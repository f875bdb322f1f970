// Kernels for AVX2 with FMA.
#include "kernels/cpu/isa_table_inl.h"

namespace lorad::kernels::cpu {

const KernelTable* Avx2Kernels() {
  static constexpr KernelTable kTable = MakeTable("avx2");
  return &kTable;
}

}  // namespace lorad::kernels::cpu
