// Which instruction set's kernels this machine runs: what was asked for, or the fastest by
// measurement.
//
// A processor's feature bits do not say which is faster (the bf16 dot product runs at twice the
// rate of fp32 on some processors and at half of it on others), so "auto" times each candidate for
// a few milliseconds. It also compares each with a scalar computation, so that an instruction set
// that a machine offers but cannot run right is passed over, with a line on stderr.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/kernel_table.h"

namespace lorad::kernels::cpu {

// Those that this build has and this machine supports, the most capable first.
std::vector<const KernelTable*> UsableKernels();

// `isa` as in CpuOptions. InvalidArgument if unknown or unsupported.
absl::StatusOr<const KernelTable*> ChooseKernels(std::string_view isa);

// Whether GEMM and adapter kernels give what a scalar computation gives.
bool CheckKernels(const KernelTable& kernels);

}  // namespace lorad::kernels::cpu
