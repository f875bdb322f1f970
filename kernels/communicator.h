// Communicator: how the ranks of a tensor-parallel group add up and exchange tensors. Every rank
// calls the same operations in the same order, each with its own tensors of the same shapes. Sums
// are taken in the order of ranks, so every rank gets the same bits.
//
// Thread: each rank's own; a call returns when this rank's tensor is complete or (on a device)
// queued to be.
#pragma once

#include <memory>
#include <vector>

#include "kernels/backend.h"

namespace lorad::kernels {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // x[0 .. rows) becomes the sum over all ranks.
  virtual void AllReduce(Tensor& x, int rows) = 0;
  // whole[:, r * part.cols() ..] becomes rank r's part, for every r.  REQUIRES: whole.cols() is
  // size() * part.cols().
  virtual void AllGather(const Tensor& part, Tensor& whole, int rows) = 0;
};

// A group within this process, over the tensors of CPU or reference backends: member i is rank i's.
std::vector<std::unique_ptr<Communicator>> NewThreadCommunicators(int size);

}  // namespace lorad::kernels
