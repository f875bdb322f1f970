// Communicator: how the ranks of a tensor-parallel group add up and exchange tensors. Every rank
// calls the same operations in the same order, each with its own tensors of the same shapes. Sums
// are taken in the order of ranks, element by element, so every rank gets the same bits, and a
// row's bits depend on no other row.
//
// Thread: each rank's own, but for Abort; a call returns when this rank's tensor is complete or (on
// a device) queued to be.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace lorad::kernels {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // x[0 .. rows) becomes the sum over all ranks.  REQUIRES: x is of Precision::kFull.
  virtual void AllReduce(Tensor& x, int rows) = 0;
  // whole[0 .. rows, r * part.cols() ..] becomes rank r's part, for every r; columns that whole
  // does not have are dropped.  REQUIRES: whole.cols() <= size() * part.cols(); both are of
  // Precision::kFull.
  virtual void AllGather(const Tensor& part, Tensor& whole, int rows) = 0;

  // Breaks the group for good, because a rank failed: all ranks' pending and later calls return at
  // once, and what their tensors hold is of no meaning. The tensors must live until all ranks have
  // returned. Any thread.
  virtual void Abort() = 0;
  // OK, or why the group is broken.
  virtual absl::Status status() const = 0;
};

// A group within this process, over the tensors of CPU or reference backends: member i is rank i's.
std::vector<std::unique_ptr<Communicator>> NewThreadCommunicators(int size);

// A group within this process over CUDA backends, each on a device of its own. In lorad_cuda.
// FailedPrecondition: this build has no CUDA backend.
absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> NewCudaCommunicators(
    std::span<Backend* const> ranks);

}  // namespace lorad::kernels
