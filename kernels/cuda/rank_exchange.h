// RankExchange: what the exchanges of a step between ranks become in a program
// (nccl_communicator.h), so that they stand in the order of the step and in its graph.
//
// Thread: that of the backend whose program it is.
#pragma once

#include <cstddef>

#include "kernels/cuda/program.h"
#include "kernels/cuda/views.h"

namespace lorad::kernels::cuda {

class RankExchange {
 public:
  virtual ~RankExchange() = default;
  // Rows of x, fp32, become their sums over all ranks. `scratch` of SumBytes is theirs until the
  // program ends.
  virtual size_t SumBytes(int rows, const TensorView& x) const = 0;
  virtual void RecordSum(Program& program, int rows, const TensorView& x, void* scratch) = 0;
  // Rows of `whole` become those of all ranks' parts side by side, fp32.
  virtual size_t GatherBytes(int rows, const TensorView& part) const = 0;
  virtual void RecordGather(Program& program, int rows, const TensorView& part,
                            const TensorView& whole, void* scratch) = 0;
};

}  // namespace lorad::kernels::cuda
