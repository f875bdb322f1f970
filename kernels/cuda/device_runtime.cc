// Runtime over the CUDA runtime API. The only file that calls it; linked statically, so that a
// machine without a driver gets an error from OpenDevice and not from the loader.
//
// The API's current device and capture mode belong to the calling thread: every call selects the
// device first. Captures run one at a time and keep FreeDevice out: it waits for streams, and to
// wait for one that captures would spoil the capture (CUDA Programming Guide, "Creating a Graph
// Using Stream Capture").
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "kernels/cuda/runtime.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kLeastComputeCapability = 80;
// A kernel whose shared memory, static and dynamic, is more than this has to ask for the dynamic
// part.
constexpr size_t kSharedWithoutOptIn = 48 * 1024;

std::string Describe(cudaError_t error) {
  return fmt::format("{} ({})", cudaGetErrorString(error), cudaGetErrorName(error));
}

std::string VersionName(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

// Makes the device the calling thread's.
cudaError_t Select(int index) {
  thread_local int current = -1;
  if (current == index) return cudaSuccess;
  const cudaError_t error = cudaSetDevice(index);
  current = error == cudaSuccess ? index : -1;
  return error;
}

// For the length of a call: what a first launch loads is no part of a capture.
class OutsideCapture {
 public:
  OutsideCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~OutsideCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  OutsideCapture(const OutsideCapture&) = delete;
  OutsideCapture& operator=(const OutsideCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

class DeviceRuntime final : public Runtime {
 public:
  DeviceRuntime(int index, DeviceFacts facts) : index_(index), facts_(std::move(facts)) {}
  ~DeviceRuntime() override;
  absl::Status Open();

  const DeviceFacts& facts() const override { return facts_; }
  absl::Status status() const override;
  void Fail(const absl::Status& status) override;
  size_t FreeBytes() const override;

  absl::StatusOr<void*> AllocateDevice(size_t bytes) override;
  void FreeDevice(void* memory) override;
  absl::StatusOr<void*> AllocateHost(size_t bytes) override;
  void FreeHost(void* memory) override;

  Stream NewStream(bool high_priority) override;
  void Copy(Stream stream, void* to, const void* from, size_t bytes) override;
  void Fill(Stream stream, void* to, uint8_t byte, size_t bytes) override;
  void Launch(Stream stream, const KernelRef& kernel, const Grid& grid, const void* args) override;

  Event NewEvent() override { return AddEvent(cudaEventDisableTiming); }
  void FreeEvent(Event event) override;
  void Record(Event event, Stream stream) override;
  void Wait(Stream stream, Event event) override;
  bool IsDone(Event event) override;
  absl::Status Synchronize(Event event) override;
  absl::Status Synchronize(Stream stream) override;
  Event NewTimingEvent() override { return AddEvent(cudaEventDefault); }
  float MillisecondsBetween(Event from, Event to) override;
  void* NativeStream(Stream stream) override { return At(stream); }

  void BeginCapture(Stream stream) override;
  absl::StatusOr<Graph> EndCapture(Stream stream) override;
  void LaunchGraph(Stream stream, Graph graph) override;
  void FreeGraph(Graph graph) override;

 private:
  // Objects by number; a freed number is used again.
  template <typename T>
  struct Table {
    std::vector<T> objects;
    std::vector<int> unused;

    int Add(T object) {
      if (unused.empty()) {
        objects.push_back(object);
        return static_cast<int>(objects.size()) - 1;
      }
      const int id = unused.back();
      unused.pop_back();
      objects[static_cast<size_t>(id)] = object;
      return id;
    }
    T Take(int id) {
      At(id);
      unused.push_back(id);
      return std::exchange(objects[static_cast<size_t>(id)], nullptr);
    }
    T At(int id) const {
      LORAD_CHECK(id >= 0 && static_cast<size_t>(id) < objects.size());
      LORAD_CHECK(objects[static_cast<size_t>(id)] != nullptr);
      return objects[static_cast<size_t>(id)];
    }
  };

  void Enter() const { (void)Select(index_); }  // an error shows in the next call
  // Keeps the first error. Returns whether there was none.
  bool Check(cudaError_t error, const char* call, const char* detail = "");
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  cudaStream_t At(Stream stream) const;
  cudaEvent_t At(Event event) const;
  Event AddEvent(unsigned flags);
  // Loads a kernel before its first launch and lets it have that much dynamic shared memory.
  bool Prepare(const KernelRef& kernel, size_t shared_bytes);

  const int index_;
  const DeviceFacts facts_;
  cudaStream_t setup_ = nullptr;  // for zeroing memory
  int low_priority_ = 0;
  int high_priority_ = 0;

  std::atomic<bool> failed_ = false;
  mutable std::mutex status_mutex_;
  absl::Status status_;

  std::mutex capture_mutex_;           // held from BeginCapture to EndCapture
  mutable std::mutex mutex_;           // the rest
  std::vector<cudaStream_t> streams_;  // stream i is number i + 1
  Table<cudaEvent_t> events_;
  Table<cudaGraphExec_t> graphs_;
  std::unordered_map<const void*, size_t>
      prepared_;  // the dynamic shared memory that a kernel may have
};

// --- Errors ---

absl::Status DeviceRuntime::status() const {
  const std::lock_guard lock(status_mutex_);
  return status_;
}

void DeviceRuntime::Fail(const absl::Status& status) {
  if (status.ok()) return;
  const std::lock_guard lock(status_mutex_);
  status_.Update(status);
  failed_.store(true, std::memory_order_release);
}

bool DeviceRuntime::Check(cudaError_t error, const char* call, const char* detail) {
  if (error == cudaSuccess) return true;
  cudaGetLastError();  // ours now
  Fail(absl::InternalError(fmt::format("{}: {}{}{}: {}", facts_.name, call, *detail ? " of " : "",
                                       detail, Describe(error))));
  return false;
}

// --- Start and end ---

absl::Status DeviceRuntime::Open() {
  Enter();
  Check(cudaDeviceGetStreamPriorityRange(&low_priority_, &high_priority_),
        "cudaDeviceGetStreamPriorityRange");
  Check(cudaStreamCreateWithFlags(&setup_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return status();
}

DeviceRuntime::~DeviceRuntime() {
  Enter();
  for (const cudaStream_t stream : streams_) {
    if (stream == nullptr) continue;
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
  }
  for (const cudaGraphExec_t graph : graphs_.objects) {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
  for (const cudaEvent_t event : events_.objects) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  if (setup_ != nullptr) cudaStreamDestroy(setup_);
}

// --- Memory ---

size_t DeviceRuntime::FreeBytes() const {
  Enter();
  size_t free = 0, total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? free : 0;
}

absl::StatusOr<void*> DeviceRuntime::AllocateDevice(size_t bytes) {
  Enter();
  if (failed()) return status();
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, std::max<size_t>(bytes, 1));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(fmt::format(
        "{}: {} bytes of device memory do not fit, {} are free", facts_.name, bytes, FreeBytes()));
  }
  if (!Check(error, "cudaMalloc")) return status();
  // Waited for: whoever gets the memory may use it on any stream.
  if (!Check(cudaMemsetAsync(memory, 0, bytes, setup_), "cudaMemsetAsync") ||
      !Check(cudaStreamSynchronize(setup_), "cudaStreamSynchronize")) {
    cudaFree(memory);
    return status();
  }
  return memory;
}

void DeviceRuntime::FreeDevice(void* memory) {
  if (memory == nullptr) return;
  Enter();
  const std::lock_guard capture_lock(capture_mutex_);
  std::vector<cudaStream_t> streams;
  {
    const std::lock_guard lock(mutex_);
    streams = streams_;
  }
  for (const cudaStream_t stream : streams) {
    Check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  }
  Check(cudaFree(memory), "cudaFree");
}

absl::StatusOr<void*> DeviceRuntime::AllocateHost(size_t bytes) {
  Enter();
  if (failed()) return status();
  void* memory = nullptr;
  const cudaError_t error =
      cudaHostAlloc(&memory, std::max<size_t>(bytes, 1), cudaHostAllocPortable);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(
        fmt::format("{}: {} bytes of pinned host memory do not fit", facts_.name, bytes));
  }
  if (!Check(error, "cudaHostAlloc")) return status();
  return memory;
}

void DeviceRuntime::FreeHost(void* memory) {
  if (memory == nullptr) return;
  Enter();
  const std::lock_guard capture_lock(capture_mutex_);
  Check(cudaFreeHost(memory), "cudaFreeHost");
}

// --- Streams ---

Stream DeviceRuntime::NewStream(bool high_priority) {
  Enter();
  cudaStream_t stream = nullptr;
  Check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                     high_priority ? high_priority_ : low_priority_),
        "cudaStreamCreateWithPriority");
  const std::lock_guard lock(mutex_);
  streams_.push_back(stream);
  return {static_cast<int>(streams_.size())};
}

cudaStream_t DeviceRuntime::At(Stream stream) const {
  const std::lock_guard lock(mutex_);
  LORAD_CHECK(stream.id >= 1 && static_cast<size_t>(stream.id) <= streams_.size());
  return streams_[static_cast<size_t>(stream.id) - 1];
}

void DeviceRuntime::Copy(Stream stream, void* to, const void* from, size_t bytes) {
  if (bytes == 0 || failed()) return;
  Enter();
  Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, At(stream)), "cudaMemcpyAsync");
}

