#include "server/objective_option.h"

#include <gtest/gtest.h>

namespace lorad {
namespace {

using std::chrono::milliseconds;

TEST(ParseDurationTest, MillisecondsAndSeconds) {
  EXPECT_EQ(*ParseDuration("50ms"), milliseconds(50));
  EXPECT_EQ(*ParseDuration("1.5s"), milliseconds(1500));
  EXPECT_EQ(*ParseDuration("0.5ms"), std::chrono::microseconds(500));
  EXPECT_EQ(*ParseDuration("86400s"), std::chrono::hours(24));
  for (const char* bad : {"", "s", "ms", "50", "50 ms", " 50ms", "50m", "50msx", "0ms", "-1s",
                          "nan", "nans", "infs", "86401s", "1e99s"}) {
    EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
  }
}

TEST(ParseObjectiveTest, AClassAndWhatItIsToSee) {
  const auto all = ParseObjective("interactive,ttft=500ms,itl=50ms,refuse");
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->first, Priority::kInteractive);
  EXPECT_EQ(all->second, (Objective{.first_token = milliseconds(500),
                                    .inter_token = milliseconds(50),
                                    .refuse = true}));
  const auto one = ParseObjective("batch,itl=1s");
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->first, Priority::kBatch);
  EXPECT_EQ(one->second, (Objective{.inter_token = milliseconds(1000)}));
  EXPECT_EQ(ParseObjective("standard,ttft=2s")->first, Priority::kStandard);
  for (const char* bad :
       {"", "interactive", "urgent,ttft=1s", "interactive,ttft",
        "interactive,ttft=", "interactive,ttft=1", "interactive,itl=0s", "interactive,refuse",
        "interactive,itl=50ms,refuse", "interactive,first=1s", "ttft=1s", "interactive,,ttft=1s",
        "interactive ttft=1s", "interactive,ttft=1s,refuse=yes"}) {
    EXPECT_FALSE(ParseObjective(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace lorad
