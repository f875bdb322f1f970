// The daemon on the CUDA backend, its device emulated: the demo's adapters in mixed batches, hot
// loading, and a pool that is too small for all of them. LORAD_TEST_PROGRAM is that daemon.
#include <gtest/gtest.h>

#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

TEST(EmulatedGpuTest, AdaptersInOneCrowdDoTheirTasks) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo());
  Client client({.address = daemon.address()});
  const auto model = client.GetModel();
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->backend().starts_with("cuda")) << model->backend();

  // The tasks with short answers: an emulated step takes a while.
  std::vector<EvalCase> cases;
  for (const char* adapter : {"arith", "sentiment", "sort", "reverse"}) {
    for (const EvalCase& c : LoadEval(adapter, 2)) cases.push_back(c);
  }
  std::vector<v1::GenerateRequest> requests;
  for (const EvalCase& c : cases) requests.push_back(GreedyRequest(c.adapter, c.prompt, 24));
  for (const EvalCase& c : cases) requests.push_back(GreedyRequest("", c.prompt, 4));
  const std::vector<Answer> together = AskAll(&client, requests, 16);
  int right = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    ASSERT_TRUE(together[i].status.ok()) << together[i].status;
    right += together[i].text == cases[i].expected;
    EXPECT_NE(together[cases.size() + i].text, cases[i].expected);
  }
  EXPECT_GE(right, static_cast<int>(cases.size()) - 1);

  // Alone, the same bits: the kernels are all ours here.
  const Answer alone = Ask(&client, requests[0]);
  EXPECT_TRUE(alone.SameOutput(together[0])) << alone.text << " against " << together[0].text;

  const auto metrics = daemon.Metrics();
  EXPECT_EQ(metrics.at("lorad_adapter_loads_total{outcome=\"ok\"}"), 4);
  EXPECT_EQ(metrics.at("lorad_host_tier_adapters"), 4);
  EXPECT_EQ(daemon.Terminate().code, 0);
}

// Two devices: adapters are staged and copied share by share, tokens drawn on both.
TEST(EmulatedGpuTest, TwoDevicesServeTheModelTogether) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo({"--tensor-parallel", "2"}));
  Client client({.address = daemon.address()});
  const auto model = client.GetModel();
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->tensor_parallel_ranks(), 2);
  std::vector<EvalCase> cases;
  for (const char* adapter : {"arith", "sort"}) {
    for (const EvalCase& c : LoadEval(adapter, 2)) cases.push_back(c);
  }
  std::vector<v1::GenerateRequest> requests;
  for (const EvalCase& c : cases) requests.push_back(GreedyRequest(c.adapter, c.prompt, 24));
  const std::vector<Answer> answers = AskAll(&client, requests, 4);
  int right = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    ASSERT_TRUE(answers[i].status.ok()) << answers[i].status;
    right += answers[i].text == cases[i].expected;
  }
  EXPECT_GE(right, static_cast<int>(cases.size()) - 1);
  EXPECT_EQ(daemon.Terminate().code, 0);
}

}  // namespace
}  // namespace lorad::integration
