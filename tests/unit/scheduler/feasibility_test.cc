#include "scheduler/feasibility.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

namespace lorad {
namespace {

// 10 ms a step and 0.1 ms a row; 100 rows a step, 50 of one prompt.
ServiceState Idle() {
  return {.cost = {.base = 0.010, .prompt_row = 0.0001, .decode_row = 0.0001},
          .trusted = true,
          .max_step_tokens = 100,
          .max_chunk_tokens = 50,
          .max_sequences = 8,
          .page_tokens = 10,
          .available_pages = 1000,
          .seconds_per_adapter_page = 0.020};
}

constexpr double kExact = 1e-12;

TEST(PredictTest, AloneItIsItsPromptAndItsOutput) {
  // Two chunks, 80 rows; then 9 steps of one row.
  const Forecast f = Predict(Idle(), {}, {.prompt_tokens = 80, .least_output_tokens = 10});
  EXPECT_NEAR(f.turn, 0, kExact);
  EXPECT_NEAR(f.first_token, 2 * 0.010 + 80 * 0.0001, kExact);
  EXPECT_NEAR(f.completion, f.first_token + 9 * 0.0101, kExact);
  EXPECT_NEAR(f.alone.first_token, f.first_token, kExact);
  EXPECT_NEAR(f.alone.completion, f.completion, kExact);
}

TEST(PredictTest, TheQueueGoesFirst) {
  // 500 tokens fill 5 steps.
  const Forecast f = Predict(Idle(), {.requests = 5, .tokens = 500}, {.prompt_tokens = 50});
  EXPECT_NEAR(f.turn, 5 * 0.010 + 500 * 0.0001, kExact);
  EXPECT_NEAR(f.first_token, f.turn + 0.015, kExact);
  EXPECT_NEAR(f.alone.first_token, 0.015, kExact);
}

TEST(PredictTest, WhatDecodesTakesRowsOfEveryStep) {
  ServiceState s = Idle();
  s.running = s.decoding = 4;
  s.output_tokens_left = 1000;
  // 96 rows are left for prompts: 192 tokens fill 2 steps of 4 rows more.
  const Forecast f =
      Predict(s, {.requests = 2, .tokens = 192}, {.prompt_tokens = 50, .least_output_tokens = 11});
  EXPECT_NEAR(f.turn, 2 * (0.010 + 0.0004) + 0.0192, kExact);
  EXPECT_NEAR(f.first_token, f.turn + 0.0104 + 0.005, kExact);
  EXPECT_NEAR(f.completion, f.first_token + 10 * 0.0105, kExact);
  EXPECT_NEAR(f.alone.completion, 0.015 + 10 * 0.0101, kExact);
}

TEST(PredictTest, WhileOthersWaitStepsAreAsTheyWereOfLate) {
  ServiceState s = Idle();
  s.recent_step = 0.020;
  const Work work{.prompt_tokens = 50, .least_output_tokens = 11};
  const auto output = [&](const Queued& ahead) {
    const Forecast f = Predict(s, ahead, work);
    EXPECT_NEAR(f.alone.completion, 0.015 + 10 * 0.0101, kExact);
    return f.completion - f.first_token;
  };
  EXPECT_NEAR(output({}), 10 * 0.0101, kExact);
  EXPECT_NEAR(output({.requests = 1, .tokens = 100}), 10 * 0.020, kExact);
  s.recent_step = 0.005;
  EXPECT_NEAR(output({.requests = 1, .tokens = 100}), 10 * 0.0101, kExact);
}

TEST(PredictTest, PromptsThatRunGoFirstUnlessTheyAreLessUrgent) {
  ServiceState s = Idle();
  s.running = 3;
  s.prompt_tokens_left = {100, 200, 400};
  const auto turn = [&s](Priority priority) {
    return Predict(s, {}, {.priority = priority, .prompt_tokens = 10}).turn;
  };
  EXPECT_NEAR(turn(Priority::kInteractive), 0.020, kExact);
  EXPECT_NEAR(turn(Priority::kStandard), 0.060, kExact);
  EXPECT_NEAR(turn(Priority::kBatch), 0.140, kExact);
}

TEST(PredictTest, WithoutAPlaceItWaitsForOthersToEnd) {
  ServiceState s = Idle();
  s.running = s.decoding = 8;
  s.output_tokens_left = 90;  // one of them ends in every 2 * 90 / 9 steps
  EXPECT_NEAR(Predict(s, {}, {.prompt_tokens = 10}).turn, 20 * 0.0108, kExact);
  // Two go first. Their prompts cost rows, not steps of their own.
  EXPECT_NEAR(Predict(s, {.requests = 2, .tokens = 30}, {.prompt_tokens = 10}).turn,
              60 * 0.0108 + 30 * 0.0001, kExact);
  s.running = s.decoding = 7;
  EXPECT_NEAR(Predict(s, {}, {.prompt_tokens = 10}).turn, 0, kExact);
}

TEST(PredictTest, WithoutPagesItWaitsForOthersToEnd) {
  ServiceState s = Idle();
  s.running = s.decoding = 4;
  s.output_tokens_left = 50;  // one ends in every 20 steps
  s.pages_per_sequence = 5;
  s.available_pages = 12;
  // It needs 4 pages and 8 for its adapter: just there.
  EXPECT_NEAR(Predict(s, {}, {.prompt_tokens = 40, .load_pages = 8}).turn, 0, kExact);
  // 10 more for the prompt before it: two must end.
  EXPECT_NEAR(
      Predict(s, {.requests = 1, .tokens = 100}, {.prompt_tokens = 40, .load_pages = 8}).turn,
      2 * 20 * 0.0104 + 100 * 0.0001, kExact);
}

TEST(PredictTest, AnAdapterIsLoadedWhileItWaits) {
  const Work work{.prompt_tokens = 50, .load_pages = 5};  // 100 ms
  EXPECT_NEAR(Predict(Idle(), {}, work).alone.first_token, 0.100 + 0.015, kExact);
  EXPECT_NEAR(Predict(Idle(), {}, work).first_token, 0.100 + 0.015, kExact);
  EXPECT_NEAR(Predict(Idle(), {.requests = 1, .tokens = 200}, work).first_token, 0.100 + 0.015,
              kExact);
  EXPECT_NEAR(Predict(Idle(), {.requests = 1, .tokens = 2000}, work).first_token, 0.400 + 0.015,
              kExact);
}

TEST(PredictTest, WhatTheCacheHasIsNotComputed) {
  ServiceState s = Idle();
  s.computed_share = 0.25;
  const Forecast f = Predict(s, {.requests = 4, .tokens = 400}, {.prompt_tokens = 200});
  EXPECT_NEAR(f.turn, 0.010 + 0.010, kExact);
  EXPECT_NEAR(f.first_token, f.turn + 0.010 + 50 * 0.0001, kExact);
}

TEST(PredictTest, WhatIsOnlyScoredIsDoneWithItsPrompt) {
  const Forecast f = Predict(Idle(), {}, {.prompt_tokens = 50, .least_output_tokens = 0});
  EXPECT_EQ(f.completion, f.first_token);
}

// More of anything makes nothing sooner.
TEST(PredictTest, IsMonotone) {
  std::mt19937 random(3);
  const auto any = [&random](double most) {
    return most * static_cast<double>(random() % 1001) / 1000;
  };
  const auto upto = [&random](int most) { return static_cast<int>(random() % (most + 1u)); };
  struct Case {
    ServiceState s;
    Queued ahead;
    Work work;
  };
  const std::vector<std::pair<const char*, std::function<void(Case*)>>> more = {
      {"base", [&](Case* c) { c->s.cost.base += any(0.1); }},
      {"prompt row", [&](Case* c) { c->s.cost.prompt_row += any(0.01); }},
      {"decode row", [&](Case* c) { c->s.cost.decode_row += any(0.01); }},
      {"decoding", [&](Case* c) { c->s.decoding += c->s.decoding < c->s.running ? 1 : 0; }},
      {"prompts that run", [&](Case* c) { c->s.prompt_tokens_left[upto(2)] += any(5000); }},
      {"outputs", [&](Case* c) { c->s.output_tokens_left += any(100); }},
      {"fewer pages", [&](Case* c) { c->s.available_pages -= any(c->s.available_pages); }},
      {"requests ahead", [&](Case* c) { c->ahead.requests += upto(10); }},
      {"tokens ahead", [&](Case* c) { c->ahead.tokens += any(5000); }},
      {"prompt", [&](Case* c) { c->work.prompt_tokens += upto(500); }},
      {"output", [&](Case* c) { c->work.least_output_tokens += upto(50); }},
      {"load", [&](Case* c) { c->work.load_pages += static_cast<uint32_t>(upto(50)); }},
      {"slower loads", [&](Case* c) { c->s.seconds_per_adapter_page += any(0.1); }},
      {"slower of late", [&](Case* c) { c->s.recent_step += any(0.1); }},
      {"less urgent", [&](Case* c) { c->work.priority = Priority::kBatch; }},
      {"fewer tokens a step",
       [&](Case* c) { c->s.max_step_tokens = 8 + upto(c->s.max_step_tokens - 8); }},
      {"smaller chunks",
       [&](Case* c) { c->s.max_chunk_tokens = 1 + upto(c->s.max_chunk_tokens - 1); }},
  };
  for (int i = 0; i < 20000; ++i) {
    Case a;
    a.s = Idle();
    a.s.running = upto(8);
    a.s.decoding = upto(a.s.running);
    a.s.output_tokens_left = any(200);
    a.s.available_pages = any(100);
    a.s.pages_per_sequence = any(20);
    a.s.max_step_tokens = 8 + upto(300);
    a.s.max_chunk_tokens = 1 + upto(200);
    a.s.computed_share = 0.001 + any(0.999);
    a.ahead = {.requests = static_cast<double>(upto(20)), .tokens = any(10000)};
    a.work = {.priority = static_cast<Priority>(upto(2)),
              .prompt_tokens = 1 + upto(1000),
              .least_output_tokens = upto(100),
              .load_pages = static_cast<uint32_t>(upto(30))};
    Case b = a;
    const auto& [name, change] = more[random() % more.size()];
    change(&b);
    const Forecast before = Predict(a.s, a.ahead, a.work);
    const Forecast after = Predict(b.s, b.ahead, b.work);
    const double slack = 1e-9;
    ASSERT_GE(after.turn, before.turn - slack) << name << " " << i;
    ASSERT_GE(after.first_token, before.first_token - slack) << name << " " << i;
    ASSERT_GE(after.completion, before.completion - slack) << name << " " << i;
    ASSERT_GE(after.alone.completion, before.alone.completion - slack) << name << " " << i;
    ASSERT_LE(before.turn, before.first_token);
    ASSERT_LE(before.first_token, before.completion + slack);
    ASSERT_LE(before.alone.completion, before.completion + slack);
    ASSERT_LE(before.alone.first_token, before.first_token + slack);
  }
}

}  // namespace
}  // namespace lorad
