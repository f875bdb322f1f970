// Kernels for AVX-512 with the bf16 dot product.
#include "kernels/cpu/isa_table_inl.h"

namespace lorad::kernels::cpu {

const KernelTable* Avx512Bf16Kernels() {
  static constexpr KernelTable kTable = MakeTable("avx512bf16");
  return &kTable;
}

}  // namespace lorad::kernels::cpu
