// The demo with weights in low precision: every adapter still does its task, about as often as with
// bf16.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  v1::Model model;
  std::map<std::string, double> right;  // part of each adapter's cases
  std::vector<Answer> answers;
};

Outcome RunDemo(const std::string& weights) {
  Outcome outcome;
  DaemonProcess daemon;
  if (!daemon.StartWithDemo({"--backend", "cpu", "--weights", weights})) return outcome;
  Client client({.address = daemon.address()});
  const auto model = client.GetModel();
  EXPECT_TRUE(model.ok()) << model.status();
  if (model.ok()) outcome.model = *model;
  std::vector<v1::GenerateRequest> requests;
  std::vector<EvalCase> cases;
  for (const std::string& adapter : DemoAdapters()) {
    for (const EvalCase& c : LoadEval(adapter)) {
      cases.push_back(c);
      requests.push_back(GreedyRequest(adapter, c.prompt));
    }
  }
  outcome.answers = AskAll(&client, requests, 48);
  std::map<std::string, double> all;
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_TRUE(outcome.answers[i].status.ok()) << outcome.answers[i].status;
    all[cases[i].adapter] += 1;
    outcome.right[cases[i].adapter] += outcome.answers[i].text == cases[i].expected;
  }
  for (auto& [adapter, right] : outcome.right) right /= all[adapter];
  return outcome;
}

TEST(WeightFormatTest, Int8DoesTheDemosTasksAsBf16Does) {
  const Outcome bf16 = RunDemo("bf16"), int8 = RunDemo("int8");
  EXPECT_EQ(bf16.model.weight_dtype(), "bf16");
  EXPECT_EQ(int8.model.weight_dtype(), "int8");
  EXPECT_EQ(int8.model.parameters(), bf16.model.parameters());
  // The layers' bytes are halved, but for the scales.
  const int64_t table = int64_t{2} * bf16.model.vocab_size() * bf16.model.hidden_size();
  EXPECT_LT(int8.model.weight_bytes(), table + (bf16.model.weight_bytes() - table) * 0.53);
  ASSERT_EQ(int8.right.size(), 8U);
  for (const auto& [adapter, right] : int8.right) {
    EXPECT_GE(right, 0.9) << adapter;
    EXPECT_GE(right, bf16.right.at(adapter) - 0.05) << adapter;
  }
  double equal = 0;
  for (size_t i = 0; i < int8.answers.size(); ++i) {
    equal += int8.answers[i].tokens == bf16.answers[i].tokens;
  }
  EXPECT_GE(equal, 0.95 * static_cast<double>(int8.answers.size()));
  RecordProperty("equal_answers", std::to_string(equal / double(int8.answers.size())));
}

TEST(WeightFormatTest, AFormatThatTheBackendLacksIsSaidAtTheStart) {
  DaemonProcess daemon;
  for (const char* format : {"int4", "fp8"}) {
    std::vector<std::string> command = daemon.Command();
    command.insert(command.end(), {"--backend", "cpu", "--weights", format});
    const Finished finished = RunProgram(command);
    EXPECT_EQ(finished.code, 2);
    EXPECT_THAT(finished.out + finished.err, HasSubstr(std::string("--weights ") + format));
    EXPECT_THAT(finished.out + finished.err, HasSubstr("has bf16, int8"));
  }
}

}  // namespace
}  // namespace lorad::integration
