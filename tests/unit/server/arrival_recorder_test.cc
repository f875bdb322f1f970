#include "server/arrival_recorder.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "server/arrival_record.h"

namespace lorad {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class FixedClock final : public Clock {
 public:
  TimePoint Now() const override { return now; }
  TimePoint now{seconds(1000)};
};

std::vector<std::string> Lines(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<ArrivalRecord> Records(const std::string& path) {
  std::vector<ArrivalRecord> records;
  const std::vector<std::string> lines = Lines(path);
  EXPECT_GE(lines.size(), 2u);
  EXPECT_TRUE(IsArrivalHeader(lines[0]));
  for (size_t i = 2; i < lines.size(); ++i) {
    const auto record = FromLine(lines[i]);
    EXPECT_TRUE(record.ok()) << lines[i];
    if (record.ok()) records.push_back(*record);
  }
  return records;
}

TEST(ArrivalRecordTest, LineAndBack) {
  const ArrivalRecord record{.arrival_us = 123456,
                             .tenant = 0xfeedface12345678,
                             .adapter = 17,
                             .adapter_bytes = 5210112,
                             .prompt_tokens = 301,
                             .cached_tokens = 16,
                             .max_tokens = 200,
                             .output_tokens = 57,
                             .priority = 2,
                             .weight = 2.5,
                             .deadline_us = 30000000,
                             .outcome = ArrivalOutcome::kCancelled,
                             .queue_us = 12,
                             .first_token_us = 345,
                             .total_us = 6789};
  const auto back = FromLine(ToLine(record));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(*back, record);
  EXPECT_EQ(*FromLine(ToLine({})), ArrivalRecord{});
}

TEST(ArrivalRecordTest, WhatIsNoRecordIsRefused) {
  const std::string line = ToLine({});
  for (const std::string& wrong :
       {std::string(), line.substr(0, line.size() / 2), line + ",1", "x" + line, line + "x",
        std::string(14, ','), "1" + line.substr(line.find(',') + 1)}) {
    EXPECT_FALSE(FromLine(wrong).ok()) << wrong;
  }
}

class ArrivalRecorderTest : public testing::Test {
 protected:
  ArrivalRecorderTest() : directory_(testing::TempDir() + "/arrivals") {
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    path_ = directory_ + "/file";
  }
  std::unique_ptr<ArrivalRecorder> Open(ArrivalRecorder::Options options = {}) {
    options.path = path_;
    auto opened = ArrivalRecorder::Open(options, &clock_);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  }
  GenerationRequest Request(std::string tenant = "acme") const {
    GenerationRequest request;
    request.request_id = "secret-id";
    request.prompt = {31337, 31338, 31339};
    request.max_tokens = 9;
    request.tenant = std::move(tenant);
    request.stop_strings = {"secret-stop"};
    request.cache_salt = "secret-salt";
    request.arrival = TimePoint(seconds(1002));
    request.deadline = TimePoint(seconds(1010));
    auto version = std::make_shared<AdapterVersion>();
    version->id = 5;
    version->name = "acme/secret-adapter";
    version->image_bytes = 4096;
    request.adapters.push_back({.version = version});
    return request;
  }
  static StreamEnd End() {
    StreamEnd end;
    end.usage = {.prompt_tokens = 3, .cached_tokens = 1, .output_tokens = 7};
    end.timings = {
        .queue = milliseconds(5), .first_token = milliseconds(20), .total = milliseconds(900)};
    end.matched_stop = "secret-match";
    return end;
  }

  FixedClock clock_;
  std::string directory_, path_;
};

TEST_F(ArrivalRecorderTest, SaysWhatWasAskedAndWhatCame) {
  {
    auto recorder = Open();
    recorder->End(recorder->Begin(Request()), End());
    StreamEnd cancelled;
    cancelled.status = absl::CancelledError("by the client");
    recorder->End(recorder->Begin(Request("other")), cancelled);
    recorder->Refuse(recorder->Begin(Request()), absl::ResourceExhaustedError("full"));
    recorder->Refuse(recorder->Begin(Request()), absl::InvalidArgumentError("nonsense"));
  }
  const std::vector<ArrivalRecord> records = Records(path_);
  ASSERT_EQ(records.size(), 3u) << "a request that makes no sense is none";
  const ArrivalRecord& r = records[0];
  EXPECT_EQ(r.arrival_us, 2000000);
  EXPECT_EQ(r.adapter, 5u);
  EXPECT_EQ(r.adapter_bytes, 4096u);
  EXPECT_EQ(r.prompt_tokens, 3);
  EXPECT_EQ(r.cached_tokens, 1);
  EXPECT_EQ(r.max_tokens, 9);
  EXPECT_EQ(r.output_tokens, 7);
  EXPECT_EQ(r.deadline_us, 8000000);
  EXPECT_EQ(r.queue_us, 5000);
  EXPECT_EQ(r.first_token_us, 20000);
  EXPECT_EQ(r.total_us, 900000);
  EXPECT_EQ(records[1].outcome, ArrivalOutcome::kCancelled);
  EXPECT_EQ(records[1].first_token_us, -1);
  EXPECT_EQ(records[2].outcome, ArrivalOutcome::kRefused);
  EXPECT_EQ(records[2].tenant, r.tenant);
  EXPECT_NE(records[1].tenant, r.tenant);
}

TEST_F(ArrivalRecorderTest, NothingThatSomebodySaidIsInTheFile) {
  {
    auto recorder = Open();
    recorder->End(recorder->Begin(Request()), End());
  }
  std::ifstream in(path_);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  for (const char* word : {"acme", "secret", "31337", "31338"}) {
    EXPECT_EQ(text.find(word), std::string::npos) << word;
  }
}

TEST_F(ArrivalRecorderTest, NumbersOfTenantsMeanNothingElsewhere) {
  uint64_t tenant[2] = {};
  for (uint64_t& number : tenant) {
    {
      auto recorder = Open();
      recorder->End(recorder->Begin(Request()), End());
    }
    number = Records(path_)[0].tenant;
  }
  EXPECT_NE(tenant[0], tenant[1]);
}

TEST_F(ArrivalRecorderTest, TwoFilesOfHalfTheBytes) {
  constexpr uint64_t kMost = 8192;
  auto recorder = Open({.max_bytes = kMost, .write_every = milliseconds(1)});
  for (int i = 0; i < 1000; ++i) {
    recorder->End(recorder->Begin(Request()), End());
    if (i % 20 == 19) std::this_thread::sleep_for(milliseconds(2));
  }
  recorder.reset();
  const size_t kept = Records(path_).size() + Records(path_ + ".1").size();
  EXPECT_GT(kept, 40u);
  EXPECT_LE(std::filesystem::file_size(path_) + std::filesystem::file_size(path_ + ".1"), kMost);
}

TEST_F(ArrivalRecorderTest, IsReadableBeforeItsProcessEnds) {
  auto recorder = Open({.write_every = milliseconds(1)});
  recorder->End(recorder->Begin(Request()), End());
  for (int i = 0; i < 1000 && Lines(path_).size() < 3; ++i) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_EQ(Records(path_).size(), 1u);
}

TEST_F(ArrivalRecorderTest, AnEarlierRecordingIsKept) {
  std::ofstream(path_) << "last night\n";
  Open();
  EXPECT_EQ(Lines(path_ + ".1"), std::vector<std::string>{"last night"});
}

TEST_F(ArrivalRecorderTest, DropsWhatTheDiskCannotTake) {
  auto recorder = Open({.max_queued = 3, .write_every = seconds(100)});
  for (int i = 0; i < 10; ++i) recorder->End(recorder->Begin(Request()), End());
  EXPECT_EQ(recorder->dropped(), 7u);
  recorder.reset();
  EXPECT_EQ(Records(path_).size(), 3u);
}

TEST_F(ArrivalRecorderTest, FileThatCannotBeWrittenIsAnErrorAtStart) {
  const auto opened = ArrivalRecorder::Open({.path = directory_ + "/no/such"}, &clock_);
  EXPECT_EQ(opened.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lorad
