// Deadlines, objectives and bounds of the queue, through the wire.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "client/error.h"
#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

using std::chrono::milliseconds;

std::string ReasonOf(const absl::Status& status) {
  return status.ok() ? "OK" : GetErrorDetails(status).reason;
}

std::string RefusalsBy(const std::string& reason) {
  return "lorad_refusals_total{reason=\"" + reason + "\"}";
}

v1::GenerateRequest Prompt(int tokens, int output, int salt) {
  v1::GenerateRequest request;
  for (int i = 0; i < tokens; ++i) {
    request.mutable_prompt()->mutable_token_ids()->add_ids(10 + (salt * 31 + i * 7) % 200);
  }
  request.set_max_tokens(output);
  request.set_ignore_eos(true);
  request.mutable_sampling()->set_temperature(0);
  return request;
}

class DeadlinesTest : public testing::Test {
 protected:
  // Two places, so that a queue is soon there.
  void Start(std::vector<std::string> options = {}) {
    options.insert(options.end(), {"--max-running", "2"});
    ASSERT_TRUE(daemon_.Start(options));
    busy_ = std::make_unique<Client>(ClientOptions{.address = daemon_.address(), .tenant = "busy"});
    other_ =
        std::make_unique<Client>(ClientOptions{.address = daemon_.address(), .tenant = "other"});
  }
  // So that the daemon knows what its steps cost.
  void Measure() {
    for (int i = 0; i < 12; ++i) {
      const Answer answer = Ask(busy_.get(), Prompt(64, 8, 1000 + i));
      ASSERT_TRUE(answer.status.ok()) << answer.status;
    }
  }

  DaemonProcess daemon_;
  std::unique_ptr<Client> busy_, other_;
};

TEST_F(DeadlinesTest, WhatCannotBeInTimeIsRefusedAtOnceAndDisturbsNobody) {
  Start();
  const Answer alone = Ask(other_.get(), Prompt(64, 200, 7));
  ASSERT_TRUE(alone.status.ok()) << alone.status;
  Measure();
  const auto before = daemon_.Metrics();

  std::vector<std::unique_ptr<BackgroundAnswer>> busy;
  for (int i = 0; i < 40; ++i) {
    busy.push_back(std::make_unique<BackgroundAnswer>(busy_.get(), Prompt(64, 400, 2000 + i)));
  }
  ASSERT_TRUE(Eventually([&] { return daemon_.Metrics().at("lorad_requests_waiting") >= 30; }));
  // It would come after some thirty that make 400 tokens each, two at a time.
  const auto refused = busy_->Generate(Prompt(64, 8, 8), nullptr, {.timeout = milliseconds(500)});
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_EQ(ReasonOf(refused.status()), "DEADLINE_UNREACHABLE");
  const auto retry = GetErrorDetails(refused.status()).retry_after;
  ASSERT_TRUE(retry.has_value());
  EXPECT_GE(*retry, milliseconds(100));
  const auto after = daemon_.Metrics();
  const std::string series = RefusalsBy("DEADLINE_UNREACHABLE");
  EXPECT_EQ(after.at(series) - before.at(series), 1);
  EXPECT_GE(after.at("lorad_requests_waiting"), 20) << "the others go on waiting";

  const Answer beside = Ask(other_.get(), Prompt(64, 200, 7));
  ASSERT_TRUE(beside.status.ok()) << beside.status;
  EXPECT_EQ(beside.tokens, alone.tokens);
  for (auto& answer : busy) {
    const Answer whole = answer->Wait();
    EXPECT_TRUE(whole.status.ok()) << whole.status;
    EXPECT_EQ(whole.tokens.size(), 400u);
  }
  EXPECT_GT(daemon_.Metrics().at("lorad_first_token_forecast_ratio_count"), 30);
}

TEST_F(DeadlinesTest, ATenantHasItsOwnPlacesInTheQueue) {
  Start({"--tenant", "busy,max-waiting=3"});
  std::vector<std::unique_ptr<BackgroundAnswer>> busy;
  for (int i = 0; i < 2; ++i) {
    busy.push_back(std::make_unique<BackgroundAnswer>(busy_.get(), Prompt(16, 480, i)));
  }
  ASSERT_TRUE(Eventually([&] { return daemon_.Metrics().at("lorad_requests_running") == 2; }));
  for (int i = 2; i < 5; ++i) {
    busy.push_back(std::make_unique<BackgroundAnswer>(busy_.get(), Prompt(16, 480, i)));
  }
  ASSERT_TRUE(Eventually([&] { return daemon_.Metrics().at("lorad_requests_waiting") == 3; }));
  const Answer refused = Ask(busy_.get(), Prompt(16, 8, 6));
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status)) << refused.status;
  EXPECT_EQ(ReasonOf(refused.status), "TENANT_QUEUE_FULL");
  EXPECT_TRUE(GetErrorDetails(refused.status).retry_after.has_value());
  EXPECT_EQ(daemon_.Metrics().at(RefusalsBy("TENANT_QUEUE_FULL")), 1);
  const Answer other = Ask(other_.get(), Prompt(16, 8, 7));
  EXPECT_TRUE(other.status.ok()) << other.status;
}

TEST_F(DeadlinesTest, ObjectivesAreCounted) {
  Start({"--objective", "interactive,ttft=60s,itl=10s", "--objective", "standard,itl=0.001ms"});
  v1::GenerateRequest request = Prompt(16, 8, 1);
  request.set_priority(v1::PRIORITY_INTERACTIVE);
  ASSERT_TRUE(Ask(busy_.get(), request).status.ok());
  ASSERT_TRUE(Ask(busy_.get(), Prompt(16, 8, 2)).status.ok());
  ASSERT_TRUE(Eventually([&] { return daemon_.Metrics().at("lorad_requests_running") == 0; }));
  const auto metrics = daemon_.Metrics();
  EXPECT_EQ(metrics.at("lorad_goodput_requests_total{priority=\"interactive\"}"), 1);
  EXPECT_EQ(metrics.at("lorad_goodput_tokens_total{priority=\"interactive\"}"), 8);
  EXPECT_EQ(metrics.at("lorad_offered_requests_total{priority=\"standard\"}"), 1);
  EXPECT_EQ(metrics.at("lorad_goodput_requests_total{priority=\"standard\"}"), 0);
}

}  // namespace
}  // namespace lorad::integration
