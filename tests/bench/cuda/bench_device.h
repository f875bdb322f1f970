// BenchDevice: a device, memory on it, and a clock: launches are captured in a graph, so that what
// is timed is the device and not the host's launching.
//
// One thread. A failure of the device ends the program: there is nothing left to measure.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/views.h"

namespace lorad::bench {

class BenchDevice;

// Device memory, freed with the object.
class DeviceBytes {
 public:
  DeviceBytes() = default;
  DeviceBytes(kernels::cuda::Runtime* runtime, size_t bytes);
  ~DeviceBytes();
  DeviceBytes(DeviceBytes&& other) noexcept;
  DeviceBytes& operator=(DeviceBytes&& other) noexcept;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* As() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  kernels::cuda::Runtime* runtime_ = nullptr;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

struct DeviceTensor {
  DeviceBytes memory;
  kernels::cuda::TensorView view;
};

// A list in device memory as kernels read it.
template <typename T>
struct DeviceList {
  DeviceBytes memory;  // the count in 16 bytes, then the items
  kernels::cuda::ListView<T> view;
  int size = 0;
};

class BenchDevice {
 public:
  explicit BenchDevice(std::unique_ptr<kernels::cuda::Runtime> runtime);

  kernels::cuda::Runtime& runtime() { return *runtime_; }
  const kernels::cuda::DeviceFacts& facts() const { return runtime_->facts(); }
  kernels::cuda::Launcher& launcher() { return launcher_; }  // on the main stream

  DeviceBytes Allocate(size_t bytes) { return DeviceBytes(runtime_.get(), bytes); }
  DeviceBytes Upload(const void* data, size_t bytes);
  template <typename T>
  DeviceBytes Upload(std::span<const T> values) {
    return Upload(values.data(), values.size_bytes());
  }
  template <typename T>
  DeviceList<T> UploadList(std::span<const T> items);
  // From device to device, on the main stream.
  void Copy(void* to, const void* from, size_t bytes) { runtime_->Copy(stream_, to, from, bytes); }
  std::vector<std::byte> Download(const void* data, size_t bytes);

  // A tensor whose element (r, c) is ValueAt(seed, r * cols + c).
  DeviceTensor RandomTensor(uint32_t seed, int rows, int cols, bool full = false);
  DeviceTensor ZeroTensor(int rows, int cols, bool full = false);
  std::vector<float> Read(const DeviceTensor& tensor, int row);

  // Waits for all work. Ends the program if the device has failed.
  void Finish();

  // Seconds of one `call(launcher, i)`: the best of several runs of a graph of `calls` of them,
  // i = 0 .. calls - 1 (so that each may read other memory, and none finds its data in a cache).
  double Seconds(int calls, const std::function<void(kernels::cuda::Launcher&, int)>& call);

  // A smoke run checks the benchmark itself: one graph run, no repeats.
  void set_smoke(bool smoke) { smoke_ = smoke; }
  bool smoke() const { return smoke_; }

 private:
  std::unique_ptr<kernels::cuda::Runtime> runtime_;
  kernels::cuda::Stream stream_;
  kernels::cuda::StreamLauncher launcher_;
  bool smoke_ = false;
};

template <typename T>
DeviceList<T> BenchDevice::UploadList(std::span<const T> items) {
  constexpr size_t kHeader = 16;
  std::vector<std::byte> bytes(kHeader + items.size_bytes());
  const int count = static_cast<int>(items.size());
  std::copy_n(reinterpret_cast<const std::byte*>(&count), sizeof(count), bytes.begin());
  std::copy_n(reinterpret_cast<const std::byte*>(items.data()), items.size_bytes(),
              bytes.begin() + kHeader);
  DeviceList<T> list{Upload(bytes.data(), bytes.size()), {}, count};
  list.view = {list.memory.template As<int>(),
               reinterpret_cast<const T*>(list.memory.data() + kHeader)};
  return list;
}

// The device that this program was linked for (open_device.cc, or the tests' emulated one).
std::unique_ptr<kernels::cuda::Runtime> OpenBenchRuntime();

}  // namespace lorad::bench