void DeviceRuntime::Fill(Stream stream, void* to, uint8_t byte, size_t bytes) {
  if (bytes == 0 || failed()) return;
  Enter();
  Check(cudaMemsetAsync(to, byte, bytes, At(stream)), "cudaMemsetAsync");
}

bool DeviceRuntime::Prepare(const KernelRef& kernel, size_t shared_bytes) {
  const std::lock_guard lock(mutex_);
  const auto [known, is_new] = prepared_.try_emplace(kernel.function, 0);
  if (!is_new && shared_bytes <= known->second) return true;
  const OutsideCapture outside;
  if (is_new) {
    cudaFuncAttributes attributes;
    if (!Check(cudaFuncGetAttributes(&attributes, kernel.function), "cudaFuncGetAttributes",
               kernel.name)) {
      return false;
    }
    // Its __launch_bounds__, or what its registers leave.
    LORAD_CHECK(kernel.threads <= attributes.maxThreadsPerBlock);
    known->second = kSharedWithoutOptIn - attributes.sharedSizeBytes;
  }
  if (shared_bytes <= known->second) return true;
  known->second = shared_bytes;
  return Check(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shared_bytes)),
               "cudaFuncSetAttribute", kernel.name);
}

void DeviceRuntime::Launch(Stream stream, const KernelRef& kernel, const Grid& grid,
                           const void* args) {
  if (grid.x == 0 || grid.y == 0 || failed()) return;
  LORAD_CHECK(grid.x > 0 && grid.y > 0 && grid.y <= facts_.max_grid_y);
  Enter();
  if (!Prepare(kernel, grid.shared_bytes)) return;
  void* arguments[] = {const_cast<void*>(args)};  // copied by the call
  Check(cudaLaunchKernel(
            kernel.function, dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y)),
            dim3(static_cast<unsigned>(kernel.threads)), arguments, grid.shared_bytes, At(stream)),
        "cudaLaunchKernel", kernel.name);
}

