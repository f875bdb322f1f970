// The runtime of a device, on machines that are hard to come by: without a driver, without memory,
// with a device that fails.
#include <gmock/gmock.h>

#include <cstring>
#include <thread>
#include <vector>

#include "kernels/cuda/gpu.h"
#include "kernels/cuda/runtime.h"
#include "tests/unit/kernels/cuda_device/fake_cudart.h"

namespace lorad::kernels::cuda {
namespace {

using emulator::FakeMachine;
using emulator::ResetFakeMachine;
using emulator::TheFakeMachine;
using testing::HasSubstr;

class FakeMachineTest : public testing::Test {
 protected:
  void TearDown() override { ResetFakeMachine(); }

  static void ExpectUnavailable(const FakeMachine& machine, const char* why) {
    ResetFakeMachine(machine);
    const auto opened = OpenDevice(0);
    EXPECT_EQ(opened.status().code(), absl::StatusCode::kUnavailable) << why;
    EXPECT_THAT(opened.status().message(), HasSubstr(why));
  }
};

TEST_F(FakeMachineTest, WhatCannotBeUsedIsUnavailableAndSaysWhy) {
  ExpectUnavailable({.driver = 0}, "no NVIDIA driver");
  ExpectUnavailable({.driver = CUDART_VERSION - 1000}, "the installed driver serves CUDA");
  ExpectUnavailable({.devices = 0}, "no device 0: this process sees 0");
  ExpectUnavailable({.compute_capability = 75}, "compute capability 7.5");
  ExpectUnavailable({.count_error = cudaErrorSystemNotReady}, "an error");
}

TEST_F(FakeMachineTest, AnOlderDriverOfTheSameMajorVersionServes) {
  ResetFakeMachine({.driver = CUDART_VERSION / 1000 * 1000});
  EXPECT_TRUE(OpenDevice(0).ok());
}

TEST_F(FakeMachineTest, LackOfMemoryIsNoFailureOfTheDevice) {
  ResetFakeMachine();
  const auto runtime = OpenDevice(0).value();
  TheFakeMachine().memory_error = cudaErrorMemoryAllocation;
  EXPECT_EQ(runtime->AllocateDevice(100).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(runtime->AllocateHost(100).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(runtime->status().ok());
  TheFakeMachine().memory_error = cudaSuccess;
  const auto memory = runtime->AllocateDevice(100);
  ASSERT_TRUE(memory.ok());
  runtime->FreeDevice(*memory);
}

TEST_F(FakeMachineTest, AFailureStays) {
  ResetFakeMachine();
  const auto runtime = OpenDevice(0).value();
  const Stream stream = runtime->NewStream(false);
  void* const memory = runtime->AllocateDevice(256).value();
  const Event event = runtime->NewEvent();
  emulator::TheFakeDevice().FailAfter(0);
  runtime->Fill(stream, memory, 1, 256);
  runtime->Record(event, stream);
  const absl::Status failed = runtime->Synchronize(stream);
  EXPECT_EQ(failed.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(failed.message(), HasSubstr("unspecified launch failure"));
  EXPECT_EQ(runtime->status(), failed);
  EXPECT_TRUE(runtime->IsDone(event));
  EXPECT_EQ(runtime->Synchronize(event), failed);
  EXPECT_EQ(runtime->AllocateDevice(1).status(), failed);
  runtime->BeginCapture(stream);
  EXPECT_EQ(runtime->EndCapture(stream).status(), failed);
  runtime->FreeEvent(event);
  runtime->FreeDevice(memory);
}

TEST_F(FakeMachineTest, NoMemoryForAGraphIsNoFailureOfTheDevice) {
  ResetFakeMachine();
  const auto runtime = OpenDevice(0).value();
  const Stream stream = runtime->NewStream(false);
  void* const memory = runtime->AllocateDevice(256).value();
  TheFakeMachine().instantiate_error = cudaErrorMemoryAllocation;
  runtime->BeginCapture(stream);
  runtime->Fill(stream, memory, 1, 256);
  EXPECT_EQ(runtime->EndCapture(stream).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(runtime->status().ok());
  runtime->FreeDevice(memory);
}

TEST_F(FakeMachineTest, EveryThreadSelectsTheDevice) {
  ResetFakeMachine();
  const auto runtime = OpenDevice(0).value();
  void* memory = nullptr;
  std::thread([&] { memory = runtime->AllocateDevice(256).value(); }).join();
  std::thread([&] { runtime->FreeDevice(memory); }).join();
  EXPECT_TRUE(runtime->status().ok());
}

// Writes the number of each of its blocks.
struct StampArgs {
  int* out;
};
void Stamp(StampArgs args) {
  if (Thread() == 0) args.out[BlockX()] = BlockX() + 1;
}

TEST_F(FakeMachineTest, LaunchesInAndOutOfGraphsAskOnceForSharedMemory) {
  ResetFakeMachine();
  const KernelRef kernel = MakeKernel("stamp", &Stamp, 32);
  emulator::AddFakeKernel(kernel, /*static_shared_bytes=*/20 * 1024);
  const auto runtime = OpenDevice(0).value();
  const Stream stream = runtime->NewStream(false);
  StreamLauncher launch(*runtime, stream);
  int* const out = static_cast<int*>(runtime->AllocateDevice(4 * sizeof(int)).value());
  int* const host = static_cast<int*>(runtime->AllocateHost(4 * sizeof(int)).value());
  const auto expect_stamps = [&](const std::vector<int>& stamps) {
    runtime->Copy(stream, host, out, 4 * sizeof(int));
    ASSERT_TRUE(runtime->Synchronize(stream).ok());
    EXPECT_EQ(std::vector<int>(host, host + 4), stamps);
    runtime->Fill(stream, out, 0, 4 * sizeof(int));
  };
  launch(kernel, Grid{.x = 2, .shared_bytes = 28 * 1024}, StampArgs{out});
  expect_stamps({1, 2, 0, 0});
  EXPECT_EQ(emulator::FakeAttributeCalls(), 0);
  // Together with the static part this is more than a kernel gets unasked.
  runtime->BeginCapture(stream);
  launch(kernel, Grid{.x = 4, .shared_bytes = 29 * 1024}, StampArgs{out});
  const auto graph = runtime->EndCapture(stream);
  ASSERT_TRUE(graph.ok()) << graph.status();
  runtime->LaunchGraph(stream, *graph);
  expect_stamps({1, 2, 3, 4});
  launch(kernel, Grid{.x = 3, .shared_bytes = 29 * 1024}, StampArgs{out});
  launch(kernel, Grid{.x = 0}, StampArgs{out});
  expect_stamps({1, 2, 3, 0});
  EXPECT_EQ(emulator::FakeAttributeCalls(), 1);
  EXPECT_TRUE(runtime->status().ok()) << runtime->status();
  runtime->FreeGraph(*graph);
  runtime->FreeDevice(out);
  runtime->FreeHost(host);
}

}  // namespace
}  // namespace lorad::kernels::cuda
