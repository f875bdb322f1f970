// HostRows: a tensor whose rows are fp32 in this process's memory, whichever CPU backend made it.
// What works on tensors of several backends alike (kernels/communicator.h) reads it through this.
#pragma once

#include <span>

#include "kernels/backend.h"

namespace lorad::kernels {

class HostRows : public Tensor {
 public:
  virtual std::span<float> HostRow(int row) = 0;  // [cols]
  virtual std::span<const float> HostRow(int row) const = 0;
};

}  // namespace lorad::kernels
