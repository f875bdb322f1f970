// SequenceOps: the operations of the cpu backend that know sequences and KV pages: rotary angles,
// rope and append, attention. Cuts them into the tasks of KernelTable and runs those on the
// backend's threads.
//
// Thread: the backend's one caller. Holds no tensor and no page; does NOT check which pages are
// whose.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/kernel_table.h"

namespace lorad::kernels::cpu {

// Runs fn(item, thread) for each item in [0, items), 0 <= thread < threads, no two at once with the
// same thread.
using RunItems =
    std::function<void(int items, const std::function<void(int item, int thread)>& fn)>;

// fp32 rows.
struct RowsView {
  float* data = nullptr;  // [rows, stride]
  int64_t stride = 0;
  float* Row(int row) const { return data + row * stride; }
};

class SequenceOps {
 public:
  SequenceOps(const KernelTable& kernels, int threads, RunItems run);

  // Bytes of a page's content, not rounded.
  static size_t PageBytes(const KvGeometry& geometry);
  // REQUIRES: head_dim is even and at most kMaxHeadDim, page_tokens a multiple of kKeyBlock.
  void SetPool(const PageSlab& slab, const KvGeometry& geometry);

  void RopeAngles(std::span<const int32_t> positions, std::span<const float> inv_freq,
                  RowsView angles);
  // `q_norm` and `k_norm` as in RopeAppendArgs, [head_dim] or null.
  void RopeAppend(const RopeAppendArgs& args, RowsView qkv, RowsView angles, const float* q_norm,
                  const float* k_norm);
  void Attention(const AttentionArgs& args, RowsView qkv, RowsView out);

 private:
  // Some consecutive rows of one sequence with some of the q heads that share a kv head.
  struct Item {
    const SequenceRows* sequence;
    int first_row;
    int rows;
    int kv_head;
    int first_head;
    int heads;
    int first_part;  // of kAttendSplit keys each, those that any row sees
    int end_part;
    float* states;  // of the parts one after the other if they run apart, else null
  };
  // One part of an item, or all of them.
  struct Unit {
    int item;
    int first_part;
    int end_part;
  };

  void CutAttention(const AttentionArgs& args);
  void RunUnit(const AttentionArgs& args, const Unit& unit, RowsView qkv, RowsView out, int thread);
  void Attend(const AttentionArgs& args, const Item& item, int part, RowsView qkv, float* states,
              int thread);
  void Finish(const AttentionArgs& args, const Item& item, const float* states, RowsView out);
  uint64_t HeadOffset(int layer, int kv_head) const;
  size_t ItemStateFloats(const Item& item) const;
  float* Scratch(int thread);  // AttendScratchFloats, then two times the states of a task

  const KernelTable& kernels_;
  int threads_;
  RunItems run_;
  PageSlab slab_;
  KvGeometry geometry_;
  size_t scratch_floats_ = 0;   // a thread
  std::vector<float> scratch_;  // [threads, scratch_floats_], with room to align
  std::vector<float> split_states_;
  std::vector<Item> items_;
  std::vector<Unit> units_;
};

}  // namespace lorad::kernels::cpu
