#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "fmt/format.h"
#include "kernels/cuda/adapter_ops.h"
#include "memory/base/check.h"
#include "memory/base/status_macros.h"

namespace lorad::kernels::cuda {
namespace {

constexpr size_t kMaxSampled = 65536;
// Tokens of a step are valid until the second step after it ends, so a third may be on its way.
constexpr size_t kTokenBuffers = 3;

}  // namespace

absl::StatusOr<std::unique_ptr<CudaBackend>> CudaBackend::Create(
    std::unique_ptr<Runtime> runtime, const CudaBackendOptions& options) {
  std::unique_ptr<CudaBackend> backend(new CudaBackend(std::move(runtime), options));
  LORAD_RETURN_IF_ERROR(backend->Init(options));
  return backend;
}

CudaBackend::CudaBackend(std::unique_ptr<Runtime> runtime, const CudaBackendOptions& options)
    : runtime_(std::move(runtime)),
      name_(fmt::format("cuda/sm_{}", runtime_->facts().compute_capability)),
      kv_format_(options.kv_format),
      host_pool_(options.host_threads) {}

absl::Status CudaBackend::Init(const CudaBackendOptions& options) {
  LORAD_ASSIGN_OR_RETURN(runner_, ProgramRunner::Create(*runtime_, options.programs));
  storage_ = std::make_unique<Storage>(*runtime_, runner_->compute());
  copies_ = std::make_unique<AdapterCopies>(*runtime_, *runner_);
  if (options.lt.has_value()) {
    LORAD_ASSIGN_OR_RETURN(matmul_,
                           CublasMatmul::Create(*runtime_, *options.lt, options.gemm_choices));
  }
  LORAD_ASSIGN_OR_RETURN(tokens_, DeviceMemory::Allocate(*runtime_, kMaxSampled * sizeof(int32_t)));
  for (size_t i = 0; i < kTokenBuffers; ++i) {
    StepTokens& tokens = step_tokens_.emplace_back();
    LORAD_ASSIGN_OR_RETURN(tokens.memory,
                           PinnedMemory::Allocate(*runtime_, kMaxSampled * sizeof(int32_t)));
    tokens.copied = OwnedEvent(*runtime_);
  }
  lowering_ = std::make_unique<StepLowering>(
      StepLowering::Parts{.runtime = runtime_.get(),
                          .matmul = matmul_.get(),
                          .tokens = reinterpret_cast<int32_t*>(tokens_.data()),
                          .max_tokens = static_cast<int>(kMaxSampled)});
  return absl::OkStatus();
}

CudaBackend::~CudaBackend() {
  if (runner_ != nullptr) runtime_->Synchronize(runner_->compute()).IgnoreError();
}

absl::Status CudaBackend::status() const {
  absl::Status status = runtime_->status();
  status.Update(storage_->status());
  return status;
}

void CudaBackend::Fail(const absl::Status& status) {
  if (!status.ok()) runtime_->Fail(status);
}

// --- Load time ---

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::Allocate(size_t bytes) {
  LORAD_ASSIGN_OR_RETURN(DeviceMemory memory, DeviceMemory::Allocate(*runtime_, bytes));
  return std::make_unique<OwnedBuffer<DeviceMemory>>(std::move(memory));
}

std::unique_ptr<Tensor> CudaBackend::NewTensor(int max_rows, int cols, Precision precision) {
  host_rows_.tensor = nullptr;  // the new one may lie where the old one was
  return storage_->NewTensor(max_rows, cols, precision == Precision::kFull);
}

std::unique_ptr<Vector> CudaBackend::NewVector(std::span<const float> values) {
  return storage_->NewVector(values);
}

std::unique_ptr<Matrix> CudaBackend::Pack(std::span<const HostMatrix> stacked,
                                          std::span<const float> bias, WeightFormat format) {
  return storage_->NewMatrix(stacked, bias, format, /*with_bf16_bias=*/matmul_ != nullptr);
}

size_t CudaBackend::KvPageBytes(const KvGeometry& geometry) const {
  const size_t bytes = cuda::KvPageBytes(geometry, kv_format_);
  return (bytes + kPageGranule - 1) / kPageGranule * kPageGranule;
}

void CudaBackend::SetPool(const PageSlab& slab, const KvGeometry& geometry) {
  LORAD_CHECK(slab.page_bytes % kPageGranule == 0);
  slab_ = slab;
  lowering_->SetPool(slab, {.slab = slab.data,
                            .page_bytes = slab.page_bytes,
                            .geometry = geometry,
                            .format = kv_format_});
}

// --- Adapters ---

AdapterLayout CudaBackend::PlanAdapter(std::span<const LowRankFactors> factors, uint32_t sites,
                                       size_t page_bytes) const {
  return PlanAdapterImage(factors, sites, page_bytes);
}

void CudaBackend::PackAdapter(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                              const PageSlab& slab, std::span<const uint32_t> pages) const {
  if (layout.pages == 0) return;
  auto image = PinnedMemory::Allocate(*runtime_, size_t{layout.pages} * slab.page_bytes);
  if (!image.ok()) return runtime_->Fail(image.status());
  StageAdapter(layout, factors, image->span());
  // A failed transfer stays in the runtime's status.
  copies_->Start(layout, image->span(), slab, pages, std::max(LastStep(), last_poison_.load()))
      ->Wait()
      .IgnoreError();
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaBackend::AllocateStaging(size_t bytes) {
  LORAD_ASSIGN_OR_RETURN(PinnedMemory memory, PinnedMemory::Allocate(*runtime_, bytes));
  return std::make_unique<OwnedBuffer<PinnedMemory>>(std::move(memory));
}

void CudaBackend::StageAdapter(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                               std::span<std::byte> image) const {
  if (layout.pages == 0) return;
  LORAD_CHECK(image.size() % layout.pages == 0);
  PackAdapterImage(layout, factors, image.size() / layout.pages, image);
}

std::unique_ptr<AdapterTransfer> CudaBackend::StartTransfer(const AdapterLayout& layout,
                                                            std::span<const std::byte> image,
                                                            const PageSlab& slab,
                                                            std::span<const uint32_t> pages,
                                                            uint64_t after_step) {
  return copies_->Start(layout, image, slab, pages, std::max(after_step, last_poison_.load()));
}

// --- A step ---

void CudaBackend::Record(StepOp op) {
  host_rows_.tensor = nullptr;
  step_.ops.push_back(std::move(op));
}

void CudaBackend::CopyPages(std::span<const PageCopy> copies) {
  if (!copies.empty()) Record(CopyPagesOp{copies});
}

void CudaBackend::Embed(std::span<const int32_t> ids, const Matrix& table, Tensor& out) {
  LORAD_CHECK(table.cols() == out.cols() && static_cast<int>(ids.size()) <= out.max_rows());
  Record(EmbedOp{ids, &Of(table), &Of(out)});
}

void CudaBackend::RmsNorm(int rows, const Tensor& x, const Vector& weight, float eps, Tensor& y) {
  LORAD_CHECK(x.cols() == weight.size() && x.cols() == y.cols());
  Record(RmsNormOp{rows, &Of(x), &Of(weight), eps, &Of(y)});
}

void CudaBackend::Linear(const LinearArgs& args) {
  LORAD_CHECK(args.rows >= 1 && args.rows <= std::min(args.x->max_rows(), args.y->max_rows()));
  LORAD_CHECK(args.x->cols() == args.w->cols() && args.y->cols() == args.w->rows());
  LinearOp op{args, step_.waits.size(), 0};
  for (const AdapterSegment& segment : args.segments) {
    if (segment.transfer == nullptr) continue;
    const auto& copies = static_cast<const CudaTransfer*>(segment.transfer)->copies();
    if (copies->Done()) continue;
    auto at = std::ranges::find(step_.images, copies);
    if (at == step_.images.end()) at = step_.images.insert(at, copies);
    step_.waits.push_back(static_cast<size_t>(at - step_.images.begin()));
    ++op.waits;
  }
  Record(op);
}

void CudaBackend::RopeAngles(std::span<const int32_t> positions, const Vector& inv_freq,
                             Tensor& angles) {
  LORAD_CHECK(angles.cols() == 2 * inv_freq.size());
  LORAD_CHECK(static_cast<int>(positions.size()) <= angles.max_rows());
  Record(RopeAnglesOp{positions, &Of(inv_freq), &Of(angles)});
}

void CudaBackend::RopeAppend(const RopeAppendArgs& args) { Record(RopeAppendOp{args}); }

void CudaBackend::Attention(const AttentionArgs& args) { Record(AttentionOp{args}); }

void CudaBackend::SwiGlu(int rows, const Tensor& gate_up, Tensor& out) {
  LORAD_CHECK(gate_up.cols() == 2 * out.cols());
  Record(SwiGluOp{rows, &Of(gate_up), &Of(out)});
}

void CudaBackend::GatherRows(std::span<const int32_t> rows, const Tensor& x, Tensor& out) {
  LORAD_CHECK(x.cols() == out.cols() && static_cast<int>(rows.size()) <= out.max_rows());
  Record(GatherRowsOp{rows, &Of(x), &Of(out)});
}

void CudaBackend::Sample(const Tensor& logits, std::span<const SampleRow> rows) {
  LORAD_CHECK(sampled_ == 0 && rows.size() <= kMaxSampled);
  if (rows.empty()) return;
  sampled_ = rows.size();
  Record(SampleOp{&Of(logits), rows});
}

void CudaBackend::Sum(RankExchange* ranks, Tensor& x, int rows) {
  LORAD_CHECK(rows >= 1 && rows <= x.max_rows());
  Record(SumOp{ranks, rows, &Of(x)});
}

void CudaBackend::Gather(RankExchange* ranks, const Tensor& part, Tensor& whole, int rows) {
  LORAD_CHECK(rows >= 1 && rows <= std::min(part.max_rows(), whole.max_rows()));
  Record(GatherOp{ranks, rows, &Of(part), &Of(whole)});
}

void CudaBackend::Flush() {
  if (step_.empty()) return;
  if (status().ok()) RunProgram();
  if (sampled_ > 0) FetchTokens();
  step_.Clear();
  sampled_ = 0;
}

void CudaBackend::RunProgram() {
  while (true) {
    Program& program = runner_->Begin();
    if (lowering_->Lower(step_, &program)) break;
    absl::Status grown = runner_->Grow();
    grown.Update(lowering_->Grow());
    if (!grown.ok()) return Fail(grown);
  }
  runner_->Run(/*replayable=*/StepLowering::DecodesOnly(step_));
}

void CudaBackend::FetchTokens() {
  StepTokens& tokens = step_tokens_[next_tokens_++ % kTokenBuffers];
  tokens.count = sampled_;
  tokens.step = 0;
  runtime_->Copy(runner_->compute(), tokens.memory.data(), tokens_.data(),
                 sampled_ * sizeof(int32_t));
  runtime_->Record(tokens.copied.get(), runner_->compute());
}

uint64_t CudaBackend::EndStep() {
  Flush();
  if (runner_->last_step() == last_end_) runner_->MarkStep();  // each step has its own number
  last_end_ = runner_->last_step();
  if (next_tokens_ > 0) {
    StepTokens& tokens = step_tokens_[(next_tokens_ - 1) % kTokenBuffers];
    if (tokens.step == 0) tokens.step = last_end_;
  }
  return last_end_;
}

absl::Status CudaBackend::WaitForStep(uint64_t step) {
  if (step > 0) runner_->AwaitStep(step).IgnoreError();  // stays in the status
  return status();
}

absl::StatusOr<std::span<const int32_t>> CudaBackend::Sampled(uint64_t step) {
  const auto tokens = std::ranges::find(step_tokens_, step, &StepTokens::step);
  LORAD_CHECK(step > 0 && tokens != step_tokens_.end());
  runtime_->Synchronize(tokens->copied.get()).IgnoreError();
  LORAD_RETURN_IF_ERROR(status());
  return std::span(reinterpret_cast<const int32_t*>(tokens->memory.data()), tokens->count);
}

void CudaBackend::PoisonPages(std::span<const uint32_t> pages) {
  if (pages.empty()) return;
  Flush();
  for (size_t first = 0; first < pages.size();) {
    size_t count = 1;
    while (first + count < pages.size() && pages[first + count] == pages[first] + count) ++count;
    runtime_->Fill(runner_->compute(), slab_.Page(pages[first]), 0xff, count * slab_.page_bytes);
    first += count;
  }
  runner_->MarkStep();
  last_poison_.store(runner_->last_step());
}

std::span<float> CudaBackend::HostRow(Tensor& x, int row) {
  LORAD_CHECK(row >= 0 && row < x.max_rows());
  Flush();
  const CudaTensor& tensor = Of(x);
  if (host_rows_.tensor != &tensor || row >= host_rows_.rows) {
    Download(tensor, std::max(tensor.rows(), row + 1));
  }
  return {host_rows_.first + static_cast<size_t>(row) * host_rows_.stride,
          static_cast<size_t>(tensor.cols())};
}

// The buffers have room for all rows of the tensor, so that rows given before stay where they are.
void CudaBackend::Download(const CudaTensor& tensor, int rows) {
  const auto max_rows = static_cast<size_t>(tensor.max_rows());
  const auto cols = static_cast<size_t>(tensor.cols());
  const bool in_place = tensor.view().full && FetchRows(tensor, rows);
  host_rows_.tensor = &tensor;
  host_rows_.rows = rows;
  if (in_place) {
    host_rows_.first = reinterpret_cast<float*>(host_rows_.memory.data());
    host_rows_.stride = static_cast<size_t>(tensor.view().stride);
    return;
  }
  host_rows_.values.resize(max_rows * cols);
  host_rows_.first = host_rows_.values.data();
  host_rows_.stride = cols;
  if (tensor.view().full || !FetchRows(tensor, rows)) return;
  for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
    const auto* from =
        reinterpret_cast<const uint16_t*>(host_rows_.memory.data() + row * tensor.row_bytes());
    for (size_t i = 0; i < cols; ++i) {
      host_rows_.values[row * cols + i] = std::bit_cast<float>(uint32_t{from[i]} << 16);
    }
  }
}

// False: there is an error, and host_rows_.memory holds nothing.
bool CudaBackend::FetchRows(const CudaTensor& tensor, int rows) {
  const size_t bytes = static_cast<size_t>(tensor.max_rows()) * tensor.row_bytes();
  if (host_rows_.memory.bytes() < bytes) {
    host_rows_.memory = {};
    auto memory = PinnedMemory::Allocate(*runtime_, bytes);
    if (!memory.ok()) {
      Fail(memory.status());
      return false;
    }
    host_rows_.memory = *std::move(memory);
  }
  if (!status().ok()) return false;
  runtime_->Copy(runner_->compute(), host_rows_.memory.data(), tensor.view().data,
                 static_cast<size_t>(rows) * tensor.row_bytes());
  return runtime_->Synchronize(runner_->compute()).ok();
}

void CudaBackend::ParallelFor(int n, const std::function<void(int)>& fn) {
  host_pool_.ParallelFor(n, [&fn](int i, int) { fn(i); });
}

}  // namespace lorad::kernels::cuda
