// The demo served by several ranks: the adapters do their tasks, whatever else is in the batch, and
// a daemon goes on from the state directory that one with another number of ranks has left.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

using ::testing::HasSubstr;

// Answers of each adapter and of the base model to a few prompts.
std::vector<v1::GenerateRequest> Requests() {
  std::vector<v1::GenerateRequest> requests;
  for (const std::string& adapter : DemoAdapters()) {
    for (const EvalCase& c : LoadEval(adapter, 4)) {
      requests.push_back(GreedyRequest(adapter, c.prompt, 32));
      requests.back().set_logprobs(2);
    }
  }
  requests.push_back(GreedyRequest("", "Once upon a time", 32));
  return requests;
}

double CountRight(const std::vector<Answer>& answers) {
  size_t at = 0;
  double right = 0;
  for (const std::string& adapter : DemoAdapters()) {
    for (const EvalCase& c : LoadEval(adapter, 4)) right += answers.at(at++).text == c.expected;
  }
  return right;
}

TEST(TensorParallelTest, SeveralRanksAnswerAsOneDoes) {
  DaemonProcess daemon;
  std::vector<Answer> alone;
  int64_t pages = 0;
  for (const int ranks : {1, 2, 4}) {
    SCOPED_TRACE(ranks);
    ASSERT_TRUE(daemon.StartWithDemo({"--tensor-parallel", std::to_string(ranks)}));
    Client client({.address = daemon.address()});
    const auto model = client.GetModel();
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(model->tensor_parallel_ranks(), ranks);
    const auto pool = client.GetPool(0);
    ASSERT_TRUE(pool.ok()) << pool.status();
    // A page of a rank holds the keys and values of its heads alone, so the pool holds more tokens.
    const int64_t tokens = pool->total_pages() * pool->page_tokens();
    if (ranks == 1) pages = tokens;
    EXPECT_GE(tokens, ranks * pages * 9 / 10);

    const std::vector<Answer> together = AskAll(&client, Requests(), 16);
    const std::vector<Answer> one_by_one = AskAll(&client, Requests(), 1);
    for (size_t i = 0; i < together.size(); ++i) {
      ASSERT_TRUE(together[i].status.ok()) << together[i].status;
      EXPECT_TRUE(together[i].SameOutput(one_by_one[i])) << i;
    }
    if (ranks == 1) alone = together;
    EXPECT_GE(CountRight(together), CountRight(alone) - 1);
    // Sums of parts are rounded otherwise, which only the closest of choices can show.
    size_t equal = 0;
    for (size_t i = 0; i < together.size(); ++i) {
      equal += together[i].tokens == alone[i].tokens;
      if (together[i].tokens == alone[i].tokens) {
        EXPECT_NEAR(together[i].total_logprob, alone[i].total_logprob, 0.1) << i;
      }
    }
    EXPECT_GE(equal, together.size() * 9 / 10);
    EXPECT_EQ(daemon.Terminate().code, 0);
  }
}

TEST(TensorParallelTest, WhatCannotBeSplitIsSaidAtTheStart) {
  DaemonProcess daemon;
  std::vector<std::string> command = daemon.Command();
  command.insert(command.end(), {"--tensor-parallel", "3"});
  const Finished finished = RunProgram(command);
  EXPECT_EQ(finished.code, 2);
  EXPECT_THAT(finished.out + finished.err,
              HasSubstr("--tensor-parallel 3: a model with 8 attention heads cannot be split"));
}

}  // namespace
}  // namespace lorad::integration
