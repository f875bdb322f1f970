// Capture and replay of graphs on the emulated device.
#include <set>

#include "gtest/gtest.h"
#include "tests/emulator/runtime.h"
#include "tests/unit/emulator/device_words.h"

namespace lorad::emulator {
namespace {

using kernels::cuda::Event;
using kernels::cuda::Graph;
using kernels::cuda::Stream;

constexpr int kSeeds = 40;

// x -> y = x + x on one stream and z = x + x + x on another, joined in sum = y + z.
class CaptureTest : public testing::Test {
 protected:
  void Open(uint64_t seed) {
    runtime_ = std::make_unique<EmulatedRuntime>(RuntimeOptions{.order_seed = seed});
    main_ = runtime_->NewStream(false);
    side_ = runtime_->NewStream(false);
    forked_ = runtime_->NewEvent();
    joined_ = runtime_->NewEvent();
    in_ = NewHostWord(*runtime_, 0);
    for (int*& word : words_) word = NewDeviceWord(*runtime_);
  }
  void Close() {
    runtime_->FreeHost(in_);
    for (int* const word : words_) runtime_->FreeDevice(word);
    runtime_->FreeEvent(forked_);
    runtime_->FreeEvent(joined_);
    runtime_.reset();
  }
  void Queue(bool fork_waits, bool join_waits) {
    auto [x, y, twice, z, sum] = words_;
    runtime_->Copy(main_, x, in_, sizeof(int));
    runtime_->Record(forked_, main_);
    if (fork_waits) runtime_->Wait(side_, forked_);
    LaunchAdd(*runtime_, main_, x, x, y);
    LaunchAdd(*runtime_, side_, x, x, twice);
    LaunchAdd(*runtime_, side_, twice, x, z);
    runtime_->Record(joined_, side_);
    if (join_waits) runtime_->Wait(main_, joined_);
    LaunchAdd(*runtime_, main_, y, z, sum);
  }
  int* sum() { return words_[4]; }

  std::unique_ptr<EmulatedRuntime> runtime_;
  Stream main_, side_;
  Event forked_, joined_;
  int* in_ = nullptr;
  std::array<int*, 5> words_;
};

TEST_F(CaptureTest, ForksAndJoins) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Open(seed);
    runtime_->BeginCapture(main_);
    Queue(true, true);
    const Graph graph = runtime_->EndCapture(main_).value();
    EXPECT_EQ(runtime_->counts().launches, 0);
    for (int round = 1; round <= 3; ++round) {
      *in_ = round;
      runtime_->LaunchGraph(main_, graph);
      ASSERT_EQ(Read(*runtime_, main_, sum()), 5 * round);
    }
    EXPECT_EQ(runtime_->counts().launches, 12);
    EXPECT_EQ(runtime_->counts().graph_launches, 3);
    runtime_->FreeGraph(graph);
    Close();
  }
}

TEST_F(CaptureTest, CopiesOnTwoStreamsOverlapInAGraph) {
  // Two branches write the same word: either may win.
  std::set<int> results;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Open(seed);
    auto [x, y, unused, z, result] = words_;
    *in_ = 1;
    runtime_->Copy(main_, x, in_, sizeof(int));
    runtime_->BeginCapture(main_);
    runtime_->Record(forked_, main_);
    runtime_->Wait(side_, forked_);
    LaunchAdd(*runtime_, main_, x, y, result);
    LaunchAdd(*runtime_, side_, x, x, result);
    runtime_->Record(joined_, side_);
    runtime_->Wait(main_, joined_);
    const Graph graph = runtime_->EndCapture(main_).value();
    runtime_->LaunchGraph(main_, graph);
    results.insert(Read(*runtime_, main_, result));
    runtime_->FreeGraph(graph);
    Close();
  }
  EXPECT_EQ(results, (std::set<int>{1, 2}));
}

