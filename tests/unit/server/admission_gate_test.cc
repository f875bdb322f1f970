#include "server/admission_gate.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memory/base/error_detail.h"

namespace lorad {
namespace {

using Change = AdmissionGate::Change;
using std::chrono::milliseconds;

constexpr TimePoint kNow{std::chrono::hours(1)};

// 10 ms a step and 0.1 ms a row; 100 rows a step, all of one prompt if they are there.
ServiceState Measured() {
  return {.cost = {.base = 0.010, .prompt_row = 0.0001, .decode_row = 0.0001},
          .trusted = true,
          .max_step_tokens = 100,
          .max_chunk_tokens = 100,
          .max_sequences = 8,
          .available_pages = 1e6,
          .seconds_per_adapter_page = 0.1};
}

GenerationRequest Prompt(int tokens, Duration deadline = Duration::max()) {
  GenerationRequest request;
  request.prompt.assign(static_cast<size_t>(tokens), 1);
  request.max_tokens = 1;
  request.arrival = kNow;
  if (deadline != Duration::max()) request.deadline = kNow + deadline;
  return request;
}

// A gate, numbers for those that enter, and what it answers.
class AdmissionGateTest : public testing::Test {
 protected:
  void Make(const QueueBounds& bounds, const Objectives& objectives = {}) {
    gate_.emplace(bounds, objectives);
  }
  void Measure(const ServiceState& state = Measured()) { gate_->Update({}, state); }
  void Tell(RequestId id, Change change, const ServiceState& state = Measured()) {
    const std::pair<RequestId, Change> changes[] = {{id, change}};
    gate_->Update(changes, state);
  }
  // The reason of a refusal, or "" and the request waits as last_.
  std::string Enter(GenerationRequest request, TimePoint now = kNow) {
    status_ = gate_->Enter(++last_, &request, now);
    foreseen_ = request.foreseen_first_token_s;
    return status_.ok() ? "" : GetErrorDetail(status_).reason;
  }
  milliseconds RetryAfter() const {
    return GetErrorDetail(status_).retry_after.value_or(milliseconds(-1));
  }
  // Requests that cannot be in time, with their reasons.
  std::vector<std::pair<RequestId, std::string>> Hopeless(TimePoint now) {
    std::vector<std::pair<RequestId, std::string>> hopeless;
    for (const auto& [id, status] : gate_->TakeHopeless(now)) {
      hopeless.emplace_back(id, GetErrorDetail(status).reason);
    }
    return hopeless;
  }

