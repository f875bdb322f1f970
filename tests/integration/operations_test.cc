// What an operator sees: metrics, health, reflection, logs, drains, exit codes.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "absl/strings/str_split.h"
#include "client/error.h"
#include "server/arrival_record.h"
#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"
#include "tests/integration/raw_calls.h"

namespace lorad::integration {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kSecret[] = "the zebra sings at midnight";

v1::GenerateRequest Endless() {
  return LongRequest("pirate", "English: yes my friend.\nPirate:", 480);
}

TEST(MetricsTest, EveryFamilyIsThereWithItsMeaning) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.Start());
  const std::string text = daemon.MetricsText();
  const std::pair<const char*, const char*> families[] = {
      {"lorad_requests_total", "counter"},
      {"lorad_prompt_tokens_total", "counter"},
      {"lorad_output_tokens_total", "counter"},
      {"lorad_preemptions_total", "counter"},
      {"lorad_adapter_evictions_total", "counter"},
      {"lorad_adapter_loads_total", "counter"},
      {"lorad_prefix_cache_queried_tokens_total", "counter"},
      {"lorad_prefix_cache_hit_tokens_total", "counter"},
      {"lorad_prefix_cache_evicted_pages_total", "counter"},
      {"lorad_time_to_first_token_seconds", "histogram"},
      {"lorad_inter_token_latency_seconds", "histogram"},
      {"lorad_queue_time_seconds", "histogram"},
      {"lorad_first_token_forecast_ratio", "histogram"},
      {"lorad_offered_requests_total", "counter"},
      {"lorad_offered_output_tokens_total", "counter"},
      {"lorad_goodput_requests_total", "counter"},
      {"lorad_goodput_tokens_total", "counter"},
      {"lorad_refusals_total", "counter"},
      {"lorad_request_latency_seconds", "histogram"},
      {"lorad_adapter_load_seconds", "histogram"},
      {"lorad_step_seconds", "histogram"},
      {"lorad_step_tokens", "histogram"},
      {"lorad_batch_sequences", "histogram"},
      {"lorad_batch_adapters", "histogram"},
      {"lorad_requests_running", "gauge"},
      {"lorad_requests_waiting", "gauge"},
      {"lorad_requests_parked", "gauge"},
      {"lorad_requests_pinned", "gauge"},
      {"lorad_request_overtakes_total", "counter"},
      {"lorad_adapter_draining", "gauge"},
      {"lorad_step_budget_prompt_tokens", "gauge"},
      {"lorad_step_budget_sequences", "gauge"},
      {"lorad_tenant_spread_tokens", "gauge"},
      {"lorad_pool_pages", "gauge"},
      {"lorad_pool_pages_pinned", "gauge"},
      {"lorad_pool_waste_bytes", "gauge"},
      {"lorad_adapters", "gauge"},
      {"lorad_build_info", "gauge"}};
  for (const auto& [name, type] : families) {
    EXPECT_THAT(text, HasSubstr(fmt::format("# TYPE {} {}\n", name, type)));
    EXPECT_THAT(text,
                testing::ContainsRegex(fmt::format("# HELP {} [A-Z][a-z0-9]+ ?[a-z]*", name)));
  }
  for (const char* series :
       {"lorad_requests_total{outcome=\"error\"} 0", "lorad_requests_total{outcome=\"length\"} 0",
        "lorad_pool_pages{use=\"kv\"} 0", "lorad_pool_pages{use=\"adapter\"} 0",
        "lorad_pool_pages{use=\"kv_cached\"} 0", "lorad_pool_pages{use=\"loading\"} 0",
        "lorad_adapters{state=\"pinned\"} 0", "lorad_adapters{state=\"stored\"} 0",
        "lorad_adapters{state=\"resident\"} 0"}) {
    EXPECT_THAT(text, HasSubstr(series));
  }
}

// By how much each series differs; series that do not are left out.
std::map<std::string, double> Moved(const std::map<std::string, double>& before,
                                    const std::map<std::string, double>& after) {
  std::map<std::string, double> moved;
  for (const auto& [series, value] : after) {
    const auto found = before.find(series);
    const double was = found == before.end() ? 0 : found->second;
    if (value != was) moved[series] = value - was;
  }
  return moved;
}

