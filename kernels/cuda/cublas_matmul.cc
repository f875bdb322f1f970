#include "kernels/cuda/cublas_matmul.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "memory/base/check.h"
#include "memory/base/status_macros.h"

namespace lorad::kernels::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;
constexpr int kCandidates = 16;
constexpr int kTrials = 5;
// Written between two trials, so that neither weights nor rows are in the cache, as in a step:
// more than the second-level cache of any device so far.
constexpr size_t kFlushBytes = size_t{192} << 20;

absl::Status Check(int status, const char* what) {
  if (status == kLtSuccess) return absl::OkStatus();
  return absl::InternalError(fmt::format("cublasLt: {} gave status {}", what, status));
}

}  // namespace

struct CublasMatmul::Product {
  const void* x;  // bf16 [rows, k]
  const void* w;  // bf16 [n, k]
  void* y;        // [rows, n]
  const void* bias;
  int32_t rows;
  int32_t n;
  int32_t k;  // padded: the padding is zero on both sides
  int32_t x_stride;
  int32_t y_stride;
  int32_t full;
  int32_t accumulate;
  int32_t reserved;

  GemmShape shape() const {
    return {n, k, GemmRowsBucket(rows), full != 0, accumulate != 0, bias != nullptr};
  }
};

// The library's matrices are column-major: it computes y^T [n, rows] = W x^T, where W [n, k] as we
// keep it is a transposed [k, n] and x^T is x as it lies.
class CublasMatmul::Problem {
 public:
  Problem(const LtApi& api, const Product& p) : api_(api) {
    const int transposed = kLtTransposed;
    const uint32_t epilogue = kLtEpilogueBias;
    Keep(api.operation_create(&operation_, kLtComputeFloat, kLtFloat));
    if (ok()) Keep(api.operation_set(operation_, kLtTransposeA, &transposed, sizeof(transposed)));
    if (ok() && p.bias != nullptr) {
      Keep(api.operation_set(operation_, kLtEpilogue, &epilogue, sizeof(epilogue)));
      Keep(api.operation_set(operation_, kLtBiasPointer, &p.bias, sizeof(p.bias)));
    }
    Keep(api.layout_create(&w_, kLtBf16, uint64_t(p.k), uint64_t(p.n), p.k));
    Keep(api.layout_create(&x_, kLtBf16, uint64_t(p.k), uint64_t(p.rows), p.x_stride));
    Keep(api.layout_create(&y_, p.full ? kLtFloat : kLtBf16, uint64_t(p.n), uint64_t(p.rows),
                           p.y_stride));
  }
  ~Problem() {
    if (operation_ != nullptr) api_.operation_destroy(operation_);
    for (LtLayout layout : {w_, x_, y_}) {
      if (layout != nullptr) api_.layout_destroy(layout);
    }
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  bool ok() const { return status_ == kLtSuccess; }
  int status() const { return status_; }
  LtOperation operation() const { return operation_; }
  LtLayout w() const { return w_; }
  LtLayout x() const { return x_; }
  LtLayout y() const { return y_; }

  // The library's best candidates, best first.
  std::vector<LtCandidate> Candidates(LtHandle handle) const {
    LtPreference preference = nullptr;
    std::vector<LtCandidate> found(kCandidates);
    int count = 0;
    if (api_.preference_create(&preference) != kLtSuccess) return {};
    const size_t bytes = kWorkspaceBytes;
    const bool asked =
        api_.preference_set(preference, kLtWorkspaceBytes, &bytes, sizeof(bytes)) == kLtSuccess &&
        api_.candidates(handle, operation_, w_, x_, y_, y_, preference, kCandidates, found.data(),
                        &count) == kLtSuccess;
    api_.preference_destroy(preference);
    found.resize(asked ? size_t(count) : 0);
    std::erase_if(found, [](const LtCandidate& c) {
      return c.status != kLtSuccess || c.workspace_bytes > kWorkspaceBytes;
    });
    return found;
  }

 private:
  void Keep(int status) {
    if (status_ == kLtSuccess) status_ = status;
  }
  const LtApi& api_;
  int status_ = kLtSuccess;
  LtOperation operation_ = nullptr;
  LtLayout w_ = nullptr;
  LtLayout x_ = nullptr;
  LtLayout y_ = nullptr;
};

absl::StatusOr<std::unique_ptr<CublasMatmul>> CublasMatmul::Create(
    Runtime& runtime, const LtApi& api, const std::string& choices_file) {
  LORAD_ASSIGN_OR_RETURN(DeviceMemory workspace, DeviceMemory::Allocate(runtime, kWorkspaceBytes));
  LtHandle handle = nullptr;
  LORAD_RETURN_IF_ERROR(Check(api.create(&handle), "cublasLtCreate"));
  GemmChoices choices(choices_file,
                      fmt::format("{}, cublasLt {}", runtime.facts().name, api.version()));
  return std::unique_ptr<CublasMatmul>(
      new CublasMatmul(runtime, api, handle, std::move(workspace), std::move(choices)));
}

CublasMatmul::CublasMatmul(Runtime& runtime, const LtApi& api, LtHandle handle,
                           DeviceMemory workspace, GemmChoices choices)
    : runtime_(runtime),
      api_(api),
      handle_(handle),
      workspace_(std::move(workspace)),
      choices_(std::move(choices)) {}

CublasMatmul::~CublasMatmul() { api_.destroy(handle_); }

void CublasMatmul::Record(Program& program, const GemmParams& params, const void* bf16_bias) {
  LORAD_CHECK(params.w.format == WeightFormat::kBf16 && params.x.stride >= params.w.stride);
  const void* bias = params.y.full ? static_cast<const void*>(params.w.bias) : bf16_bias;
  const Product product{.x = params.x.data,
                        .w = params.w.data,
                        .y = params.y.data,
                        .bias = params.w.bias == nullptr ? nullptr : bias,
                        .rows = params.rows,
                        .n = params.w.rows,
                        .k = params.w.stride,
                        .x_stride = params.x.stride,
                        .y_stride = params.y.stride,
                        .full = params.y.full,
                        .accumulate = params.accumulate,
                        .reserved = 0};
  program.Call(
      [](void* self, Stream stream, const void* args) {
        static_cast<CublasMatmul*>(self)->Run(stream, *static_cast<const Product*>(args));
      },
      this, product);
}

void CublasMatmul::Run(Stream stream, const Product& product) {
  const Problem problem(api_, product);
  if (!problem.ok()) return runtime_.Fail(Check(problem.status(), "describing a product"));
  // A program's first run is never part of a capture, so trials are not either.
  const LtAlgorithm* choice = choices_.Find(product.shape());
  if (choice == nullptr) {
    // Choices that cannot be written down are made again at the next start.
    choices_.Add(product.shape(), Try(stream, product, problem)).IgnoreError();
    choice = choices_.Find(product.shape());
  }
  const bool chosen = std::ranges::any_of(choice->data, [](uint64_t word) { return word != 0; });
  int status = Multiply(stream, product, problem, product.y, chosen ? choice : nullptr);
  // A choice may not be able to do other numbers of rows of its bucket; the library then chooses.
  if (status != kLtSuccess && chosen)
    status = Multiply(stream, product, problem, product.y, nullptr);
  if (status != kLtSuccess) runtime_.Fail(Check(status, "cublasLtMatmul"));
}

int CublasMatmul::Multiply(Stream stream, const Product& product, const Problem& problem, void* y,
                           const LtAlgorithm* algorithm) {
  const float one = 1, beta = product.accumulate ? 1 : 0;
  return api_.matmul(handle_, problem.operation(), &one, product.w, problem.w(), product.x,
                     problem.x(), &beta, y, problem.y(), y, problem.y(), algorithm,
                     workspace_.data(), workspace_.bytes(), runtime_.NativeStream(stream));
}

LtAlgorithm CublasMatmul::Try(Stream stream, const Product& product, const Problem& problem) {
  const std::vector<LtCandidate> candidates = problem.Candidates(handle_);
  if (candidates.empty()) return {};
  const LtAlgorithm first = candidates[0].algorithm;
  const size_t y_bytes =
      size_t(product.rows) * size_t(product.y_stride) * (product.full ? sizeof(float) : 2);
  auto y = DeviceMemory::Allocate(runtime_, y_bytes);
  auto flush = DeviceMemory::Allocate(runtime_, kFlushBytes);
  if (candidates.size() == 1 || !y.ok() || !flush.ok()) return first;
  const Event begin = runtime_.NewTimingEvent(), end = runtime_.NewTimingEvent();
  std::vector<std::vector<float>> times(candidates.size());
  std::vector<bool> failed(candidates.size());
  for (int trial = 0; trial < kTrials; ++trial) {
    for (size_t i = 0; i < candidates.size(); ++i) {
      if (failed[i]) continue;
      runtime_.Fill(stream, flush->data(), uint8_t(trial), flush->bytes());
      runtime_.Record(begin, stream);
      const int status = Multiply(stream, product, problem, y->data(), &candidates[i].algorithm);
      runtime_.Record(end, stream);
      failed[i] = status != kLtSuccess || !runtime_.Synchronize(end).ok();
      if (failed[i]) {
        times[i].clear();
      } else if (trial > 0) {  // the first one loads the kernel
        times[i].push_back(runtime_.MillisecondsBetween(begin, end));
      }
    }
  }
  runtime_.FreeEvent(begin);
  runtime_.FreeEvent(end);
  const int best = FastestOf(times);
  return best < 0 ? first : candidates[size_t(best)].algorithm;
}

}  // namespace lorad::kernels::cuda
