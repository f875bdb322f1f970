// Step ops: a step as the decoder asked for it, before it is known what is in it. The operations
// are kept as they came and lowered to launches together (step_lowering.h), when it is known
// whether the step decodes only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/adapter_copies.h"
#include "kernels/cuda/rank_exchange.h"
#include "kernels/cuda/storage.h"

namespace lorad::kernels::cuda {

struct CopyPagesOp {
  std::span<const PageCopy> copies;
};
struct EmbedOp {
  std::span<const int32_t> ids;
  const CudaMatrix* table = nullptr;
  CudaTensor* out = nullptr;
};
struct RmsNormOp {
  int rows = 0;
  const CudaTensor* x = nullptr;
  const CudaVector* weight = nullptr;
  float eps = 0;
  CudaTensor* y = nullptr;
};
struct LinearOp {
  LinearArgs args;
  size_t first_wait = 0;  // of StepOps::waits
  size_t waits = 0;
};
struct RopeAnglesOp {
  std::span<const int32_t> positions;
  const CudaVector* inv_freq = nullptr;
  CudaTensor* angles = nullptr;
};
struct RopeAppendOp {
  RopeAppendArgs args;
};
struct AttentionOp {
  AttentionArgs args;
};
struct SwiGluOp {
  int rows = 0;
  const CudaTensor* gate_up = nullptr;
  CudaTensor* out = nullptr;
};
struct GatherRowsOp {
  std::span<const int32_t> rows;
  const CudaTensor* x = nullptr;
  CudaTensor* out = nullptr;
};
struct SampleOp {
  const CudaTensor* logits = nullptr;
  std::span<const SampleRow> rows;
};

// Between the ranks of a tensor-parallel group.
struct SumOp {
  RankExchange* ranks = nullptr;
  int rows = 0;
  CudaTensor* x = nullptr;
};
struct GatherOp {
  RankExchange* ranks = nullptr;
  int rows = 0;
  const CudaTensor* part = nullptr;
  CudaTensor* whole = nullptr;
};

using StepOp = std::variant<CopyPagesOp, EmbedOp, RmsNormOp, LinearOp, RopeAnglesOp, RopeAppendOp,
                            AttentionOp, SwiGluOp, GatherRowsOp, SampleOp, SumOp, GatherOp>;

struct StepOps {
  std::vector<StepOp> ops;
  // Images that are still on their way, kept here because their transfers may be destroyed before
  // the step is lowered; each LinearOp has a range of `waits`, indices of `images`.
  std::vector<std::shared_ptr<ImageCopies>> images;
  std::vector<size_t> waits;

  bool empty() const { return ops.empty(); }
  void Clear() {
    ops.clear();
    images.clear();
    waits.clear();
  }
};

}  // namespace lorad::kernels::cuda
