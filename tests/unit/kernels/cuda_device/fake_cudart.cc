#include "tests/unit/kernels/cuda_device/fake_cudart.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

namespace lorad::emulator {
namespace {

namespace cuda = kernels::cuda;

constexpr size_t kSharedWithoutOptIn = 48 * 1024;

struct FakeKernel {
  cuda::KernelRef ref;
  size_t static_shared = 0;
  size_t max_dynamic_shared = 0;  // asked for
};

struct State {
  FakeMachine machine;
  RuntimeOptions options;
  std::unique_ptr<EmulatedRuntime> device;
  std::map<const void*, FakeKernel> kernels;
  int attribute_calls = 0;
  cudaStream_t capturing = nullptr;
};
std::unique_ptr<State> state = std::make_unique<State>();

thread_local int selected = -1;  // stays when the machine is another: so do the threads
thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "fake CUDA runtime: %s\n", what);
  std::abort();
}

cudaError_t Set(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// The open device, which the calling thread must have selected.
EmulatedRuntime& Device() {
  if (selected < 0) Die("this thread has selected no device");
  if (state->device == nullptr) state->device = std::make_unique<EmulatedRuntime>(state->options);
  return *state->device;
}

// What a call on a device returns: its sticky error, if it has one.
cudaError_t Result() { return Set(Device().status().ok() ? cudaSuccess : cudaErrorLaunchFailure); }

// Handles are numbers that are never null.
template <typename Handle>
Handle ToHandle(int id) {
  return reinterpret_cast<Handle>(static_cast<intptr_t>(id + 1));
}
template <typename Handle>
int ToId(Handle handle) {
  if (handle == nullptr) Die("a null handle");
  return static_cast<int>(reinterpret_cast<intptr_t>(handle)) - 1;
}
cuda::Stream ToStream(cudaStream_t stream) { return {ToId(stream)}; }
cuda::Event ToEvent(cudaEvent_t event) { return {ToId(event)}; }

FakeKernel& KernelAt(const void* function) {
  const auto found = state->kernels.find(function);
  if (found == state->kernels.end()) Die("no such kernel");
  return found->second;
}

}  // namespace

void ResetFakeMachine(const FakeMachine& machine, const RuntimeOptions& options) {
  state = std::make_unique<State>(State{.machine = machine, .options = options});
  last_error = cudaSuccess;
}
FakeMachine& TheFakeMachine() { return state->machine; }
EmulatedRuntime& TheFakeDevice() { return Device(); }
int FakeAttributeCalls() { return state->attribute_calls; }
void AddFakeKernel(const cuda::KernelRef& kernel, size_t static_shared_bytes) {
  state->kernels[kernel.function] = {.ref = kernel, .static_shared = static_shared_bytes};
}

extern "C" {

// --- The machine ---

cudaError_t cudaDriverGetVersion(int* version) {
  *version = state->machine.driver;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = state->machine.count_error == cudaSuccess ? state->machine.devices : 0;
  return Set(state->machine.count_error);
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? "unspecified launch failure" : "an error";
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? "cudaErrorLaunchFailure" : "cudaErrorOfTheFake";
}
cudaError_t cudaSetDevice(int index) {
  if (index < 0 || index >= state->machine.devices) return Set(cudaErrorInvalidDevice);
  selected = index;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int index) {
  if (index < 0 || index >= state->machine.devices) return Set(cudaErrorInvalidDevice);
  const cuda::DeviceFacts& facts = state->options.facts;
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "fake device %d", index);
  properties->major = state->machine.compute_capability / 10;
  properties->minor = state->machine.compute_capability % 10;
  properties->multiProcessorCount = facts.multiprocessors;
  properties->sharedMemPerBlockOptin = facts.shared_bytes_per_block;
  properties->maxThreadsPerBlock = facts.max_threads_per_block;
  properties->maxGridSize[1] = facts.max_grid_y;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return Result();
}

