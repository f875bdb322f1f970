// The runtime of a real device. Where there is none: that opening it says so.
#include <cstring>
#include <memory>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/cuda/runtime.h"

namespace lorad::kernels::cuda {
namespace {

TEST(OpenDeviceTest, NoSuchDeviceIsUnavailableAndSaysWhy) {
  for (const int index : {-1, 1000}) {
    const auto opened = OpenDevice(index);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(opened.status().message().substr(0, 5), "CUDA:") << opened.status();
  }
}

class DeviceRuntimeTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = OpenDevice(0);
    if (!opened.ok()) {
      ASSERT_EQ(opened.status().code(), absl::StatusCode::kUnavailable);
      GTEST_SKIP() << opened.status().message();
    }
    runtime_ = *std::move(opened);
    stream_ = runtime_->NewStream(false);
    device_ = static_cast<std::byte*>(runtime_->AllocateDevice(kBytes).value());
    host_ = static_cast<std::byte*>(runtime_->AllocateHost(kBytes).value());
  }
  void TearDown() override {
    if (runtime_ == nullptr) return;
    EXPECT_TRUE(runtime_->status().ok()) << runtime_->status();
    runtime_->FreeDevice(device_);
    runtime_->FreeHost(host_);
  }
  void ExpectHost(int value) {
    ASSERT_TRUE(runtime_->Synchronize(stream_).ok());
    for (size_t i = 0; i < kBytes; ++i) ASSERT_EQ(host_[i], std::byte(value));
  }

  static constexpr size_t kBytes = 1 << 20;
  std::unique_ptr<Runtime> runtime_;
  Stream stream_;
  std::byte* device_ = nullptr;
  std::byte* host_ = nullptr;
};

TEST_F(DeviceRuntimeTest, FactsMakeSense) {
  const DeviceFacts& facts = runtime_->facts();
  EXPECT_GE(facts.compute_capability, 80);
  EXPECT_GT(facts.multiprocessors, 0);
  EXPECT_GE(facts.shared_bytes_per_block, size_t{96} << 10);
  EXPECT_EQ(facts.max_threads_per_block, 1024);
  EXPECT_LE(runtime_->FreeBytes(), facts.memory_bytes);
}

TEST_F(DeviceRuntimeTest, MemoryIsZeroedFilledAndCopied) {
  std::memset(host_, 1, kBytes);
  runtime_->Copy(stream_, host_, device_, kBytes);
  ExpectHost(0);
  runtime_->Fill(stream_, device_, 7, kBytes);
  runtime_->Copy(stream_, host_, device_, kBytes);
  ExpectHost(7);
}

TEST_F(DeviceRuntimeTest, EventsOrderStreams) {
  const Stream side = runtime_->NewStream(true);
  const Event begun = runtime_->NewTimingEvent();
  const Event filled = runtime_->NewTimingEvent();
  runtime_->Record(begun, side);
  for (int i = 0; i <= 100; ++i) runtime_->Fill(side, device_, static_cast<uint8_t>(i), kBytes);
  runtime_->Record(filled, side);
  runtime_->Wait(stream_, filled);
  runtime_->Copy(stream_, host_, device_, kBytes);
  ExpectHost(100);
  EXPECT_TRUE(runtime_->IsDone(filled));
  EXPECT_GT(runtime_->MillisecondsBetween(begun, filled), 0.0f);
  runtime_->FreeEvent(begun);
  runtime_->FreeEvent(filled);
}

TEST_F(DeviceRuntimeTest, AGraphForksAndJoins) {
  const Stream side = runtime_->NewStream(false);
  const Event fork = runtime_->NewEvent();
  const Event join = runtime_->NewEvent();
  runtime_->BeginCapture(stream_);
  runtime_->Fill(stream_, device_, 1, kBytes);
  runtime_->Record(fork, stream_);
  runtime_->Wait(side, fork);
  runtime_->Fill(side, device_, 2, kBytes / 2);
  runtime_->Fill(stream_, device_ + kBytes / 2, 2, kBytes / 2);
  runtime_->Record(join, side);
  runtime_->Wait(stream_, join);
  runtime_->Copy(stream_, host_, device_, kBytes);
  const auto graph = runtime_->EndCapture(stream_);
  ASSERT_TRUE(graph.ok()) << graph.status();
  std::memset(host_, 0, kBytes);
  for (int i = 0; i < 2; ++i) runtime_->LaunchGraph(stream_, *graph);
  ExpectHost(2);
  runtime_->FreeGraph(*graph);
  runtime_->FreeEvent(fork);
  runtime_->FreeEvent(join);
}

TEST_F(DeviceRuntimeTest, AStreamThatIsNotJoinedMakesNoGraph) {
  const Stream side = runtime_->NewStream(false);
  const Event fork = runtime_->NewEvent();
  runtime_->BeginCapture(stream_);
  runtime_->Record(fork, stream_);
  runtime_->Wait(side, fork);
  runtime_->Fill(side, device_, 2, kBytes);
  EXPECT_FALSE(runtime_->EndCapture(stream_).ok());
  EXPECT_TRUE(runtime_->status().ok());
  runtime_->FreeEvent(fork);
}

}  // namespace
}  // namespace lorad::kernels::cuda
