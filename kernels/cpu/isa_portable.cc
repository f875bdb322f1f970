// Kernels for any processor.
#include "kernels/cpu/isa_table_inl.h"

namespace lorad::kernels::cpu {

const KernelTable* PortableKernels() {
  static constexpr KernelTable kTable = MakeTable("portable");
  return &kTable;
}

}  // namespace lorad::kernels::cpu