// --- Events ---

Event DeviceRuntime::AddEvent(unsigned flags) {
  Enter();
  cudaEvent_t event = nullptr;
  if (!Check(cudaEventCreateWithFlags(&event, flags), "cudaEventCreateWithFlags")) return {};
  const std::lock_guard lock(mutex_);
  return {events_.Add(event)};
}

cudaEvent_t DeviceRuntime::At(Event event) const {
  const std::lock_guard lock(mutex_);
  return events_.At(event.id);
}

void DeviceRuntime::FreeEvent(Event event) {
  if (event.id < 0) return;
  Enter();
  const std::lock_guard lock(mutex_);
  Check(cudaEventDestroy(events_.Take(event.id)), "cudaEventDestroy");
}

void DeviceRuntime::Record(Event event, Stream stream) {
  if (failed()) return;
  Enter();
  Check(cudaEventRecord(At(event), At(stream)), "cudaEventRecord");
}

void DeviceRuntime::Wait(Stream stream, Event event) {
  if (failed()) return;
  Enter();
  Check(cudaStreamWaitEvent(At(stream), At(event), cudaEventWaitDefault), "cudaStreamWaitEvent");
}

bool DeviceRuntime::IsDone(Event event) {
  if (failed()) return true;
  Enter();
  const cudaError_t error = cudaEventQuery(At(event));
  if (error == cudaErrorNotReady) return false;
  Check(error, "cudaEventQuery");
  return true;
}

absl::Status DeviceRuntime::Synchronize(Event event) {
  if (failed()) return status();
  Enter();
  Check(cudaEventSynchronize(At(event)), "cudaEventSynchronize");
  return status();
}

absl::Status DeviceRuntime::Synchronize(Stream stream) {
  if (failed()) return status();
  Enter();
  Check(cudaStreamSynchronize(At(stream)), "cudaStreamSynchronize");
  return status();
}

float DeviceRuntime::MillisecondsBetween(Event from, Event to) {
  if (failed()) return 0;
  Enter();
  float milliseconds = 0;
  Check(cudaEventElapsedTime(&milliseconds, At(from), At(to)), "cudaEventElapsedTime");
  return milliseconds;
}

// --- Graphs ---

