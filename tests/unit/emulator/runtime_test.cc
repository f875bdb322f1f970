// Streams, events and memory of the emulated device.
#include "tests/emulator/runtime.h"

#include <cstring>
#include <set>

#include "gtest/gtest.h"
#include "tests/unit/emulator/device_words.h"

namespace lorad::emulator {
namespace {

using kernels::cuda::Event;
using kernels::cuda::Grid;
using kernels::cuda::KernelRef;
using kernels::cuda::Stream;

constexpr int kSeeds = 40;

TEST(EmulatedRuntimeTest, AStreamKeepsItsOrder) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    EmulatedRuntime runtime({.order_seed = seed});
    const Stream stream = runtime.NewStream(false);
    int* const one = NewHostWord(runtime, 1);
    int* const x = NewDeviceWord(runtime);
    int* const y = NewDeviceWord(runtime);
    runtime.Copy(stream, x, one, sizeof(int));
    LaunchAdd(runtime, stream, x, x, y);
    LaunchAdd(runtime, stream, y, y, x);
    runtime.Copy(stream, y, x, sizeof(int));
    EXPECT_EQ(Read(runtime, stream, y), 4);
    runtime.FreeDevice(x);
    runtime.FreeDevice(y);
    runtime.FreeHost(one);
  }
}

TEST(EmulatedRuntimeTest, DeviceMemoryIsZeroedAndAligned) {
  EmulatedRuntime runtime;
  const Stream stream = runtime.NewStream(false);
  for (const size_t bytes : {1, 255, 256, 4096, 5000}) {
    void* const memory = runtime.AllocateDevice(bytes).value();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 256, 0u);
    auto* const host = static_cast<unsigned char*>(runtime.AllocateHost(bytes).value());
    EXPECT_EQ(host[bytes - 1], 0xff);
    runtime.Copy(stream, host, memory, bytes);
    ASSERT_TRUE(runtime.Synchronize(stream).ok());
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(host[i], 0);
    runtime.Fill(stream, memory, 7, bytes);
    runtime.Copy(stream, host, memory, bytes);
    ASSERT_TRUE(runtime.Synchronize(stream).ok());
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(host[i], 7);
    runtime.FreeHost(host);
    runtime.FreeDevice(memory);
  }
}

TEST(EmulatedRuntimeTest, NothingRunsBeforeSomebodyWaits) {
  EmulatedRuntime runtime;
  const Stream stream = runtime.NewStream(false);
  int* const x = NewHostWord(runtime, 1);
  int* const y = NewHostWord(runtime, 2);
  runtime.Copy(stream, y, x, sizeof(int));
  EXPECT_EQ(*y, 2);
  *x = 3;  // too early: the copy has not read it
  ASSERT_TRUE(runtime.Synchronize(stream).ok());
  EXPECT_EQ(*y, 3);
  runtime.FreeHost(x);
  runtime.FreeHost(y);
}

// One stream copies 5 to x, the other adds x and x. The sum depends on the order unless it waits.
int SumAcrossStreams(uint64_t seed, bool wait) {
  EmulatedRuntime runtime({.order_seed = seed});
  const Stream copies = runtime.NewStream(false);
  const Stream compute = runtime.NewStream(true);
  const Event copied = runtime.NewEvent();
  int* const five = NewHostWord(runtime, 5);
  int* const x = NewDeviceWord(runtime);
  int* const sum = NewDeviceWord(runtime);
  runtime.Copy(copies, x, five, sizeof(int));
  runtime.Record(copied, copies);
  if (wait) runtime.Wait(compute, copied);
  LaunchAdd(runtime, compute, x, x, sum);
  const int result = Read(runtime, compute, sum);
  EXPECT_TRUE(runtime.Synchronize(copied).ok());
  runtime.FreeEvent(copied);
  runtime.FreeHost(five);
  runtime.FreeDevice(x);
  runtime.FreeDevice(sum);
  return result;
}

TEST(EmulatedRuntimeTest, AWaitOrdersStreams) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) EXPECT_EQ(SumAcrossStreams(seed, true), 10);
}

TEST(EmulatedRuntimeTest, AMissingWaitShows) {
  std::set<int> results;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) results.insert(SumAcrossStreams(seed, false));
  EXPECT_EQ(results, (std::set<int>{0, 10}));
}

