// The backends that the golden tests run on, and how closely each must agree with transformers +
// PEFT.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace lorad {

struct GoldenBackend {
  std::string name;
  // Of the logits of the worst row, and of the adapter's effect (logits with it minus logits
  // without) on a sequence; relative.
  double logits_bound;
  double effect_bound;
};

inline GoldenBackend ReferenceGolden() { return {"reference", 1e-4, 1e-4}; }

// Null if this machine lacks the instructions.
inline std::unique_ptr<kernels::Backend> MakeGoldenBackend(const GoldenBackend& backend) {
  if (backend.name == "reference") return kernels::NewReferenceBackend();
  return nullptr;
}

inline std::vector<GoldenBackend> GoldenBackends() { return {ReferenceGolden()}; }

}  // namespace lorad