void DeviceRuntime::BeginCapture(Stream stream) {
  Enter();
  capture_mutex_.lock();
  if (failed()) return;
  Check(cudaStreamBeginCapture(At(stream), cudaStreamCaptureModeThreadLocal),
        "cudaStreamBeginCapture");
}

absl::StatusOr<Graph> DeviceRuntime::EndCapture(Stream stream) {
  Enter();
  const std::lock_guard capture_lock(capture_mutex_, std::adopt_lock);
  cudaGraph_t captured = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(At(stream), &captured);
  if (failed()) {
    cudaGetLastError();
    if (captured != nullptr) cudaGraphDestroy(captured);
    return status();
  }
  if (ended != cudaSuccess || captured == nullptr) {
    // The work was never queued, so the device is as good as before.
    cudaGetLastError();
    return absl::InternalError(
        fmt::format("{}: cudaStreamEndCapture: {}", facts_.name, Describe(ended)));
  }
  cudaGraphExec_t graph = nullptr;
  cudaError_t error = cudaGraphInstantiate(&graph, captured, 0);
  cudaGraphDestroy(captured);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(
        fmt::format("{}: cudaGraphInstantiate: {}", facts_.name, Describe(error)));
  }
  if (!Check(error, "cudaGraphInstantiate")) return status();
  const std::lock_guard lock(mutex_);
  return Graph{graphs_.Add(graph)};
}

void DeviceRuntime::LaunchGraph(Stream stream, Graph graph) {
  if (failed()) return;
  Enter();
  cudaGraphExec_t executable;
  {
    const std::lock_guard lock(mutex_);
    executable = graphs_.At(graph.id);
  }
  Check(cudaGraphLaunch(executable, At(stream)), "cudaGraphLaunch");
}

void DeviceRuntime::FreeGraph(Graph graph) {
  if (graph.id < 0) return;
  Enter();
  const std::lock_guard lock(mutex_);
  Check(cudaGraphExecDestroy(graphs_.Take(graph.id)), "cudaGraphExecDestroy");
}

// --- Opening ---

// Whether there is a driver that this build's runtime can work with, and a device `index`.
absl::Status FindDevice(int index) {
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
    return absl::UnavailableError("CUDA: no NVIDIA driver is installed (libcuda.so.1)");
  }
  // Within a major version any driver serves (CUDA Compatibility, "Minor Version Compatibility").
  if (driver / 1000 < CUDART_VERSION / 1000) {
    return absl::UnavailableError(
        fmt::format("CUDA: the installed driver serves CUDA {}, but this build needs {}.0 or later",
                    VersionName(driver), CUDART_VERSION / 1000));
  }
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  cudaGetLastError();
  if (error != cudaSuccess) {
    return absl::UnavailableError(fmt::format("CUDA: {}; driver for CUDA {}, built for CUDA {}",
                                              Describe(error), VersionName(driver),
                                              VersionName(CUDART_VERSION)));
  }
  if (index < 0 || index >= devices) {
    return absl::UnavailableError(
        fmt::format("CUDA: no device {}: this process sees {}", index, devices));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Runtime>> OpenDevice(int index) {
  if (absl::Status found = FindDevice(index); !found.ok()) return found;
  cudaDeviceProp properties;
  cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error == cudaSuccess) error = Select(index);
  size_t free = 0, total = 0;
  if (error == cudaSuccess) error = cudaMemGetInfo(&free, &total);  // starts the device
  if (error != cudaSuccess) {
    cudaGetLastError();
    return absl::UnavailableError(fmt::format("CUDA: device {}: {}", index, Describe(error)));
  }
  DeviceFacts facts{
      .index = index,
      .name = properties.name,
      .compute_capability = properties.major * 10 + properties.minor,
      .multiprocessors = properties.multiProcessorCount,
      .memory_bytes = total,
      .shared_bytes_per_block = properties.sharedMemPerBlockOptin,
      .max_threads_per_block = properties.maxThreadsPerBlock,
      .max_grid_y = properties.maxGridSize[1],
  };
  if (facts.compute_capability < kLeastComputeCapability) {
    return absl::UnavailableError(fmt::format(
        "CUDA: device {} ({}) has compute capability {}.{}, but 8.0 is the least that this build "
        "serves",
        index, facts.name, properties.major, properties.minor));
  }
  auto runtime = std::make_unique<DeviceRuntime>(index, std::move(facts));
  if (absl::Status opened = runtime->Open(); !opened.ok()) return opened;
  return runtime;
}

}  // namespace lorad::kernels::cuda
