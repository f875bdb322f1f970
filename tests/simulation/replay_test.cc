#include "tests/simulation/replay.h"

#include <gtest/gtest.h>

#include <fstream>

#include "server/arrival_record.h"
#include "tests/simulation/summary.h"

namespace lorad::sim {
namespace {

std::string File(const char* name, int64_t start_us, const std::vector<ArrivalRecord>& records,
                 const char* rest = "") {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream out(path);
  out << ArrivalHeader(start_us);
  for (const ArrivalRecord& record : records) out << ToLine(record) << "\n";
  out << rest;
  return path;
}

ArrivalRecord Record(int64_t arrival_us, uint64_t tenant = 7, uint64_t adapter = 3) {
  return {.arrival_us = arrival_us,
          .tenant = tenant,
          .adapter = adapter,
          .adapter_bytes = 5000000 + adapter,
          .prompt_tokens = 100,
          .cached_tokens = 40,
          .max_tokens = 80,
          .output_tokens = 20,
          .priority = 2,
          .weight = 3,
          .deadline_us = 9000000,
          .queue_us = 1000,
          .first_token_us = 100000,
          .total_us = 2000000};
}

TEST(ReplayTest, SaysWhatWasRecorded) {
  const auto recording = ReadRecording({File(
      "a", 1000, {Record(5000000), Record(1000000, 8, 9), Record(2000000, 7, 0)}, "123,torn li")});
  ASSERT_TRUE(recording.ok()) << recording.status();
  ASSERT_EQ(recording->requests.size(), 3u);
  EXPECT_EQ(recording->unreadable, 1u);
  const SimRequest& last = recording->requests[2];
  EXPECT_EQ(recording->requests[0].start_s, 0) << "in order of arrival";
  EXPECT_EQ(last.start_s, 4);
  EXPECT_EQ(last.tenant, recording->requests[1].tenant);
  EXPECT_NE(last.tenant, recording->requests[0].tenant);
  EXPECT_EQ(recording->requests[1].adapter, -1);
  EXPECT_EQ(recording->adapter_bytes[static_cast<size_t>(last.adapter)], 5000003u);
  EXPECT_EQ(recording->weights[static_cast<size_t>(last.tenant)], 3);
  EXPECT_EQ(last.prompt_tokens, 100);
  EXPECT_EQ(last.shared_tokens, 40);
  EXPECT_EQ(last.max_tokens, 80);
  EXPECT_EQ(last.output_tokens, 20);
  EXPECT_EQ(last.priority, Priority::kBatch);
  EXPECT_EQ(last.deadline_s, 13);
  EXPECT_EQ(last.cancel_s, kNever);
  const Summary was = Summarize(recording->as_recorded, recording->requests, {.ttft_s = 1});
  EXPECT_EQ(was.attainment, 1);
  EXPECT_NEAR(was.ttft_s.p99, 0.1, 1e-6);
  EXPECT_NEAR(was.request_gap_s.p50, 0.1, 1e-6);
}

TEST(ReplayTest, UnfinishedOnesAreTakenToBeLikeTheOthers) {
  std::vector<ArrivalRecord> records = {Record(0), Record(1), Record(2), Record(3)};
  records[0].output_tokens = 40;  // and 20 of the others: 3/8 of what is allowed
  records[2].outcome = ArrivalOutcome::kRefused;
  records[2].output_tokens = 0;
  records[2].max_tokens = 160;
  records[3].outcome = ArrivalOutcome::kCancelled;
  records[3].output_tokens = 55;
  const auto recording = ReadRecording({File("b", 1000, records)});
  ASSERT_TRUE(recording.ok());
  EXPECT_EQ(recording->requests[2].output_tokens, 60);
  EXPECT_EQ(recording->requests[3].output_tokens, 56) << "more than came";
  EXPECT_NEAR(recording->requests[3].cancel_s, 2, 1e-5);
}

TEST(ReplayTest, FilesOfOneServerAndOfSeveral) {
  const auto recording = ReadRecording(
      {File("c", 50000000, {Record(0)}), File("d", 40000000, {Record(1000000), Record(2000000)})},
      2);
  ASSERT_TRUE(recording.ok());
  EXPECT_EQ(recording->requests[2].start_s, 4.5) << "nine seconds, twice as fast";
  EXPECT_NE(recording->requests[2].adapter, recording->requests[0].adapter)
      << "numbers of different recordings are not the same";
}

TEST(ReplayTest, WhatIsNoRecordingIsRefused) {
  EXPECT_EQ(ReadRecording({"/no/such/file"}).status().code(), absl::StatusCode::kNotFound);
  const std::string path = testing::TempDir() + "/e";
  std::ofstream(path) << "hello\n";
  EXPECT_EQ(ReadRecording({path}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(ReadRecording({File("f", 1, {})}).ok());
}

}  // namespace
}  // namespace lorad::sim
