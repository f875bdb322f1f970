// Sequences whose tokens have fixed random q, k and v, advanced through rope, append and attention
// in any mixture of steps.
#pragma once

#include <memory>
#include <vector>

#include "tests/unit/kernels/conformance.h"

namespace lorad::kernels::conformance {

struct AttentionCase {
  AttentionShape shape = {.heads = 4, .kv_heads = 2, .head_dim = 32, .scale = 0.2f, .window = 0};
  int page_tokens = 16;
  int sequences = 1;
  int positions = 64;  // tokens a sequence can grow to
  bool rotate = true;  // false: all angles are zero, so that grid keys stay exact
  bool head_norms = false;
  Values values = Values::kGrid;
  uint64_t seed = 3;

  int qkv_cols() const { return (shape.heads + 2 * shape.kv_heads) * shape.head_dim; }
  int out_cols() const { return shape.heads * shape.head_dim; }
  // What the rig needs. Three layers, of which the middle one is used.
  RigOptions Options(std::string backend, int threads = 2, uint64_t placement = 1) const;
};

// The next `tokens` tokens of one sequence.
struct Advance {
  int sequence = 0;
  int tokens = 1;
};

class RunningAttention {
 public:
  RunningAttention(Rig& rig, const AttentionCase& problem);

  // One step of the model's layer over these rows. With `attend` false only appends.
  void Step(std::span<const Advance> parts, bool attend = true);
  // Gives a sequence copies of all its pages; what was in the old ones is overwritten.
  void CopyToFreshPages(int sequence);
  // All tokens of all sequences in steps of `chunk` tokens each.
  void RunInChunks(int chunk);

  // Rows sequence * positions + position; zero where no step has computed them.
  const Rows& outputs() const { return outputs_; }
  // Only those that were computed, in the order of computation.
  Rows Attended() const { return Pick(outputs_, attended_); }
  const Rows& queries() const { return queries_; }  // as RopeAppend left them

 private:
  Rig& rig_;
  AttentionCase problem_;
  Rows qkv_;
  std::unique_ptr<Vector> inv_freq_;
  std::unique_ptr<Vector> q_norm_;
  std::unique_ptr<Vector> k_norm_;
  std::vector<std::vector<uint32_t>> pages_;
  std::vector<int> length_;
  std::vector<int> attended_;
  Rows outputs_;
  Rows queries_;
};

// All sequences in chunks of `chunk` on a fresh rig.
Rows RunAttention(const RigOptions& options, const AttentionCase& problem, int chunk);

}  // namespace lorad::kernels::conformance
