// ShardedFactors: the share of an adapter that one rank of a tensor-parallel model keeps and
// computes. Where the rank has some of a layer's outputs (q, k, v, gate, up, lm_head) it takes A
// whole and the same rows of B. Where it has some of the inputs (o, down) it takes the same columns
// of A and B whole: what it adds is its part of a sum, which joins that of the layer itself, so
// adapters need no exchange of their own (as in vLLM, vllm/lora/layers/row_parallel_linear.py).
//
// A value. Most of it points into the matrices that it was made from; what had to be copied (the
// columns of A) it holds.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/types.h"
#include "model/model_config.h"
#include "model/shard.h"

namespace lorad {

class ShardedFactors {
 public:
  // `factors` are of the whole model; data may be null. A module that has nothing on this rank is
  // left out.  REQUIRES: sites and columns are those of model/sites.h.
  ShardedFactors(std::span<const kernels::LowRankFactors> factors, const ModelConfig& model,
                 const Shard& shard);
  ShardedFactors(ShardedFactors&&) = default;  // the data stay where they are
  ShardedFactors& operator=(ShardedFactors&&) = default;

  std::span<const kernels::LowRankFactors> factors() const { return factors_; }

 private:
  // What `whole` has of the outputs `share`, which are at `to` of the rank's own.
  void AddOutputs(const kernels::LowRankFactors& whole, const Share& share, int64_t to);
  void AddInputs(const kernels::LowRankFactors& whole, const Share& share);

  std::vector<kernels::LowRankFactors> factors_;
  std::vector<std::vector<std::byte>> copies_;
};

}  // namespace lorad
