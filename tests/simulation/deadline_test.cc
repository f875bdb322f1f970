// Whether refusals are honest, and what they are good for: the daemon's own gate and engine in
// virtual time, where what would have been can be tried.
#include <gtest/gtest.h>

#include <vector>

#include "tests/simulation/simulation.h"

namespace lorad::sim {
namespace {

constexpr double kPatienceS = 2;

SimulationOptions Machine() {
  SimulationOptions options;
  options.server.cost = *FindCostModel("h100");
  options.server.engine.max_waiting = 100000;
  options.server.validate_every = 0;
  options.server.check_outputs = false;
  return options;
}

// Clients that are gone two seconds after they came.
std::vector<SimRequest> Impatient(double rate) {
  const auto workload = MakeWorkload("slora", {.rate = rate,
                                               .duration_s = 20,
                                               .adapters = 50,
                                               .input = {64, 1024},
                                               .output = {8, 64},
                                               .deadline_s = kPatienceS});
  EXPECT_TRUE(workload.ok()) << workload.status();
  return *MakeRequests(*workload);
}

struct Ends {
  int in_time = 0, late = 0, refused = 0;
  std::vector<size_t> refused_requests;
};

Ends Serve(const SimulationOptions& options, const std::vector<SimRequest>& requests) {
  Ends ends;
  const auto result = Simulate(options, requests);
  EXPECT_TRUE(result.ok()) << result.status();
  if (!result.ok()) return ends;
  for (size_t i = 0; i < requests.size(); ++i) {
    const RequestRecord& r = result->measurements.records()[i];
    const bool first_in_time = r.ttft_s >= 0 && r.ttft_s <= kPatienceS;
    if (r.outcome == Outcome::kRefused) {
      EXPECT_EQ(r.output_tokens, 0) << "work was spent on it";
      ++ends.refused;
      ends.refused_requests.push_back(i);
    } else {
      ++(first_in_time ? ends.in_time : ends.late);
    }
  }
  return ends;
}

TEST(DeadlineTest, WhoIsLetInIsInTimeAndOverloadCostsNothing) {
  const Ends calm = Serve(Machine(), Impatient(40));
  EXPECT_EQ(calm.refused, 0);
  EXPECT_EQ(calm.late, 0);
  const Ends full = Serve(Machine(), Impatient(80));
  const Ends twice = Serve(Machine(), Impatient(160));
  for (const Ends& ends : {full, twice}) {
    EXPECT_GT(ends.refused, 50);
    EXPECT_LE(ends.late * 100, ends.in_time + ends.late) << "of those let in, 99 % are in time";
  }
  EXPECT_GE(twice.in_time, 0.9 * full.in_time);
  // Where everybody is let in and waits, few are in time.
  auto patient = Impatient(160);
  for (SimRequest& request : patient) request.deadline_s = kNever;
  EXPECT_LT(Serve(Machine(), patient).in_time, 0.5 * twice.in_time);
}

// Each is let in by itself, to see when it would have had its first token. Because the others were
// refused the queue is so short that one more is still just in time; nobody is refused who had time
// to spare.
TEST(DeadlineTest, WhoIsRefusedHadNoTimeToSpare) {
  const auto requests = Impatient(160);
  const Ends ends = Serve(Machine(), requests);
  ASSERT_GT(ends.refused_requests.size(), 100u);
  for (size_t i = 5; i < ends.refused_requests.size(); i += ends.refused_requests.size() / 10) {
    const size_t which = ends.refused_requests[i];
    auto let_in = requests;
    let_in[which].deadline_s = kNever;
    const auto result = Simulate(Machine(), let_in);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_GT(result->measurements.records()[which].ttft_s, 0.75 * kPatienceS) << which;
  }
}

}  // namespace
}  // namespace lorad::sim
