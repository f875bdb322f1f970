// The backends that the golden tests run on, and how closely each must agree with transformers +
// PEFT in fp32.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.h"

namespace lorad {

// Largest relative errors allowed: of the logits of the worst row, and of an adapter's effect
// (logits with it minus logits without) on a whole sequence.
struct GoldenBounds {
  double logits;
  double effect;
};

inline constexpr GoldenBounds kFp32Bounds = {1e-4, 1e-4};
// CPU backends keep keys, values and some activations in bfloat16. For scale: transformers + PEFT
// run in bfloat16 themselves miss these logits by up to 6e-2 in the worst row and 7e-2 in the
// effect (make_goldens.py prints it).
inline constexpr GoldenBounds kBf16Bounds = {3e-2, 4e-2};

struct GoldenBackend {
  std::string name;
  GoldenBounds bounds;
};

// Null if this machine lacks the instructions.
inline std::unique_ptr<kernels::Backend> MakeGoldenBackend(const std::string& name) {
  if (name == "reference") return kernels::NewReferenceBackend();
  auto cpu = kernels::NewCpuBackend({.threads = 3, .isa = name});
  return cpu.ok() ? std::move(*cpu) : nullptr;
}

// Those that this machine can run.
inline std::vector<GoldenBackend> GoldenBackends() {
  std::vector<GoldenBackend> backends = {{"reference", kFp32Bounds}};
  for (const char* isa : {"portable", "avx2", "avx512", "avx512bf16", "amx"}) {
    if (MakeGoldenBackend(isa) != nullptr) backends.push_back({isa, kBf16Bounds});
  }
  return backends;
}

}  // namespace lorad