TEST(EmulatedRuntimeTest, AWaitMeansTheLastRecordBeforeIt) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    EmulatedRuntime runtime({.order_seed = seed});
    const Stream first = runtime.NewStream(false);
    const Stream second = runtime.NewStream(false);
    const Event event = runtime.NewEvent();
    runtime.Wait(second, event);  // never recorded: in the past
    runtime.Record(event, first);
    runtime.Wait(second, event);
    runtime.Record(event, second);  // not a circle
    EXPECT_TRUE(runtime.Synchronize(event).ok());
    EXPECT_TRUE(runtime.IsDone(event));
    runtime.FreeEvent(event);
  }
}

TEST(EmulatedRuntimeTest, AskingPassesTime) {
  EmulatedRuntime runtime;
  const Stream stream = runtime.NewStream(false);
  const Event event = runtime.NewEvent();
  EXPECT_TRUE(runtime.IsDone(event));
  int* const word = NewDeviceWord(runtime);
  for (int i = 0; i < 50; ++i) runtime.Fill(stream, word, 1, sizeof(int));
  runtime.Record(event, stream);
  int questions = 0;
  while (!runtime.IsDone(event)) ++questions;
  EXPECT_GE(questions, 10);
  EXPECT_EQ(runtime.counts().fills, 50);
  runtime.FreeDevice(word);
  runtime.FreeEvent(event);
}

TEST(EmulatedRuntimeTest, FreeingDeviceMemoryWaits) {
  EmulatedRuntime runtime;
  const Stream stream = runtime.NewStream(false);
  int* const x = NewDeviceWord(runtime);
  int* const seven = NewHostWord(runtime, 7);
  int* const read = NewHostWord(runtime, 0);
  runtime.Copy(stream, x, seven, sizeof(int));
  runtime.Copy(stream, read, x, sizeof(int));
  runtime.FreeDevice(x);
  EXPECT_EQ(*read, 7);
  runtime.FreeHost(seven);
  runtime.FreeHost(read);
}