TEST(MetricsTest, CountersMoveByWhatARequestDid) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo());
  Client client({.address = daemon.address()});
  const auto before = daemon.Metrics();
  const Answer answer = Ask(&client, LongRequest("pirate", "English: yes.\nPirate:", 10));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  const int prompt = answer.finish.usage().prompt_tokens();
  const auto ended = [&] { return daemon.Metrics().at("lorad_requests_running") == 0; };
  ASSERT_TRUE(Eventually(ended));
  auto moved = Moved(before, daemon.Metrics());
  EXPECT_EQ(moved["lorad_requests_total{outcome=\"length\"}"], 1);
  EXPECT_EQ(moved["lorad_prompt_tokens_total"], prompt);
  EXPECT_EQ(moved["lorad_output_tokens_total"], 10);
  EXPECT_EQ(moved["lorad_time_to_first_token_seconds_count{priority=\"standard\"}"], 1);
  EXPECT_EQ(moved["lorad_queue_time_seconds_count"], 1);
  EXPECT_EQ(moved["lorad_inter_token_latency_seconds_count{priority=\"standard\"}"], 9);
  EXPECT_EQ(moved["lorad_offered_requests_total{priority=\"standard\"}"], 1);
  EXPECT_EQ(moved["lorad_goodput_requests_total{priority=\"standard\"}"], 1);
  EXPECT_EQ(moved["lorad_goodput_tokens_total{priority=\"standard\"}"], 10);
  EXPECT_EQ(moved["lorad_request_latency_seconds_count"], 1);
  EXPECT_EQ(moved["lorad_adapter_loads_total{outcome=\"ok\"}"], 1);
  EXPECT_EQ(moved["lorad_adapter_load_seconds_count"], 1);
  EXPECT_EQ(moved["lorad_batch_sequences_count"], 10);  // the prompt's step makes the first token
  EXPECT_EQ(moved["lorad_batch_sequences_sum"], 10);
  EXPECT_EQ(moved["lorad_batch_adapters_sum"], 10);
  EXPECT_EQ(moved["lorad_step_tokens_sum"], prompt + 9);
  EXPECT_EQ(moved["lorad_adapters{state=\"resident\"}"], 1);
  EXPECT_GT(moved["lorad_pool_pages{use=\"adapter\"}"], 0);
  EXPECT_GT(moved["lorad_pool_pages{use=\"kv_cached\"}"], 0);  // its prompt, for the next one
  EXPECT_EQ(
      moved["lorad_pool_pages{use=\"free\"}"],
      -moved["lorad_pool_pages{use=\"adapter\"}"] - moved["lorad_pool_pages{use=\"kv_cached\"}"]);
  EXPECT_FALSE(moved.contains("lorad_adapters{state=\"stored\"}"));
  EXPECT_FALSE(moved.contains(R"(lorad_preemptions_total{reason="pages"})"));

  const auto middle = daemon.Metrics();
  EXPECT_FALSE(Ask(&client, GreedyRequest("nobody", "a")).status.ok());
  EXPECT_FALSE(Ask(&client, GreedyRequest("pirate", "a", 0)).status.ok());
  v1::ScoreRequest score;
  score.mutable_continuation()->set_text("a story");
  ASSERT_TRUE(client.Score(score).ok());
  moved = Moved(middle, daemon.Metrics());
  EXPECT_EQ(moved["lorad_requests_total{outcome=\"not_found\"}"], 1);
  EXPECT_EQ(moved["lorad_requests_total{outcome=\"invalid\"}"], 1);
  EXPECT_EQ(moved["lorad_requests_total{outcome=\"scored\"}"], 1);
  EXPECT_FALSE(moved.contains("lorad_output_tokens_total"));
  EXPECT_FALSE(moved.contains("lorad_adapter_loads_total{outcome=\"ok\"}"));
}

TEST(ReflectionTest, ListsTheServicesUnlessItIsOff) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.Start());
  const auto services = ListServices(daemon.address());
  ASSERT_TRUE(services.ok()) << services.status();
  for (const char* service : {"lorad.v1.Inference", "lorad.v1.Adapters", "lorad.v1.Admin"}) {
    EXPECT_THAT(*services, HasSubstr(service));
  }
  EXPECT_EQ(daemon.Terminate().code, 0);
  ASSERT_TRUE(daemon.Start({"--reflection", "false"}));
  EXPECT_EQ(ListServices(daemon.address()).status().code(), absl::StatusCode::kUnimplemented);
}

