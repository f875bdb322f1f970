// Sequences whose tokens have fixed random q, k and v, advanced through the attention kernels on
// the emulator in any mixture of steps, and what plain loops in double make of them.
//
// Whatever a kernel need not read is NaN: pages before they are written, rows that only fill up a
// bucket, partials, outputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/attention_ops.h"

namespace lorad::kernels::cuda {

struct AttentionProblem {
  AttentionShape shape = {.heads = 6, .kv_heads = 2, .head_dim = 64, .scale = 0.125f, .window = 0};
  int page_tokens = 16;
  int sequences = 1;
  int positions = 64;  // tokens that a sequence can grow to
  bool norms = false;
  bool grid = false;  // q, k and v multiples of 1/8 and angles zero: scores are exact
  KvFormat format = KvFormat::kBf16;
  int multiprocessors = 4;
  uint64_t seed = 1;
  uint64_t order_seed = 1;  // of the emulator
  uint64_t placement = 1;   // of pages
};

// The next `tokens` tokens of a sequence.
struct Advance {
  int sequence = 0;
  int tokens = 1;
};

class AttentionRig {
 public:
  explicit AttentionRig(const AttentionProblem& problem);

  // One step. With `attend` false only appends. `spare`: rows that fill up the bucket.
  void Step(std::span<const Advance> parts, bool attend = true, int spare = 3);
  void Step(std::initializer_list<Advance> parts, bool attend = true, int spare = 3) {
    Step(std::span(parts.begin(), parts.size()), attend, spare);
  }
  // All sequences to their ends in steps of `chunk` tokens each.
  void RunInChunks(int chunk);
  // Gives a sequence copies of its pages and fills the old ones with NaN.
  void CopyToFreshPages(int sequence);

  // bf16 of all heads, row sequence * positions + position; zero where nothing was computed.
  std::span<const uint16_t> Output(int sequence, int position) const;
  const std::vector<uint16_t>& outputs() const { return outputs_; }

  // Compares what has been computed with exact attention over q and k as bf16 has them.
  struct Deviation {
    double norm = 0;     // |got - want| / |want| over all values
    double highest = 0;  // largest |got - want| over the root mean square of `want`
  };
  Deviation OfOutputs() const;
  Deviation OfQueries() const;  // after RopeAppend

  const AttentionWork& work() const { return work_; }  // of the last step
  const std::vector<std::byte>& slab() const { return slab_; }
  std::span<const uint32_t> pages(int sequence) const { return pages_[size_t(sequence)]; }
  KvView kv();

 private:
  size_t Row(int sequence, int position) const {
    return size_t(sequence) * size_t(problem_.positions) + size_t(position);
  }
  uint32_t TakePage();
  // The head after norm and rotation, in double.
  std::vector<double> Rotated(size_t row, int head) const;

  const AttentionProblem problem_;
  int qkv_cols_ = 0;
  std::vector<uint16_t> qkv_;      // [sequences * positions, qkv_cols_]
  std::vector<float> angles_;      // [positions, head_dim]
  std::vector<float> q_norm_;      // [head_dim]
  std::vector<float> k_norm_;      // [head_dim]
  std::vector<uint16_t> queries_;  // rotated, [sequences * positions, heads * head_dim]
  std::vector<uint16_t> outputs_;  // the same shape
  std::vector<bool> computed_;
  std::vector<std::byte> slab_;
  std::vector<uint32_t> free_;
  std::vector<std::vector<uint32_t>> pages_;
  std::vector<int> length_;
  AttentionWork work_;
};

}  // namespace lorad::kernels::cuda
