// Which instruction sets this process may use: what the processor has and the operating system
// saves.
#pragma once

namespace lorad::kernels::cpu {

struct CpuFeatures {
  bool avx2 = false;    // and FMA
  bool avx512 = false;  // F, BW, DQ, VL
  bool avx512bf16 = false;
  bool amx_bf16 = false;  // and the kernel has permitted this process to use tiles
};

// Asks the kernel for the use of AMX tiles, once for the process; threads made later inherit it.
CpuFeatures DetectCpuFeatures();

}  // namespace lorad::kernels::cpu