TEST(EmulatedRuntimeTest, MemoryHasAnEnd) {
  auto facts = EmulatedDevice();
  facts.memory_bytes = 1000;
  EmulatedRuntime runtime({.facts = facts, .host_bytes = 100});
  void* const memory = runtime.AllocateDevice(600).value();
  EXPECT_EQ(runtime.FreeBytes(), 400u);
  EXPECT_EQ(runtime.AllocateDevice(401).status().code(), absl::StatusCode::kResourceExhausted);
  runtime.FreeDevice(memory);
  runtime.FreeDevice(runtime.AllocateDevice(1000).value());
  EXPECT_EQ(runtime.AllocateHost(101).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(runtime.status().ok());
}

TEST(EmulatedRuntimeTest, AFailureStays) {
  EmulatedRuntime runtime({.fail_after = 2});
  const Stream stream = runtime.NewStream(false);
  const Event event = runtime.NewEvent();
  int* const word = NewDeviceWord(runtime);
  for (int i = 0; i < 5; ++i) runtime.Fill(stream, word, 1, sizeof(int));
  runtime.Record(event, stream);
  EXPECT_TRUE(runtime.status().ok());  // it has not happened yet
  EXPECT_EQ(runtime.Synchronize(stream).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(runtime.counts().fills, 2);
  EXPECT_FALSE(runtime.status().ok());
  EXPECT_FALSE(runtime.AllocateDevice(1).ok());
  EXPECT_FALSE(runtime.AllocateHost(1).ok());
  runtime.Fill(stream, word, 1, sizeof(int));
  runtime.Record(event, stream);
  EXPECT_TRUE(runtime.IsDone(event));  // nobody waits for ever
  EXPECT_FALSE(runtime.Synchronize(event).ok());
  runtime.FreeDevice(word);
  runtime.FreeEvent(event);
}

TEST(EmulatedRuntimeTest, ALibraryCanFailTheDevice) {
  EmulatedRuntime runtime;
  const Stream stream = runtime.NewStream(false);
  runtime.Fail(absl::InternalError("first"));
  runtime.Fail(absl::InternalError("second"));
  EXPECT_EQ(runtime.Synchronize(stream).message(), "first");
}

TEST(EmulatedRuntimeTest, TimingEventsCountWork) {
  EmulatedRuntime runtime;
  const Stream stream = runtime.NewStream(false);
  const Event begin = runtime.NewTimingEvent();
  const Event end = runtime.NewTimingEvent();
  int* const word = NewDeviceWord(runtime);
  runtime.Record(begin, stream);
  for (int i = 0; i < 500; ++i) runtime.Fill(stream, word, 1, sizeof(int));
  runtime.Record(end, stream);
  EXPECT_TRUE(runtime.Synchronize(end).ok());
  EXPECT_FLOAT_EQ(runtime.MillisecondsBetween(begin, end), 0.5f);
  runtime.FreeEvent(begin);
  runtime.FreeEvent(end);
  runtime.FreeDevice(word);
}

class EmulatedRuntimeDeathTest : public testing::Test {
 protected:
  EmulatedRuntimeDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(EmulatedRuntimeDeathTest, DeviceMemoryIsNotTheHosts) {
  EmulatedRuntime runtime;
  int* const word = NewDeviceWord(runtime);
  EXPECT_DEATH(*word = 1, "");
  runtime.FreeDevice(word);
}

TEST_F(EmulatedRuntimeDeathTest, HostMemoryIsNotTheDevices) {
  EmulatedRuntime runtime;
  const Stream stream = runtime.NewStream(false);
  int* const word = NewDeviceWord(runtime);
  const std::vector<int> local(1);
  EXPECT_DEATH(LaunchAdd(runtime, stream, local.data(), word, word), "the device has not: add");
  EXPECT_DEATH(LaunchAdd(runtime, stream, word + 2, word, word), "the device has not: add");
  EXPECT_DEATH(runtime.Copy(stream, word, local.data(), 4), "not inside one block");
  runtime.FreeDevice(word);
}

TEST_F(EmulatedRuntimeDeathTest, CopiesStayInsideABlock) {
  EmulatedRuntime runtime;
  const Stream stream = runtime.NewStream(false);
  int* const x = NewDeviceWord(runtime);
  int* const y = NewHostWord(runtime, 1);
  EXPECT_DEATH(runtime.Copy(stream, x, y, 5), "target of a copy");
  EXPECT_DEATH(runtime.Fill(stream, x + 1, 0, 1), "Fill outside");
  runtime.Copy(stream, x, y, 4);
  EXPECT_DEATH(
      {
        runtime.FreeHost(y);
        (void)runtime.Synchronize(stream);
      },
      "source of a copy, by now");
  runtime.FreeDevice(x);
  runtime.FreeHost(y);
}

TEST_F(EmulatedRuntimeDeathTest, LaunchesKeepToTheLimits) {
  EmulatedRuntime runtime;
  const Stream stream = runtime.NewStream(false);
  const AddArgs args{};
  runtime.Launch(stream, kAdd, {.x = 0}, &args);
  ASSERT_TRUE(runtime.Synchronize(stream).ok());
  EXPECT_EQ(runtime.counts().launches, 0);
  EXPECT_DEATH(runtime.Launch(stream, kAdd, {.x = -1}, &args), "size of a grid: add");
  EXPECT_DEATH(runtime.Launch(stream, kAdd, {.y = 65536}, &args), "size of a grid: add");
  EXPECT_DEATH(runtime.Launch(stream, kAdd, {.shared_bytes = 228 * 1024}, &args), "shared memory");
  KernelRef odd = kAdd;
  odd.threads = 33;
  EXPECT_DEATH(runtime.Launch(stream, odd, {}, &args), "threads of a block: add");
  odd.threads = 2048;
  EXPECT_DEATH(runtime.Launch(stream, odd, {}, &args), "threads of a block: add");
  EXPECT_DEATH(runtime.Launch({}, kAdd, {}, &args), "no such stream");
}

TEST_F(EmulatedRuntimeDeathTest, WhatIsNotFreedIsALeak) {
  EXPECT_DEATH(
      {
        EmulatedRuntime runtime;
        NewDeviceWord(runtime);
      },
      "device memory was not freed");
  EXPECT_DEATH(
      {
        EmulatedRuntime runtime;
        NewHostWord(runtime, 1);
      },
      "host memory was not freed");
  EXPECT_DEATH(
      {
        EmulatedRuntime runtime;
        runtime.NewEvent();
      },
      "event was not freed");
}

}  // namespace
}  // namespace lorad::emulator
