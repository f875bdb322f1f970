#include "server/work_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

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
  queue.Post([&ran] { ++ran; });
  queue.Stop();
  EXPECT_EQ(ran, 5);
}

}  // namespace
}  // namespace lorad
