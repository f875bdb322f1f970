// What this machine can do at best, measured in the process that reports a benchmark: bytes read
// per second from memory, and multiply-adds per second of each instruction that a kernel may use.
// Ratios to these, not absolute figures, are what a benchmark states.
#pragma once

#include <string_view>

namespace lorad::bench {

struct MachinePeak {
  double read_gb_per_s = 0;         // all threads, from buffers far larger than any cache
  double fp32_gflop_per_s = 0;      // all threads, widest fused multiply-add
  double bf16_dot_gflop_per_s = 0;  // all threads, vdpbf16ps; 0 where there is none
  double amx_gflop_per_s = 0;       // all threads, tdpbf16ps; 0 where there is none

  // The peak of the instruction that a CPU backend of this name multiplies with.
  double GflopsOf(std::string_view backend_name) const;
};

// Takes about a second: the best of many short slices, since a shared machine's mean says little.
MachinePeak MeasureMachinePeak(int threads);

}  // namespace lorad::bench