TEST(DrainTest, RunningRequestsFinishNewOnesAreTurnedAway) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo({"--drain-timeout", "240"}));
  Client client({.address = daemon.address()});
  EXPECT_TRUE(client.IsServing("").value_or(false));
  EXPECT_TRUE(client.IsServing("lorad.v1.Inference").value_or(false));
  const Answer alone = Ask(&client, Endless());
  ASSERT_TRUE(alone.status.ok()) << alone.status;

  std::vector<std::unique_ptr<BackgroundAnswer>> running;
  for (int i = 0; i < 60; ++i) {
    running.push_back(std::make_unique<BackgroundAnswer>(&client, Endless()));
  }
  for (const auto& one : running) EXPECT_TRUE(one->WaitForToken());
  daemon.Signal(SIGTERM);
  EXPECT_TRUE(Eventually([&] { return !client.IsServing("").value_or(false); }));
  const Answer late = Ask(&client, GreedyRequest("pirate", "a"));
  EXPECT_EQ(late.status.code(), absl::StatusCode::kUnavailable) << late.status;
  EXPECT_FALSE(running.back()->ended()) << "nothing was running during the drain";
  EXPECT_EQ(GetErrorDetails(late.status).reason, "SHUTTING_DOWN");
  EXPECT_TRUE(GetErrorDetails(late.status).retry_after.has_value());
  for (const auto& one : running) {
    ASSERT_TRUE(one->Wait().status.ok()) << one->Wait().status;
    EXPECT_TRUE(one->Wait().SameOutput(alone));
  }
  EXPECT_EQ(daemon.Wait().code, 0);
}

TEST(DrainTest, WhatIsLeftAtTheTimeoutIsToldThatTheServerIsGone) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo({"--drain-timeout", "0"}));
  Client client({.address = daemon.address()});
  std::vector<std::unique_ptr<BackgroundAnswer>> running;
  for (int i = 0; i < 40; ++i) {
    running.push_back(std::make_unique<BackgroundAnswer>(&client, Endless()));
  }
  for (const auto& one : running) EXPECT_TRUE(one->WaitForToken());
  EXPECT_EQ(daemon.Terminate().code, 0);
  int cut = 0;
  for (const auto& one : running) {
    if (one->Wait().status.ok()) continue;
    ++cut;
    EXPECT_EQ(one->Wait().status.code(), absl::StatusCode::kUnavailable) << one->Wait().status;
  }
  EXPECT_GT(cut, 0);
}

TEST(DrainTest, TheCallDrainsTooAndTheProcessStays) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo());
  Client client({.address = daemon.address()});
  BackgroundAnswer running(&client, Endless());
  EXPECT_TRUE(running.WaitForToken());
  const auto drained = client.Drain(std::chrono::minutes(1));
  ASSERT_TRUE(drained.ok()) << drained.status();
  EXPECT_EQ(drained->remaining_requests(), 0);
  EXPECT_TRUE(running.Wait().status.ok());
  EXPECT_FALSE(client.IsServing("lorad.v1.Inference").value_or(true));
  EXPECT_EQ(Ask(&client, Endless()).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(client.GetStats().ok());
  EXPECT_EQ(daemon.Terminate().code, 0);
}

TEST(StartTest, TwoDaemonsDoNotShareAStateDirectory) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.Start());
  const Finished second = RunProgram(daemon.Command());
  EXPECT_EQ(second.code, 2);
  EXPECT_THAT(second.err, HasSubstr("start failed"));
  EXPECT_THAT(second.err, HasSubstr(daemon.state_dir()));
  EXPECT_THAT(second.err,
              testing::AnyOf(HasSubstr("in use"), HasSubstr("lock"), HasSubstr("open")));
  Client client({.address = daemon.address()});
  EXPECT_TRUE(client.GetStats().ok());
}

TEST(StartTest, EveryProblemOfTheConfigurationIsNamedAtOnce) {
  const Finished wrong =
      RunProgram({DaemonProgram(), "--model", "/nonexistent/model", "--max-rank", "0", "--listen",
                  "0.0.0.0:1", "--adapter", "Bad=", "--check-config"});
  EXPECT_EQ(wrong.code, 1);
  for (const char* option : {"--model", "--max-rank", "--listen", "--adapter"}) {
    EXPECT_THAT(wrong.err, HasSubstr(option));
  }
  EXPECT_EQ(wrong.out, "");
  EXPECT_EQ(RunProgram({DaemonProgram(), "--no-such-option"}).code, 1);
}

TEST(StartTest, CheckConfigStartsNothing) {
  const TempDirectory directory;
  const std::string state = directory / "state";
  const Finished right = RunProgram({DaemonProgram(), "--model", SourcePath("demo/model"),
                                     "--state-dir", state, "--check-config"});
  EXPECT_EQ(right.code, 0);
  EXPECT_THAT(right.out, HasSubstr("valid"));
  EXPECT_EQ(ReadWholeFile(state + "/format"), "");
}

