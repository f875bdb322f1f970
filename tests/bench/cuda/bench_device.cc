#include "tests/bench/cuda/bench_device.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "fmt/format.h"
#include "tests/bench/cuda/calibration.h"

namespace lorad::bench {
namespace {

using kernels::cuda::PaddedColumns;

[[noreturn]] void Fail(const absl::Status& status) {
  fmt::print(stderr, "the device failed: {}\n", std::string(status.message()));
  std::exit(1);
}

void Check(const absl::Status& status) {
  if (!status.ok()) Fail(status);
}

}  // namespace

DeviceBytes::DeviceBytes(kernels::cuda::Runtime* runtime, size_t bytes)
    : runtime_(runtime), bytes_(bytes) {
  auto memory = runtime->AllocateDevice(std::max<size_t>(bytes, 16));
  if (!memory.ok()) Fail(memory.status());
  data_ = static_cast<std::byte*>(*memory);
}

DeviceBytes::~DeviceBytes() {
  if (data_ != nullptr) runtime_->FreeDevice(data_);
}

DeviceBytes::DeviceBytes(DeviceBytes&& other) noexcept { *this = std::move(other); }

DeviceBytes& DeviceBytes::operator=(DeviceBytes&& other) noexcept {
  std::swap(runtime_, other.runtime_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

BenchDevice::BenchDevice(std::unique_ptr<kernels::cuda::Runtime> runtime)
    : runtime_(std::move(runtime)),
      stream_(runtime_->NewStream(/*high_priority=*/false)),
      launcher_(*runtime_, stream_) {}

DeviceBytes BenchDevice::Upload(const void* data, size_t bytes) {
  DeviceBytes memory = Allocate(bytes);
  auto staging = runtime_->AllocateHost(std::max<size_t>(bytes, 16));
  if (!staging.ok()) Fail(staging.status());
  std::copy_n(static_cast<const std::byte*>(data), bytes, static_cast<std::byte*>(*staging));
  runtime_->Copy(stream_, memory.data(), *staging, bytes);
  Finish();
  runtime_->FreeHost(*staging);
  return memory;
}

std::vector<std::byte> BenchDevice::Download(const void* data, size_t bytes) {
  auto staging = runtime_->AllocateHost(std::max<size_t>(bytes, 16));
  if (!staging.ok()) Fail(staging.status());
  runtime_->Copy(stream_, *staging, data, bytes);
  Finish();
  std::vector<std::byte> out(bytes);
  std::copy_n(static_cast<const std::byte*>(*staging), bytes, out.begin());
  runtime_->FreeHost(*staging);
  return out;
}

DeviceTensor BenchDevice::ZeroTensor(int rows, int cols, bool full) {
  const int stride = PaddedColumns(cols);
  DeviceTensor tensor{Allocate(size_t(rows) * size_t(stride) * (full ? 4 : 2)), {}};
  tensor.view = {tensor.memory.data(), cols, stride, full};
  return tensor;
}

DeviceTensor BenchDevice::RandomTensor(uint32_t seed, int rows, int cols, bool full) {
  DeviceTensor tensor = ZeroTensor(rows, cols, full);
  LaunchFill(launcher_, facts(),
             {.data = tensor.memory.data(),
              .rows = rows,
              .cols = cols,
              .stride = tensor.view.stride,
              .seed = seed,
              .full = full});
  Finish();
  return tensor;
}

std::vector<float> BenchDevice::Read(const DeviceTensor& tensor, int row) {
  const auto cols = size_t(tensor.view.cols);
  const size_t element = tensor.view.full ? 4 : 2;
  const auto bytes = Download(
      tensor.memory.data() + size_t(row) * size_t(tensor.view.stride) * element, cols * element);
  std::vector<float> values(cols);
  for (size_t i = 0; i < cols; ++i) {
    if (tensor.view.full) {
      std::memcpy(&values[i], &bytes[i * 4], 4);
    } else {
      uint16_t bits = 0;
      std::memcpy(&bits, &bytes[i * 2], 2);
      values[i] = std::bit_cast<float>(uint32_t{bits} << 16);
    }
  }
  return values;
}

void BenchDevice::Finish() {
  Check(runtime_->Synchronize(stream_));
  Check(runtime_->status());
}

double BenchDevice::Seconds(int calls,
                            const std::function<void(kernels::cuda::Launcher&, int)>& call) {
  using Clock = std::chrono::steady_clock;
  runtime_->BeginCapture(stream_);
  for (int i = 0; i < calls; ++i) call(launcher_, i);
  const auto graph = runtime_->EndCapture(stream_);
  if (!graph.ok()) Fail(graph.status());
  constexpr double kEnough = 0.2;  // seconds
  double best = 0, total = 0;
  for (int run = 0; run == 0 || (!smoke_ && (run < 5 || total < kEnough)); ++run) {
    const auto start = Clock::now();
    runtime_->LaunchGraph(stream_, *graph);
    Finish();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    total += seconds;
    best = run == 0 ? seconds : std::min(best, seconds);
  }
  runtime_->FreeGraph(*graph);
  return best / calls;
}

}  // namespace lorad::bench
