// Backend: the coarse operations of a decoder step on one device. Three implementations:
// `reference` (plain fp32, obviously right: the oracle of the conformance suite), `cpu` (SIMD,
// run-time dispatch) and, with a GPU, `cuda`.
//
// Threads: one thread (the engine's) calls the step operations; PlanAdapter and PackAdapter may be
// called from any thread at the same time. Operations are ordered; a result is readable on the host
// after HostRow() or Sampled().
//
// Numbers: an output row depends only on its own input row, its adapter and its own sequence, never
// on what else is in the batch: on the CPU backends results are bit-identical under any batching,
// chunking or order of rows.
//
// It does NOT know requests, tokens' meaning, or which pages are free.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/types.h"

namespace lorad::kernels {

// A block of device memory, zeroed, page-aligned, freed with the object.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual std::byte* data() = 0;
  virtual size_t bytes() const = 0;
};

// Activations: [max_rows, cols] in the backend's own element type and stride. Made by
// Backend::NewTensor.
class Tensor {
 public:
  virtual ~Tensor() = default;
  virtual int max_rows() const = 0;
  virtual int cols() const = 0;
};

// An immutable weight matrix packed for this backend, with an optional bias of one float per row.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual int rows() const = 0;  // outputs
  virtual int cols() const = 0;  // inputs
  virtual size_t bytes() const = 0;
};

// An immutable fp32 vector (norm weights, inverse frequencies).
class Vector {
 public:
  virtual ~Vector() = default;
  virtual int size() const = 0;
};

// An image on its way to pages. Segments that read it name it, and the backend lets them wait for
// each site just in time. May be destroyed at any time.
class AdapterTransfer {
 public:
  virtual ~AdapterTransfer() = default;
  virtual bool Done() const = 0;    // any thread
  virtual absl::Status Wait() = 0;  // until it is done
};

struct LinearArgs {
  int rows = 0;
  const Tensor* x = nullptr;  // [rows, w->cols()]
  const Matrix* w = nullptr;
  Tensor* y = nullptr;      // [rows, w->rows()]; must not alias x
  bool accumulate = false;  // y += ... instead of y = ...
  uint32_t site = 0;        // selects the modules of each segment's adapter
  std::span<const AdapterSegment> segments;
};

struct AttentionShape {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float scale = 0;  // of q.k before the softmax
  int window = 0;   // a query sees the last `window` positions, itself included; 0: all before it
};

struct RopeAppendArgs {
  int rows = 0;
  int layer = 0;
  AttentionShape shape;
  Tensor* qkv = nullptr;  // [rows, (heads + 2*kv_heads) * head_dim]: q heads, k heads, v heads; q
                          // is rotated in place
  const Tensor* angles = nullptr;  // [rows, head_dim] of RopeAngles
  const Vector* q_norm =
      nullptr;  // [head_dim] RMS norm of each head before the rotation (Qwen3), or null
  const Vector* k_norm = nullptr;  // [head_dim]
  float norm_eps = 0;
  std::span<const SequenceRows> sequences;  // cover [0, rows)
};

struct AttentionArgs {
  int rows = 0;
  int layer = 0;
  AttentionShape shape;
  const Tensor* qkv = nullptr;  // as RopeAppend left it
  Tensor* out = nullptr;        // [rows, heads * head_dim]
  std::span<const SequenceRows> sequences;
};

// How to draw one token. `temperature` 0: the likeliest, ties to the lower id. Otherwise tokens are
// weighed by softmax(logits / temperature) and kept if min_p, then top_k, then top_p keep them; the
// draw is number `index` of the stream `seed`. Equal logits: the lower id comes first.
struct SampleRow {
  int row = 0;
  float temperature = 0;
  int top_k = 0;       // 0: all
  float top_p = 1.0f;  // (0, 1]
  float min_p = 0;     // [0, 1]
  uint64_t seed = 0;
  uint64_t index = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  // E.g. "reference", "cpu/avx512bf16".
  virtual std::string_view name() const = 0;
  // An error: the device is broken, or something made at load time found no memory. What is
  // computed is worth nothing then.
  virtual absl::Status status() const { return absl::OkStatus(); }
  // Of the device's memory, now. 0: it is the host's.
  virtual uint64_t FreeBytes() const { return 0; }

