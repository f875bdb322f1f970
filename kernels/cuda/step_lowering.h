// StepLowering: turns the operations of a step into a program.
//
// Where every sequence of the step is one row (decode) rows are rounded up to one of a few buckets,
// so that steps of like size are equal programs; rows that fill up a bucket compute on garbage that
// stays within bounds and that nobody reads. Other steps have the rows that they have.
//
// Thread: the engine's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cuda/adapter_ops.h"
#include "kernels/cuda/attention_ops.h"
#include "kernels/cuda/cublas_matmul.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/program.h"
#include "kernels/cuda/step_ops.h"

namespace lorad::kernels::cuda {

// The least bucket for so many rows: 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, then every 64.
int BucketRows(int rows);

class StepLowering {
 public:
  struct Parts {
    Runtime* runtime = nullptr;
    CublasMatmul* matmul = nullptr;  // null: every product is by kernels of our own
    int32_t* tokens = nullptr;       // [max_tokens] in device memory: what Sample writes
    int max_tokens = 0;
  };
  explicit StepLowering(const Parts& parts) : parts_(parts) {}

  void SetPool(const PageSlab& slab, const KvView& kv) {
    slab_ = slab;
    kv_ = kv;
  }
  // Whether every sequence is one row, and there is one.
  static bool DecodesOnly(const StepOps& step);
  // Into a program that has just begun. True: it is complete, as far as its lists fit. False:
  // memory was short; Grow and begin anew.
  bool Lower(const StepOps& step, Program* program);
  absl::Status Grow();

 private:
  struct StepAdapters {  // of one list of segments
    std::span<const AdapterSegment> segments;
    AdapterWork work;
    const SegmentEntry* entries = nullptr;
    const uint32_t* pages = nullptr;
  };
  struct StepAttention {  // of one list of sequences
    std::span<const SequenceRows> sequences;
    AttentionShape shape;
    AttentionWork work;
  };

  void Lower(const CopyPagesOp& op);
  void Lower(const EmbedOp& op);
  void Lower(const RmsNormOp& op);
  void Lower(const LinearOp& op);
  void Lower(const RopeAnglesOp& op);
  void Lower(const RopeAppendOp& op);
  void Lower(const AttentionOp& op);
  void Lower(const SwiGluOp& op);
  // With the activation of its result, if that follows.
  void Lower(const LinearOp& op, const SwiGluOp* activation);
  void Lower(const GatherRowsOp& op);
  void Lower(const SampleOp& op);
  void Lower(const SumOp& op);
  void Lower(const GatherOp& op);

  int Rows(int rows, std::initializer_list<const CudaTensor*> tensors) const;
  void Product(int rows, const CudaTensor& x, const CudaMatrix& w, const CudaTensor& y,
               bool accumulate);
  StepAdapters& AdaptersOf(std::span<const AdapterSegment> segments);
  // The work of expansion and activation in one; null: they cannot be.
  const SwiGluWork* Fused(const SwiGluOp& activation, const CudaTensor& gate_up,
                          StepAdapters& adapters, const LinearArgs& args);
  StepAttention& AttentionOf(std::span<const SequenceRows> sequences, int rows,
                             const AttentionShape& shape);
  // A list without items has no capacity, and nothing is launched for it.
  template <typename T>
  DeviceList<T> ListOrNone(std::span<const T> items, size_t min_capacity) {
    return items.empty() ? DeviceList<T>{} : program_->List(items, min_capacity);
  }
  const DeviceFacts& device() const { return parts_.runtime->facts(); }

  const Parts parts_;
  PageSlab slab_;
  KvView kv_;
  Scratch workspace_;  // of products
  Scratch low_rank_;   // A x of a site
  Scratch partials_;   // of attention
  Scratch exchange_;   // parts from other ranks
  // What a step shares between its operations; memory is kept for the next.
  std::vector<std::unique_ptr<StepAdapters>> adapters_;
  std::vector<std::unique_ptr<StepAttention>> attention_;
  size_t adapters_used_ = 0;
  size_t attention_used_ = 0;
  // The step that is lowered.
  const StepOps* step_ = nullptr;
  Program* program_ = nullptr;
  bool decode_ = false;
};

}  // namespace lorad::kernels::cuda
