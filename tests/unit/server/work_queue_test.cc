#include "server/work_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>

namespace lorad {
namespace {

TEST(WorkQueueTest, RunsAllThatWasPostedBeforeTheEnd) {
  std::atomic<int> ran = 0;
  {
    WorkQueue queue(3);
    for (int i = 0; i < 500; ++i) queue.Post([&ran] { ++ran; });
  }
  EXPECT_EQ(ran, 500);
}

TEST(WorkQueueTest, StopFinishesWhatIsQueuedAndDropsWhatComesLater) {
  WorkQueue queue(1);
  std::promise<void> go;
  std::atomic<int> ran = 0;
  queue.Post([&go] { go.get_future().wait(); });
  for (int i = 0; i < 5; ++i) queue.Post([&ran] { ++ran; });
  go.set_value();
  queue.Stop();
  EXPECT_EQ(ran, 5);
  const auto held = std::make_shared<int>();
  queue.Post([&ran, held] { ++ran; });
  EXPECT_EQ(held.use_count(), 1) << "what is dropped holds on to nothing";
  queue.Stop();
  EXPECT_EQ(ran, 5);
}

}  // namespace
}  // namespace lorad
