// Rope frequencies: what `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`
// (before) of a config.json mean for the rotary embedding. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/json.h"

namespace lorad {

enum class RopeType { kDefault, kLinear, kLlama3 };

struct RopeParameters {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;  // linear and llama3
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_max_positions = 0;
};

// Takes the rope fields out of `fields`. A mistake is left in `fields`, whose Finish() reports it.
RopeParameters ReadRopeParameters(JsonFields& fields, int max_positions);

// [head_dim / 2]. Rounds in fp32 after every operation, as transformers does on tensors: at long
// positions the last bits of a frequency show.
std::vector<float> InverseFrequencies(const RopeParameters& rope, int head_dim);

}  // namespace lorad
