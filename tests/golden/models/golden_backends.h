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
  int ranks = 1;  // of a tensor-parallel model
};

// Null if this machine lacks the instructions.
inline std::unique_ptr<kernels::Backend> MakeGoldenBackend(const std::string& name,
                                                           int threads = 3) {
  if (name == "reference") return kernels::NewReferenceBackend();
  auto cpu = kernels::NewCpuBackend({.threads = threads, .isa = name});
  return cpu.ok() ? std::move(*cpu) : nullptr;
}

// One a rank.
inline std::vector<std::unique_ptr<kernels::Backend>> MakeGoldenRanks(
    const GoldenBackend& backend) {
  std::vector<std::unique_ptr<kernels::Backend>> ranks;
  for (int i = 0; i < backend.ranks; ++i) {
    ranks.push_back(MakeGoldenBackend(backend.name, backend.ranks == 1 ? 3 : 1));
  }
  return ranks;
}

// Those that this machine can run: each alone, and the most exact and the fastest one also as 2
// and as 4 ranks. The models have 4 heads and 2 key/value heads, so that of 4 ranks two keep the
// same one.
inline std::vector<GoldenBackend> GoldenBackends() {
  std::vector<GoldenBackend> backends = {{"reference", kFp32Bounds}};
  for (const char* isa : {"portable", "avx2", "avx512", "avx512bf16", "amx"}) {
    if (MakeGoldenBackend(isa) != nullptr) backends.push_back({isa, kBf16Bounds});
  }
  const GoldenBackend best = backends.back();
  for (const int ranks : {2, 4}) {
    backends.push_back({"reference", kFp32Bounds, ranks});
    backends.push_back({best.name, best.bounds, ranks});
  }
  return backends;
}

}  // namespace lorad
