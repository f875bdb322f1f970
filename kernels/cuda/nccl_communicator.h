// NcclCommunicator: a tensor-parallel group of CUDA backends in this process, each on a device of
// its own. An exchange is recorded as an operation of the step (step_ops.h) and runs on the compute
// stream; NCCL moves the numbers, and kernels of our own add them up.
//
// NCCL's own sums are not used: in which order it adds depends on where in a message an element
// lies, so that a row's bits would depend on what else is in the batch. Instead everybody gets all
// parts and adds them in the order of ranks: of a short message whole (one exchange), of a long one
// a slice each, which is then given to everybody (as a ring moves it: twice (N-1)/N of the message
// a rank). Both give the same bits.
//
// Thread: as Communicator says.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/communicator.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/nccl_api.h"
#include "kernels/cuda/rank_exchange.h"

namespace lorad::kernels::cuda {

struct NcclOptions {
  // A tensor's sum of at most so many bytes is one exchange.
  size_t short_bytes = size_t{256} << 10;
};

class NcclCommunicator final : public Communicator, private RankExchange {
 public:
  // Member i is rank i's. The backends outlive them, and no step may be under way when they go.
  // Unavailable: NCCL cannot connect the devices.
  static absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> Connect(
      const NcclApi& api, std::span<CudaBackend* const> ranks, const NcclOptions& options = {});

  int rank() const override { return rank_; }
  int size() const override;
  void AllReduce(Tensor& x, int rows) override;
  void AllGather(const Tensor& part, Tensor& whole, int rows) override;
  void Abort() override;
  absl::Status status() const override;

 private:
  class Group;  // what the ranks share
  struct Transfer;

  NcclCommunicator(std::shared_ptr<Group> group, int rank, CudaBackend* backend,
                   const NcclOptions& options);

  size_t SumBytes(int rows, const TensorView& x) const override;
  void RecordSum(Program& program, int rows, const TensorView& x, void* scratch) override;
  size_t GatherBytes(int rows, const TensorView& part) const override;
  void RecordGather(Program& program, int rows, const TensorView& part, const TensorView& whole,
                    void* scratch) override;
  bool InOneExchange(size_t count) const;
  void Record(Program& program, const Transfer& transfer);
  void Run(Stream stream, const Transfer& transfer);

  const std::shared_ptr<Group> group_;
  const int rank_;
  CudaBackend& backend_;
  const NcclOptions options_;
};

}  // namespace lorad::kernels::cuda