  std::optional<AdmissionGate> gate_{std::in_place, QueueBounds(), Objectives()};
  RequestId last_ = 0;
  absl::Status status_;
  double foreseen_ = 0;
};
using Reasons = std::vector<std::pair<RequestId, std::string>>;

TEST_F(AdmissionGateTest, BoundsOfAllRequests) {
  Make({.requests = 3});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Enter(Prompt(10)), "");
  EXPECT_EQ(gate_->waiting(), 3);
  EXPECT_EQ(Enter(Prompt(10)), "QUEUE_FULL");
  EXPECT_TRUE(absl::IsResourceExhausted(status_));
  EXPECT_EQ(RetryAfter(), milliseconds(1000)) << "nothing was measured yet";
  EXPECT_EQ(gate_->waiting(), 3);
  Tell(1, Change::kAdmitted, {});
  EXPECT_EQ(Enter(Prompt(10)), "");
  EXPECT_EQ(Enter(Prompt(10)), "QUEUE_FULL");
  Tell(1, Change::kReturned, {});
  EXPECT_EQ(gate_->waiting(), 4) << "who was preempted is never sent away";
  for (const RequestId id : {1, 2, 3}) Tell(id, Change::kEnded, {});
  EXPECT_EQ(gate_->waiting(), 1);
  EXPECT_EQ(Enter(Prompt(10)), "");
}

TEST_F(AdmissionGateTest, AnEnterCanBeTakenBack) {
  Make({.requests = 1});
  EXPECT_EQ(Enter(Prompt(10)), "");
  gate_->Leave(last_);
  EXPECT_EQ(gate_->waiting(), 0);
  EXPECT_EQ(Enter(Prompt(10)), "");
}

TEST_F(AdmissionGateTest, BoundOfATenantIsItsOwn) {
  const auto of = [](const char* tenant, int most) {
    GenerationRequest request = Prompt(10);
    request.tenant = tenant;
    request.tenant_max_waiting = most;
    return request;
  };
  EXPECT_EQ(Enter(of("acme", 2)), "");
  EXPECT_EQ(Enter(of("acme", 2)), "");
  EXPECT_EQ(Enter(of("acme", 2)), "TENANT_QUEUE_FULL");
  EXPECT_TRUE(absl::IsResourceExhausted(status_));
  EXPECT_GT(RetryAfter(), milliseconds(0));
  EXPECT_EQ(Enter(of("other", 2)), "");
  EXPECT_EQ(Enter(of("", 0)), "");
  EXPECT_EQ(Enter(of("acme", 0)), "") << "0 is no bound";
  Tell(1, Change::kAdmitted);
  Tell(2, Change::kEnded);
  EXPECT_EQ(Enter(of("acme", 2)), "");
  EXPECT_EQ(Enter(of("acme", 2)), "TENANT_QUEUE_FULL");
}

TEST_F(AdmissionGateTest, WhoFloodsLeavesRoomForOthers) {
  Make({.requests = 90});
  const auto of = [](const char* tenant, int tokens) {
    GenerationRequest request = Prompt(tokens);
    request.tenant = tenant;
    return request;
  };
  for (int i = 0; i < 80; ++i) ASSERT_EQ(Enter(of("flood", 1)), "") << i;
  EXPECT_EQ(Enter(of("flood", 1)), "TENANT_QUEUE_FULL");
  EXPECT_TRUE(absl::IsResourceExhausted(status_));
  EXPECT_GT(RetryAfter(), milliseconds(0));
  for (int i = 0; i < 9; ++i) EXPECT_EQ(Enter(of("other", 1)), "") << i;
  EXPECT_EQ(Enter(of("third", 1)), "") << "the very last one";
  EXPECT_EQ(Enter(of("fourth", 1)), "QUEUE_FULL");
}

TEST_F(AdmissionGateTest, WhoFloodsWithLongPromptsLeavesRoomForOthers) {
  Make({.prompt_tokens = 900});
  const auto of = [](const char* tenant, int tokens) {
    GenerationRequest request = Prompt(tokens);
    request.tenant = tenant;
    return request;
  };
  EXPECT_EQ(Enter(of("flood", 400)), "");
  EXPECT_EQ(Enter(of("flood", 400)), "") << "eight times what is left";
  EXPECT_EQ(Enter(of("flood", 1)), "TENANT_QUEUE_FULL");
  EXPECT_EQ(Enter(of("other", 100)), "");
}

TEST_F(AdmissionGateTest, BoundOfPromptTokens) {
  Make({.prompt_tokens = 1000});
  EXPECT_EQ(Enter(Prompt(800)), "");
  EXPECT_EQ(Enter(Prompt(201)), "QUEUE_TOKENS_FULL");
  EXPECT_TRUE(absl::IsResourceExhausted(status_));
  EXPECT_GT(RetryAfter(), milliseconds(0));
  EXPECT_EQ(Enter(Prompt(200)), "");
  Tell(1, Change::kAdmitted);
  Tell(last_, Change::kAdmitted);
  EXPECT_EQ(Enter(Prompt(5000)), "") << "an empty queue takes any one request";
  EXPECT_EQ(Enter(Prompt(1)), "QUEUE_TOKENS_FULL");
}

TEST_F(AdmissionGateTest, BoundOfBytesCountsPromptsOutputsAndStopStrings) {
  const auto big = [](int prompt, int output, size_t stop) {
    GenerationRequest request = Prompt(prompt);
    request.max_tokens = output;
    request.stop_strings = {std::string(stop, 'x')};
    return request;
  };
  Make({.bytes = 40000});
  EXPECT_EQ(Enter(big(1, 1, 1)), "");
  EXPECT_EQ(Enter(big(5000, 1, 1)), "QUEUE_BYTES_FULL");
  EXPECT_TRUE(absl::IsResourceExhausted(status_));
  EXPECT_EQ(Enter(big(1, 10000, 1)), "QUEUE_BYTES_FULL");
  EXPECT_EQ(Enter(big(1, 1, 40000)), "QUEUE_BYTES_FULL");
  EXPECT_EQ(Enter(big(2000, 1, 1)), "");
  EXPECT_EQ(Enter(big(3000, 1, 1)), "QUEUE_BYTES_FULL");
  Tell(5, Change::kEnded);
  EXPECT_EQ(Enter(big(3000, 1, 1)), "");
}

TEST_F(AdmissionGateTest, RetryAdviceOfAFullQueueIsWhenItWillHaveDrained) {
  Make({.requests = 2});
  Measure();
  EXPECT_EQ(Enter(Prompt(5000)), "");
  EXPECT_EQ(Enter(Prompt(5000)), "");
  EXPECT_EQ(Enter(Prompt(1)), "QUEUE_FULL");
  EXPECT_EQ(RetryAfter(), milliseconds(2000));  // 100 steps of 20 ms
  // Those that are refused together are spread over a quarter more.
  EXPECT_EQ(Enter(Prompt(1)), "QUEUE_FULL");
  EXPECT_EQ(RetryAfter(), milliseconds(2062));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(Enter(Prompt(1)), "QUEUE_FULL");
  EXPECT_EQ(RetryAfter(), milliseconds(2437));
  EXPECT_EQ(Enter(Prompt(1)), "QUEUE_FULL");
  EXPECT_EQ(RetryAfter(), milliseconds(2000));
}

TEST_F(AdmissionGateTest, RetryAdviceIsNeitherAtOnceNorNever) {
  Make({.requests = 1});
  Measure();
  EXPECT_EQ(Enter(Prompt(1)), "");
  EXPECT_EQ(Enter(Prompt(1)), "QUEUE_FULL");
  EXPECT_EQ(RetryAfter(), milliseconds(100));
  Tell(1, Change::kEnded);
  EXPECT_EQ(Enter(Prompt(5000000)), "");
  EXPECT_EQ(Enter(Prompt(1)), "QUEUE_FULL");
  EXPECT_EQ(RetryAfter(), milliseconds(60000));
}

TEST_F(AdmissionGateTest, ADeadlineThatHasPassedIsTooLateWhateverWasMeasured) {
  EXPECT_EQ(Enter(Prompt(10, Duration(0))), "DEADLINE");
  EXPECT_TRUE(absl::IsDeadlineExceeded(status_));
  EXPECT_EQ(Enter(Prompt(10, Duration(1))), "") << "nothing was measured: let it try";
  EXPECT_LT(foreseen_, 0);
}

TEST_F(AdmissionGateTest, ADeadlineBehindTheQueueIsRefusedAtOnce) {
  Measure();
  EXPECT_EQ(Enter(Prompt(5000)), "");
  // Its turn comes in 1 s, its prompt takes 20 ms, and 1.2 times that must be in time.
  EXPECT_EQ(Enter(Prompt(100, milliseconds(1223))), "DEADLINE_UNREACHABLE");
  EXPECT_TRUE(absl::IsResourceExhausted(status_));
  EXPECT_EQ(RetryAfter(), milliseconds(1000));
  EXPECT_EQ(gate_->waiting(), 1);
  EXPECT_EQ(Enter(Prompt(100, milliseconds(1225))), "");
  EXPECT_NEAR(foreseen_, 1.020, 1e-9);
  EXPECT_EQ(Enter(Prompt(100)), "") << "who has no deadline is never refused for time";
  EXPECT_NEAR(foreseen_, 1.040, 1e-9);
}

TEST_F(AdmissionGateTest, NobodyIsRefusedForTimeByWhatIsNotTrusted) {
  ServiceState state = Measured();
  state.trusted = false;
  Measure(state);
  EXPECT_EQ(Enter(Prompt(50000)), "");
  EXPECT_EQ(Enter(Prompt(100, milliseconds(50))), "");
  EXPECT_TRUE(Hopeless(kNow + milliseconds(49)).empty());
}

TEST_F(AdmissionGateTest, ADeadlineThatTheRequestAloneCannotMeetIsNoMatterOfTheQueue) {
  Measure();
  EXPECT_EQ(Enter(Prompt(1000, milliseconds(199))), "DEADLINE_TOO_SHORT");
  EXPECT_TRUE(absl::IsDeadlineExceeded(status_));
  EXPECT_EQ(RetryAfter(), milliseconds(-1)) << "coming back does not help";
  EXPECT_EQ(Enter(Prompt(1000, milliseconds(220))), "DEADLINE_UNREACHABLE");
  EXPECT_EQ(Enter(Prompt(1000, milliseconds(241))), "");
}

TEST_F(AdmissionGateTest, OutputThatMustBeMadeCountsForTheDeadline) {
  Measure();
  GenerationRequest request = Prompt(100, milliseconds(600));
  request.max_tokens = 101;  // 20 ms and 100 steps of 10.1 ms
  EXPECT_EQ(Enter(request), "DEADLINE_TOO_SHORT");
  request.sampling.stop_tokens = {2};  // it may end at once
  EXPECT_EQ(Enter(request), "");
  request.sampling.min_tokens = 101;
  EXPECT_EQ(Enter(request), "DEADLINE_TOO_SHORT");
  request.sampling = {};
  request.stop_strings = {"."};
  EXPECT_EQ(Enter(request), "");
  request.stop_strings = {};
  request.max_tokens = 0;
  request.score = true;
  EXPECT_EQ(Enter(request), "");
}

TEST_F(AdmissionGateTest, AnAdapterThatIsNotThereTakesTime) {
  Measure();
  auto adapter = std::make_shared<AdapterVersion>();
  adapter->pages = 10;  // a second
  GenerationRequest request = Prompt(10, milliseconds(900));
  request.adapters.push_back({.version = adapter, .weight = 1});
  EXPECT_EQ(Enter(request), "DEADLINE_TOO_SHORT");
  for (const AdapterState state : {AdapterState::kLoading, AdapterState::kResident}) {
    adapter->activity->state.store(state);
    EXPECT_EQ(Enter(request), "");
  }
}

TEST_F(AdmissionGateTest, ObjectivesRefuseOnlyWhereTheOperatorSaysSo) {
  Objectives objectives;
  objectives[0] = {.first_token = milliseconds(500), .refuse = true};
  objectives[1] = {.first_token = milliseconds(500), .refuse = false};
  Make({}, objectives);
  Measure();
  const auto of = [](Priority priority) {
    GenerationRequest request = Prompt(100);
    request.priority = priority;
    return request;
  };
  GenerationRequest before = Prompt(5000);
  before.priority = Priority::kInteractive;
  EXPECT_EQ(Enter(before), "");  // a second
  EXPECT_EQ(Enter(of(Priority::kInteractive)), "OBJECTIVE_UNREACHABLE");
  EXPECT_TRUE(absl::IsResourceExhausted(status_));
  EXPECT_EQ(RetryAfter(), milliseconds(1000));
  EXPECT_EQ(Enter(of(Priority::kStandard)), "");
  EXPECT_EQ(Enter(of(Priority::kBatch)), "");
  GenerationRequest timed = of(Priority::kStandard);
  timed.deadline = kNow + milliseconds(60000);
  EXPECT_EQ(Enter(timed), "") << "a deadline brings no objective";
}

TEST_F(AdmissionGateTest, ObjectivesHaveTheSameMargin) {
  Objectives objectives;
  objectives[1] = {.first_token = milliseconds(1222), .refuse = true};
  Make({}, objectives);
  Measure();
  EXPECT_EQ(Enter(Prompt(5000)), "");
  EXPECT_EQ(Enter(Prompt(100)), "OBJECTIVE_UNREACHABLE") << "1.02 s and a fifth more";
  objectives[1].first_token = milliseconds(1225);
  Make({}, objectives);
  Measure();
  EXPECT_EQ(Enter(Prompt(5000)), "");
  EXPECT_EQ(Enter(Prompt(100)), "");
  // From arrival, not from now.
  GenerationRequest late = Prompt(1);
  late.arrival = kNow - milliseconds(100);
  EXPECT_EQ(Enter(late), "OBJECTIVE_UNREACHABLE");
}

TEST_F(AdmissionGateTest, WhoWouldMissItsObjectiveAloneIsNotRefusedForIt) {
  Objectives objectives;
  objectives[1] = {.first_token = milliseconds(500), .refuse = true};
  Make({}, objectives);
  Measure();
  EXPECT_EQ(Enter(Prompt(3000)), "");  // 600 ms
  EXPECT_EQ(Enter(Prompt(100)), "OBJECTIVE_UNREACHABLE");
  EXPECT_EQ(Enter(Prompt(3000)), "");
}

TEST_F(AdmissionGateTest, ThoseThatWaitAreAskedAgain) {
  Objectives objectives;
  objectives[2] = {.first_token = milliseconds(900), .refuse = true};
  Make({}, objectives);
  Measure();
  EXPECT_EQ(Enter(Prompt(100, milliseconds(500))), "");
  EXPECT_EQ(Enter(Prompt(100)), "");
  GenerationRequest batch = Prompt(100);
  batch.priority = Priority::kBatch;
  EXPECT_EQ(Enter(batch), "");
  EXPECT_TRUE(Hopeless(kNow).empty());
  // Two seconds of work that goes first.
  GenerationRequest urgent = Prompt(10000);
  urgent.priority = Priority::kInteractive;
  EXPECT_EQ(Enter(urgent), "");
  const Reasons expected = {{1, "DEADLINE_UNREACHABLE"}, {3, "OBJECTIVE_UNREACHABLE"}};
  EXPECT_EQ(Hopeless(kNow), expected);
  EXPECT_EQ(Hopeless(kNow), expected) << "until they are said to have ended";
  Tell(1, Change::kEnded);
  EXPECT_EQ(Hopeless(kNow), (Reasons{{3, "OBJECTIVE_UNREACHABLE"}}));
  Tell(3, Change::kAdmitted);
  EXPECT_TRUE(Hopeless(kNow).empty());
  Tell(3, Change::kReturned);
  EXPECT_TRUE(Hopeless(kNow).empty()) << "work was spent on it";
  Tell(4, Change::kEnded);
}

TEST_F(AdmissionGateTest, TimeThatPassesMakesADeadlineUnreachable) {
  Measure();
  EXPECT_EQ(Enter(Prompt(5000)), "");
  EXPECT_EQ(Enter(Prompt(100, milliseconds(1500))), "");
  EXPECT_TRUE(Hopeless(kNow + milliseconds(200)).empty());
  EXPECT_EQ(Hopeless(kNow + milliseconds(300)), (Reasons{{2, "DEADLINE_UNREACHABLE"}}));
  EXPECT_EQ(Hopeless(kNow + milliseconds(1490)), (Reasons{{2, "DEADLINE_TOO_SHORT"}}));
}

TEST_F(AdmissionGateTest, ManyAreAskedInTurn) {
  Make({.requests = 10000});
  Measure();
  const int n = 2 * AdmissionGate::kMostChecked + 10;
  for (int i = 0; i < n; ++i) ASSERT_EQ(Enter(Prompt(1, milliseconds(100000))), "");
  std::vector<int> seen(static_cast<size_t>(n) + 1);
  const TimePoint late = kNow + milliseconds(99999);
  for (int round = 0; round < 5; ++round) {
    const Reasons some = Hopeless(late);
    EXPECT_EQ(some.size(), static_cast<size_t>(AdmissionGate::kMostChecked));
    for (const auto& [id, reason] : some) ++seen[id];
  }
  // Five times 256 of 522: each twice, some three times.
  for (int i = 1; i <= n; ++i) EXPECT_GE(seen[static_cast<size_t>(i)], 2) << i;
}

}  // namespace
}  // namespace lorad
