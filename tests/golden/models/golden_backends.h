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
// The CUDA backend keeps all activations but the residual stream in bfloat16.
inline constexpr GoldenBounds kCudaBounds = {5e-2, 6e-2};

struct GoldenBackend {
  std::string name;
  GoldenBounds bounds;
  int ranks = 1;  // of a tensor-parallel model
};

// What is tested: a program links one file that knows, cpu_golden_backends.cc or
// cuda_golden_backends.cc.
std::vector<GoldenBackend> GoldenBackends();
std::vector<std::string> GoldenModels();
// Null if this machine lacks the instructions.
std::unique_ptr<kernels::Backend> MakeGoldenBackend(const std::string& name, int threads = 3);

// One a rank.
inline std::vector<std::unique_ptr<kernels::Backend>> MakeGoldenRanks(
    const GoldenBackend& backend) {
  std::vector<std::unique_ptr<kernels::Backend>> ranks;
  for (int i = 0; i < backend.ranks; ++i) {
    ranks.push_back(MakeGoldenBackend(backend.name, backend.ranks == 1 ? 3 : 1));
  }
  return ranks;
}

}  // namespace lorad