  // --- Load time ---
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t bytes) = 0;
  virtual std::unique_ptr<Tensor> NewTensor(int max_rows, int cols, Precision precision) = 0;
  std::unique_ptr<Tensor> NewTensor(int max_rows, int cols) {
    return NewTensor(max_rows, cols, Precision::kActivation);
  }
  virtual std::unique_ptr<Vector> NewVector(std::span<const float> values) = 0;
  // Matrices with equal `cols` stacked by rows (q,k,v or gate,up become one). `bias`: empty or one
  // float per stacked row. A format that the backend does not know (see Supports) is a programming
  // error.
  virtual std::unique_ptr<Matrix> Pack(std::span<const HostMatrix> stacked,
                                       std::span<const float> bias, WeightFormat format) = 0;
  std::unique_ptr<Matrix> Pack(std::span<const HostMatrix> stacked, std::span<const float> bias) {
    return Pack(stacked, bias, WeightFormat::kBf16);
  }
  virtual bool Supports(WeightFormat format) const { return format == WeightFormat::kBf16; }

  // --- KV cache and pool: set once, before any step ---
  virtual size_t KvPageBytes(const KvGeometry& geometry) const = 0;  // a multiple of kPageGranule
  virtual void SetPool(const PageSlab& slab, const KvGeometry& geometry) = 0;

  // --- Adapters: thread-safe ---
  // Lays out an image. The order of `factors` is free; only shapes, sites and scales are read (data
  // may be null). REQUIRES: 1 <= rank, equal ranks in a pair, and no two modules that overlap in
  // one site.
  virtual AdapterLayout PlanAdapter(std::span<const LowRankFactors> factors, uint32_t sites,
                                    size_t page_bytes) const = 0;
  // Writes the image into `pages` of the slab. `factors` are those given to PlanAdapter, in the
  // same order.
  virtual void PackAdapter(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                           const PageSlab& slab, std::span<const uint32_t> pages) const = 0;

  // --- Adapters of a backend whose pages are not host memory: thread-safe ---
  // False: images are packed straight into pages, and the rest of this part is not called.
  virtual bool StagesAdapters() const { return false; }
  // Host memory that StartTransfer can read at full speed (pinned).
  virtual absl::StatusOr<std::unique_ptr<Buffer>> AllocateStaging(size_t bytes);
  // Writes the image into host memory, [layout.pages * page_bytes].
  virtual void StageAdapter(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                            std::span<std::byte> image) const;
  // Starts copying a staged image into pages, site by site in the order of execution. The copy
  // waits until the steps numbered up to `after_step` are over: the pages may be in their page
  // tables. `image` lives until the transfer is done.
  virtual std::unique_ptr<AdapterTransfer> StartTransfer(const AdapterLayout& layout,
                                                         std::span<const std::byte> image,
                                                         const PageSlab& slab,
                                                         std::span<const uint32_t> pages,
                                                         uint64_t after_step);
  // The number of the last step that was handed to the device (0: none), any thread.
  virtual uint64_t LastStep() const { return 0; }

  // --- A step ---
  // Operations may be put off and run together, the latest at EndStep or when a result is asked
  // for. The lists that they are given (spans of ids, positions, sequences, segments, rows) must
  // stay as they are until then; tensors must live until then.
  //
  // Hands the step to the device as far as it is not there yet, without waiting for it, and returns
  // its number (LastStep). At most two steps may be under way: wait for a step before the second
  // after it ends. 0: there are no numbers, and every operation is over when it returns.
  virtual uint64_t EndStep() { return 0; }
  // Waits until this step and all before it are over. An error: the device is broken, and nothing
  // that it computed since the last wait is worth anything.
  virtual absl::Status WaitForStep(uint64_t /*step*/) { return absl::OkStatus(); }
  // For tests and debugging: fills pages that nobody holds with NaN (bytes 0xff), after the steps
  // that were handed over and before anything that is given later, transfers too.
  virtual void PoisonPages(std::span<const uint32_t> pages) = 0;
  // Copies whole pages of the pool.  REQUIRES: no page is written twice, and none that is written
  // is read.
  virtual void CopyPages(std::span<const PageCopy> copies) = 0;
  // out[i] = table[ids[i]].  REQUIRES: 0 <= ids[i] < table.rows() (or see Sample).
  virtual void Embed(std::span<const int32_t> ids, const Matrix& table, Tensor& out) = 0;
  // y = x * weight / sqrt(mean(x^2) + eps), row by row.
  virtual void RmsNorm(int rows, const Tensor& x, const Vector& weight, float eps, Tensor& y) = 0;
  // y (+)= x W^T + bias, then each segment's rows get weight * scale * B (A x) of every module of
  // `site`.
  virtual void Linear(const LinearArgs& args) = 0;
  // angles[i] = [cos(p_i * f) | sin(p_i * f)], f = inv_freq [head_dim/2], p_i = positions[i].
  virtual void RopeAngles(std::span<const int32_t> positions, const Vector& inv_freq,
                          Tensor& angles) = 0;
  // Rotates q and k ("rotate half" as Hugging Face), writes k and v to the sequences' pages.
  virtual void RopeAppend(const RopeAppendArgs& args) = 0;
  // Causal attention of each row over its sequence's positions 0 .. its own.
  virtual void Attention(const AttentionArgs& args) = 0;
  // out = silu(gate) * up, gate_up [rows, 2*ffn]: gate first. Uses up gate_up: what it holds then
  // is not defined.
  virtual void SwiGlu(int rows, const Tensor& gate_up, Tensor& out) = 0;
  // out[i] = x[rows[i]].
  virtual void GatherRows(std::span<const int32_t> rows, const Tensor& x, Tensor& out) = 0;
  // Waits for all work and gives row `row` of x on the host, fp32 [cols]; valid until the next
  // operation.
  virtual std::span<float> HostRow(Tensor& x, int row) = 0;

  // --- Sampling on the device ---
  // False: sample on the host from HostRow; Sample is not called.
  virtual bool Samples() const { return false; }
  // Draws a token from each listed row of logits, at most once a step. In the next step an id of
  // -1 - k given to Embed stands for token k, so that it may follow without the host.
  virtual void Sample(const Tensor& logits, std::span<const SampleRow> rows);
  // The tokens of that step's Sample; waits for it as WaitForStep, but not for a step after it.
  // Valid until the second EndStep after it.  REQUIRES: one of the last two steps, with a Sample.
  virtual absl::StatusOr<std::span<const int32_t>> Sampled(uint64_t step);

  // Runs fn(0) ... fn(n-1) on the backend's host threads; returns when all are done. For host work
  // between operations (sampling). fn must not call the backend.
  virtual void ParallelFor(int n, const std::function<void(int)>& fn) = 0;
};

struct CpuOptions {
  int threads = 0;           // 0: the cores this process may use
  std::string isa = "auto";  // auto, amx, avx512bf16, avx512, avx2, portable
};

struct CudaOptions {
  int device = 0;
  KvFormat kv_format = KvFormat::kBf16;
  // Equal bits for a row whatever else is in its step, as on the CPU, at the price of slower steps
  // with many rows: every product is by kernels of our own.
  bool batch_invariant = false;
  std::string gemm_choices;  // file where the fastest products of the device are noted; empty: none
  int host_threads = 0;      // for ParallelFor; 0: the cores this process may use
  std::function<void(const std::string&)> notice;  // gets what an operator should know
};

std::unique_ptr<Backend> NewReferenceBackend();
// InvalidArgument for an instruction set that is unknown or that this machine lacks.
absl::StatusOr<std::unique_ptr<Backend>> NewCpuBackend(const CpuOptions& options);
// In lorad_cuda. FailedPrecondition: this build has none. Unavailable: no driver or device.
absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(const CudaOptions& options);

}  // namespace lorad::kernels