// --- Memory ---

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *free = Device().FreeBytes();
  *total = state->options.facts.memory_bytes;
  return Result();
}
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (state->machine.memory_error != cudaSuccess) return Set(state->machine.memory_error);
  auto allocated = Device().AllocateDevice(bytes);
  if (!allocated.ok()) return Set(cudaErrorMemoryAllocation);
  *memory = *allocated;
  // As it comes from a real device: with what somebody left there.
  const cuda::Stream stream = Device().NewStream(false);
  Device().Fill(stream, *memory, 0xA5, bytes);
  (void)Device().Synchronize(stream);
  return Result();
}
cudaError_t cudaFree(void* memory) {
  Device().FreeDevice(memory);
  return Result();
}
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned flags) {
  if (flags != cudaHostAllocPortable) Die("host memory of one device only");
  if (state->machine.memory_error != cudaSuccess) return Set(state->machine.memory_error);
  auto allocated = Device().AllocateHost(bytes);
  if (!allocated.ok()) return Set(cudaErrorMemoryAllocation);
  *memory = *allocated;
  return Result();
}
cudaError_t cudaFreeHost(void* memory) {
  Device().FreeHost(memory);
  return Result();
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (kind != cudaMemcpyDefault) Die("the kind of a copy");
  Device().Copy(ToStream(stream), to, from, bytes);
  return Result();
}
cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t stream) {
  Device().Fill(ToStream(stream), to, static_cast<uint8_t>(byte), bytes);
  return Result();
}

// --- Streams and events ---

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  if (flags != cudaStreamNonBlocking) Die("a stream that waits for the default stream");
  if (priority > 0 || priority < -5) Die("a priority out of range");
  *stream = ToHandle<cudaStream_t>(Device().NewStream(priority < 0).id);
  return Result();
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  (void)ToId(stream);
  return Result();
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  (void)Device().Synchronize(ToStream(stream));
  return Result();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  Device().Wait(ToStream(stream), ToEvent(event));
  return Result();
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  const cuda::Event made =
      flags == cudaEventDisableTiming ? Device().NewEvent() : Device().NewTimingEvent();
  *event = ToHandle<cudaEvent_t>(made.id);
  return Result();
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Device().FreeEvent(ToEvent(event));
  return Result();
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Device().Record(ToEvent(event), ToStream(stream));
  return Result();
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const bool done = Device().IsDone(ToEvent(event));
  if (const cudaError_t error = Result(); error != cudaSuccess) return error;
  return Set(done ? cudaSuccess : cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  (void)Device().Synchronize(ToEvent(event));
  return Result();
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  *milliseconds = Device().MillisecondsBetween(ToEvent(from), ToEvent(to));
  return Result();
}

// --- Kernels ---

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  if (capture_mode != cudaStreamCaptureModeRelaxed) Die("a kernel is loaded in a strict mode");
  *attributes = {};
  attributes->sharedSizeBytes = KernelAt(function).static_shared;
  attributes->maxThreadsPerBlock = KernelAt(function).ref.threads;
  return Result();
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) Die("an unknown attribute");
  FakeKernel& kernel = KernelAt(function);
  const auto bytes = static_cast<size_t>(value);
  if (kernel.static_shared + bytes > state->options.facts.shared_bytes_per_block) {
    return Set(cudaErrorInvalidValue);
  }
  kernel.max_dynamic_shared = bytes;
  ++state->attribute_calls;
  return Result();
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             size_t shared_bytes, cudaStream_t stream) {
  const FakeKernel& kernel = KernelAt(function);
  const bool fits = kernel.static_shared + shared_bytes <= kSharedWithoutOptIn ||
                    shared_bytes <= kernel.max_dynamic_shared;
  if (!fits || block.x != static_cast<unsigned>(kernel.ref.threads) || block.y != 1 ||
      block.z != 1 || grid.z != 1) {
    return Set(cudaErrorInvalidValue);
  }
  Device().Launch(ToStream(stream), kernel.ref,
                  {static_cast<int>(grid.x), static_cast<int>(grid.y), shared_bytes}, arguments[0]);
  return Result();
}

// --- Graphs ---

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, capture_mode);
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (mode != cudaStreamCaptureModeThreadLocal) Die("a capture that other threads can spoil");
  Device().BeginCapture(ToStream(stream));
  state->capturing = stream;
  return Result();
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (std::exchange(state->capturing, nullptr) != stream) return Set(cudaErrorIllegalState);
  const auto captured = Device().EndCapture(ToStream(stream));
  if (!captured.ok()) {
    return Set(Device().status().ok() ? cudaErrorStreamCaptureUnjoined : cudaErrorLaunchFailure);
  }
  *graph = ToHandle<cudaGraph_t>(captured->id);
  return Result();
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long /*flags*/) {
  if (state->machine.instantiate_error != cudaSuccess) {
    Device().FreeGraph({ToId(graph)});
    return Set(state->machine.instantiate_error);
  }
  *executable = ToHandle<cudaGraphExec_t>(ToId(graph));
  return Result();
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  (void)ToId(graph);  // the executable has it
  return Result();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  Device().FreeGraph({ToId(executable)});
  return Result();
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  Device().LaunchGraph(ToStream(stream), {ToId(executable)});
  return Result();
}

}  // extern "C"
}  // namespace lorad::emulator
