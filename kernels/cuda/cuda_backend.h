// CudaBackend: the backend interface on a device. Operations are recorded (step_ops.h), lowered to
// a program when the step ends or a result is asked for (step_lowering.h), and given to the compute
// stream launch by launch or as a graph (program_runner.h). Nothing here waits for the device but
// HostRow, Sampled, WaitForStep and PackAdapter.
//
// Threads: as Backend says. Adapters' images are staged and copied by whoever calls; the copies run
// on a stream of their own (adapter_copies.h).
//
// Errors: a device's first error is kept by its Runtime, what could not be allocated by Storage;
// status() is the first of them, and nothing is launched after it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cuda/adapter_copies.h"
#include "kernels/cuda/attention_ops.h"
#include "kernels/cuda/cublas_matmul.h"
#include "kernels/cuda/program_runner.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/step_lowering.h"
#include "kernels/cuda/step_ops.h"
#include "kernels/cuda/storage.h"

namespace lorad::kernels::cuda {

struct CudaBackendOptions {
  KvFormat kv_format = KvFormat::kBf16;
  std::optional<LtApi> lt;   // none: every product is by kernels of our own
  std::string gemm_choices;  // file, see GemmChoices; empty: none
  int host_threads = 0;      // for ParallelFor, the caller included; 0: the cores it may use
  ProgramRunnerOptions programs = {};
};

class CudaBackend final : public Backend {
 public:
  using Backend::NewTensor;
  using Backend::Pack;

  // ResourceExhausted.
  static absl::StatusOr<std::unique_ptr<CudaBackend>> Create(std::unique_ptr<Runtime> runtime,
                                                             const CudaBackendOptions& options);
  ~CudaBackend() override;

  std::string_view name() const override { return name_; }
  absl::Status status() const override;
  uint64_t FreeBytes() const override { return runtime_->FreeBytes(); }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) override;
  std::unique_ptr<Tensor> NewTensor(int max_rows, int cols, Precision precision) override;
  std::unique_ptr<Vector> NewVector(std::span<const float> values) override;
  std::unique_ptr<Matrix> Pack(std::span<const HostMatrix> stacked, std::span<const float> bias,
                               WeightFormat format) override;
  bool Supports(WeightFormat) const override { return true; }

  size_t KvPageBytes(const KvGeometry& geometry) const override;
  void SetPool(const PageSlab& slab, const KvGeometry& geometry) override;

  AdapterLayout PlanAdapter(std::span<const LowRankFactors> factors, uint32_t sites,
                            size_t page_bytes) const override;
  // Stages, copies and waits.
  void PackAdapter(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                   const PageSlab& slab, std::span<const uint32_t> pages) const override;
  bool StagesAdapters() const override { return true; }
  absl::StatusOr<std::unique_ptr<Buffer>> AllocateStaging(size_t bytes) override;
  void StageAdapter(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                    std::span<std::byte> image) const override;
  std::unique_ptr<AdapterTransfer> StartTransfer(const AdapterLayout& layout,
                                                 std::span<const std::byte> image,
                                                 const PageSlab& slab,
                                                 std::span<const uint32_t> pages,
                                                 uint64_t after_step) override;
  uint64_t LastStep() const override { return runner_->last_step(); }

  uint64_t EndStep() override;
  absl::Status WaitForStep(uint64_t step) override;
  void PoisonPages(std::span<const uint32_t> pages) override;
  void CopyPages(std::span<const PageCopy> copies) override;
  void Embed(std::span<const int32_t> ids, const Matrix& table, Tensor& out) override;
  void RmsNorm(int rows, const Tensor& x, const Vector& weight, float eps, Tensor& y) override;
  void Linear(const LinearArgs& args) override;
  void RopeAngles(std::span<const int32_t> positions, const Vector& inv_freq,
                  Tensor& angles) override;
  void RopeAppend(const RopeAppendArgs& args) override;
  void Attention(const AttentionArgs& args) override;
  void SwiGlu(int rows, const Tensor& gate_up, Tensor& out) override;
  void GatherRows(std::span<const int32_t> rows, const Tensor& x, Tensor& out) override;
  std::span<float> HostRow(Tensor& x, int row) override;

  bool Samples() const override { return true; }
  void Sample(const Tensor& logits, std::span<const SampleRow> rows) override;
  absl::StatusOr<std::span<const int32_t>> Sampled(uint64_t step) override;

  void ParallelFor(int n, const std::function<void(int)>& fn) override;

  // For nccl_communicator.h.
  Runtime& runtime() const { return *runtime_; }
  const DeviceFacts& device() const { return runtime_->facts(); }
  void Sum(RankExchange* ranks, Tensor& x, int rows);
  void Gather(RankExchange* ranks, const Tensor& part, Tensor& whole, int rows);

  const ProgramRunner::Counts& program_counts() const { return runner_->counts(); }

 private:
  // Tokens of a step on the host.
  struct StepTokens {
    PinnedMemory memory;  // int32 [kMaxSampled]
    OwnedEvent copied;
    size_t count = 0;
    uint64_t step = 0;  // 0: the step has not ended
  };
  // The rows of one tensor on the host, until the next operation.
  struct HostRows {
    const CudaTensor* tensor = nullptr;
    int rows = 0;
    PinnedMemory memory;        // as they lie on the device
    std::vector<float> values;  // of a tensor in bf16, and where there is no pinned memory
    float* first = nullptr;     // row 0, in either
    size_t stride = 0;
  };

  CudaBackend(std::unique_ptr<Runtime> runtime, const CudaBackendOptions& options);
  absl::Status Init(const CudaBackendOptions& options);
  void Record(StepOp op);
  // Runs what was recorded, without waiting for it.
  void Flush();
  void RunProgram();
  void FetchTokens();
  void Download(const CudaTensor& tensor, int rows);
  bool FetchRows(const CudaTensor& tensor, int rows);
  void Fail(const absl::Status& status);

  const std::unique_ptr<Runtime> runtime_;
  const std::string name_;
  const KvFormat kv_format_;
  std::unique_ptr<ProgramRunner> runner_;
  std::unique_ptr<Storage> storage_;
  std::unique_ptr<AdapterCopies> copies_;
  std::unique_ptr<CublasMatmul> matmul_;
  DeviceMemory tokens_;  // int32 [kMaxSampled], of the last Sample
  std::unique_ptr<StepLowering> lowering_;
  cpu::ThreadPool host_pool_;

  PageSlab slab_;
  StepOps step_;
  size_t sampled_ = 0;  // tokens that step_ samples
  std::vector<StepTokens> step_tokens_;
  size_t next_tokens_ = 0;
  uint64_t last_end_ = 0;
  std::atomic<uint64_t> last_poison_ = 0;
  HostRows host_rows_;
};

}  // namespace lorad::kernels::cuda