TEST_F(CaptureTest, AStreamMustBeJoined) {
  Open(1);
  runtime_->BeginCapture(main_);
  Queue(true, false);
  EXPECT_FALSE(runtime_->EndCapture(main_).ok());
  EXPECT_TRUE(runtime_->status().ok());
  // Both streams are free again.
  *in_ = 2;
  Queue(true, true);
  EXPECT_EQ(Read(*runtime_, main_, sum()), 10);
  Close();
}

TEST_F(CaptureTest, AStreamThatDoesNotWaitIsNotCaptured) {
  Open(1);
  runtime_->BeginCapture(main_);
  LaunchAdd(*runtime_, side_, words_[0], words_[0], words_[1]);
  const Graph graph = runtime_->EndCapture(main_).value();
  EXPECT_TRUE(runtime_->Synchronize(side_).ok());
  EXPECT_EQ(runtime_->counts().launches, 1);
  runtime_->LaunchGraph(main_, graph);
  EXPECT_TRUE(runtime_->Synchronize(main_).ok());
  EXPECT_EQ(runtime_->counts().launches, 1);
  runtime_->FreeGraph(graph);
  Close();
}

TEST_F(CaptureTest, AGraphWaitsForItsStreamAndItself) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Open(seed);
    auto [x, y, unused, z, result] = words_;
    runtime_->BeginCapture(main_);
    LaunchAdd(*runtime_, main_, x, y, z);
    LaunchAdd(*runtime_, main_, z, y, x);  // x += 2 y
    const Graph graph = runtime_->EndCapture(main_).value();
    *in_ = 1;
    runtime_->Copy(main_, y, in_, sizeof(int));
    runtime_->Record(forked_, main_);
    runtime_->Wait(side_, forked_);
    runtime_->LaunchGraph(main_, graph);
    runtime_->LaunchGraph(side_, graph);
    runtime_->LaunchGraph(main_, graph);
    ASSERT_TRUE(runtime_->Synchronize(side_).ok());
    EXPECT_EQ(Read(*runtime_, main_, x), 6);
    runtime_->FreeGraph(graph);
    Close();
  }
}

TEST_F(CaptureTest, AFailureInsideAGraphStays) {
  Open(1);
  runtime_->BeginCapture(main_);
  Queue(true, true);
  const Graph graph = runtime_->EndCapture(main_).value();
  runtime_->FailAfter(2);
  runtime_->LaunchGraph(main_, graph);
  EXPECT_FALSE(runtime_->Synchronize(main_).ok());
  EXPECT_EQ(runtime_->counts().launches + runtime_->counts().copies, 2);
  runtime_->BeginCapture(main_);
  EXPECT_FALSE(runtime_->EndCapture(main_).ok());
  runtime_->FreeGraph(graph);
  Close();
}

using CaptureDeathTest = CaptureTest;

TEST_F(CaptureDeathTest, WhatCudaForbids) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Open(1);
  runtime_->Record(joined_, side_);
  runtime_->BeginCapture(main_);
  EXPECT_DEATH((void)runtime_->AllocateDevice(1), "not while this thread captures");
  EXPECT_DEATH((void)runtime_->Synchronize(side_), "not while this thread captures");
  EXPECT_DEATH((void)runtime_->IsDone(joined_), "not while this thread captures");
  EXPECT_DEATH(runtime_->Wait(main_, joined_), "an event from outside");
  EXPECT_DEATH((void)runtime_->EndCapture(side_), "no capture began");
  EXPECT_DEATH(runtime_->BeginCapture(main_), "stream that captures");
  runtime_->Record(forked_, main_);
  const Graph graph = runtime_->EndCapture(main_).value();
  EXPECT_DEATH(runtime_->Wait(side_, forked_), "capture that has ended");
  EXPECT_DEATH((void)runtime_->IsDone(forked_), "event of a capture");
  runtime_->LaunchGraph(main_, graph);
  EXPECT_DEATH(runtime_->FreeGraph(graph), "not run to its end");
  EXPECT_TRUE(runtime_->Synchronize(main_).ok());
  runtime_->FreeGraph(graph);
  EXPECT_DEATH(runtime_->LaunchGraph(main_, graph), "no such graph");
  Close();
}

}  // namespace
}  // namespace lorad::emulator