// Numbers of requests that outlive the process that recorded them, and nothing that anybody said.
TEST(RecordingTest, OutlivesAKillAndHoldsNoText) {
  DaemonProcess daemon;
  const std::string path = daemon.state_dir() + "-arrivals";
  ASSERT_TRUE(daemon.StartWithDemo({"--record-arrivals", path}));
  Client acme({.address = daemon.address(), .tenant = "acme"});
  const Answer answer = Ask(&acme, GreedyRequest("json", kSecret, 8));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  std::vector<std::string> lines;
  for (int i = 0; i < 100 && lines.size() < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    lines = absl::StrSplit(ReadWholeFile(path), '\n', absl::SkipEmpty());
  }
  daemon.Kill();
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_TRUE(IsArrivalHeader(lines[0]));
  const auto record = FromLine(lines[2]);
  ASSERT_TRUE(record.ok()) << lines[2];
  EXPECT_EQ(record->prompt_tokens, answer.finish.usage().prompt_tokens());
  EXPECT_EQ(record->output_tokens, answer.finish.usage().completion_tokens());
  EXPECT_NE(record->tenant, 0u);
  EXPECT_NE(record->adapter, 0u);
  EXPECT_GT(record->adapter_bytes, 0u);
  EXPECT_GT(record->total_us, record->first_token_us);
  EXPECT_EQ(record->outcome, ArrivalOutcome::kFinished);
  for (const char* word : {"zebra", "acme", "json"}) {
    EXPECT_THAT(ReadWholeFile(path), Not(HasSubstr(word)));
  }
}

TEST(LogTest, LinesAreJsonAndHoldNoPrompt) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo({"--log-level", "debug"}));
  int tokens = 0;
  {
    Client client({.address = daemon.address()});
    Client acme({.address = daemon.address(), .tenant = "acme"});
    auto request = GreedyRequest("json", kSecret, 8);
    request.set_request_id("id \"with\" \\ quotes");
    const Answer answer = Ask(&acme, request);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    tokens = answer.finish.usage().completion_tokens();
    EXPECT_FALSE(Ask(&client, GreedyRequest(kSecret, kSecret)).status.ok());
    EXPECT_FALSE(Ask(&client, GreedyRequest("json", kSecret, 0)).status.ok());
  }
  EXPECT_EQ(daemon.Terminate().code, 0);
  std::istringstream lines(daemon.log());
  int ended = 0, refused = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto fields = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(fields.is_object()) << line;
    EXPECT_TRUE(fields.contains("time") && fields.contains("level")) << line;
    EXPECT_THAT(line, Not(HasSubstr("zebra")));
    const std::string event = fields.value("event", "");
    EXPECT_NE(event, "") << line;
    if (event == "request refused") {
      ++refused;
      EXPECT_THAT(fields.value("request_id", ""), testing::StartsWith("req-")) << line;
      EXPECT_EQ(fields.value("tenant", "none"), "") << line;
    }
    if (event != "request ended") continue;
    ++ended;
    EXPECT_EQ(fields["tenant"], "acme");
    EXPECT_EQ(fields["request_id"], "id \"with\" \\ quotes");
    EXPECT_EQ(fields["adapter"], "json");
    EXPECT_EQ(fields["status"], "OK");
    EXPECT_EQ(fields["output_tokens"], tokens);
  }
  EXPECT_EQ(ended, 1);
  EXPECT_EQ(refused, 2);
  EXPECT_THAT(daemon.log(), HasSubstr("\"stopped\""));
}

TEST(LoractlTest, ExitCodesSayWhatHappened) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo());
  const auto loractl = [&daemon](std::vector<std::string> words) {
    words.insert(words.begin(), {LoractlProgram(), "--address", daemon.address()});
    return RunProgram(words);
  };
  const EvalCase c = LoadEval("sort", 1)[0];
  const Finished done = loractl({"generate", "-a", "sort", "-t", "0", c.prompt});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_THAT(done.out, HasSubstr(c.expected.substr(1)));
  EXPECT_EQ(loractl({"health"}).code, 0);
  const Finished absent = loractl({"generate", "-a", "nobody", "hello"});
  EXPECT_EQ(absent.code, 2);
  EXPECT_THAT(absent.err, HasSubstr("nobody"));
  EXPECT_EQ(loractl({"adapters", "get", "nobody"}).code, 2);
  EXPECT_EQ(loractl({"generate", "-a", "sort", "--top-p", "7", "hello"}).code, 2);
  EXPECT_EQ(loractl({"no-such-command"}).code, 1);
  EXPECT_EQ(daemon.Terminate().code, 0);
  EXPECT_EQ(loractl({"generate", "-a", "sort", "hello"}).code, 3);
  EXPECT_EQ(loractl({"health"}).code, 3);
}

}  // namespace
}  // namespace lorad::integration
