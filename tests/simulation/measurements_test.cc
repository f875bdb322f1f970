#include "tests/simulation/measurements.h"

#include <gtest/gtest.h>

#include "tests/simulation/fairness_meter.h"

namespace lorad::sim {
namespace {

TEST(LogHistogramTest, PercentilesWithinTwoPercent) {
  LogHistogram histogram;
  EXPECT_EQ(histogram.Percentile(0.5), 0);
  for (int i = 1; i <= 10000; ++i) histogram.Add(i * 1e-4);
  EXPECT_NEAR(histogram.Percentile(0.5), 0.5, 0.01);
  EXPECT_NEAR(histogram.Percentile(0.99), 0.99, 0.02);
  EXPECT_NEAR(histogram.Percentile(1), 1, 0.02);
  EXPECT_EQ(histogram.max(), 1);
}

TEST(MeasurementsTest, ServiceOverTime) {
  Measurements measurements(3, 2, 0.5);
  measurements.AddService(0, At(0.1), 100, 0);
  measurements.AddService(1, At(0.6), 0, 1);
  measurements.AddService(1, At(0.9), 0, 1);
  measurements.AddService(0, At(1.1), 0, 1);
  ASSERT_EQ(measurements.service().size(), 3u);
  EXPECT_EQ(measurements.service()[0], (std::vector<int64_t>{100, 0}));
  EXPECT_EQ(measurements.service()[1], (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(measurements.output_tokens_before(1.0), 2);
  EXPECT_EQ(measurements.output_tokens(), 3);
  EXPECT_EQ(measurements.prompt_tokens(), 100);
}

TEST(FairnessMeterTest, SpreadOfWhoWaits) {
  FairnessMeter meter(2, {1, 2});
  meter.AddService(0, 1000, 0);
  EXPECT_EQ(meter.worst_spread(), 0) << "nobody waits";
  meter.AddWaiting(0, 1);
  meter.AddService(0, 1000, 0);
  EXPECT_EQ(meter.worst_spread(), 0) << "only one waits";
  meter.AddWaiting(1, 1);
  meter.AddService(0, 100, 0);
  EXPECT_EQ(meter.worst_spread(), 100);
  meter.AddService(1, 0, 100);  // two each, over a weight of 2
  EXPECT_EQ(meter.worst_spread(), 100);
  meter.AddService(1, 400, 0);
  EXPECT_EQ(meter.worst_spread(), 300) << "from its most to its least";
  meter.AddWaiting(1, -1);
  meter.AddService(0, 10000, 0);
  meter.AddWaiting(1, 1);
  EXPECT_EQ(meter.worst_spread(), 300) << "it begins anew";
}

}  // namespace
}  // namespace lorad::sim
