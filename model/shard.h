// Shard: which part of a tensor-parallel model is one rank's. The split is Megatron's (Shoeybi et
// al., arXiv:1909.08053, section 3): q, k, v by heads and gate, up by rows; o and down by the
// columns that read those, so that each rank gets a partial sum of the residual stream, and one
// sum over the ranks follows o and one follows down. The head is split by vocabulary; embedding and
// norms are everywhere. Where there are more ranks than key/value heads, several ranks keep the
// same one.
//
// Pure functions of the whole model's configuration.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "model/model_config.h"

namespace lorad {

struct Shard {
  int rank = 0;
  int size = 1;

  bool whole() const { return size == 1; }
};

// FailedPrecondition names what of the model cannot be split over so many ranks.
absl::Status CheckShards(const ModelConfig& model, int ranks);

// The functions below require CheckShards.

// The model as one rank computes it: its heads, its share of the feed-forward block; all else is
// the whole model's.
ModelConfig ShardOf(const ModelConfig& model, const Shard& shard);

// Some of the rows or columns of a matrix: [begin, begin + count).
struct Share {
  int64_t begin = 0;
  int64_t count = 0;
};

Share QShare(const ModelConfig& model, const Shard& shard);    // outputs of q, inputs of o
Share KvShare(const ModelConfig& model, const Shard& shard);   // outputs of k and of v
Share FfnShare(const ModelConfig& model, const Shard& shard);  // outputs of gate and of up, inputs
                                                               // of down

// Rows of the head that each rank has, the same number for all: what is beyond the vocabulary is
// zero.
int HeadRows(const ModelConfig& model, int ranks);
// Those of them that are tokens; there may be none.
Share HeadShare(const ModelConfig& model, const Shard& shard);

}  // namespace lorad
