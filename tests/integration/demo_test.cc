// The demo, through a real daemon: every adapter does its task, whatever else runs beside it.
#include <gtest/gtest.h>

#include <memory>

#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

class DemoTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    daemon_ = std::make_unique<DaemonProcess>();
    ASSERT_TRUE(daemon_->StartWithDemo());
    client_ = std::make_unique<Client>(ClientOptions{.address = daemon_->address()});
  }
  static void TearDownTestSuite() {
    client_.reset();
    daemon_.reset();
  }

  static std::string Prompt(const std::string& adapter) { return LoadEval(adapter, 1)[0].prompt; }

  static std::unique_ptr<DaemonProcess> daemon_;
  static std::unique_ptr<Client> client_;
};

std::unique_ptr<DaemonProcess> DemoTest::daemon_;
std::unique_ptr<Client> DemoTest::client_;

std::vector<EvalCase> AllCases() {
  std::vector<std::vector<EvalCase>> each;
  for (const std::string& adapter : DemoAdapters()) each.push_back(LoadEval(adapter));
  std::vector<EvalCase> cases;  // neighbours use different adapters
  for (size_t i = 0, before = 1; before != cases.size(); ++i) {
    before = cases.size();
    for (const auto& list : each) {
      if (i < list.size()) cases.push_back(list[i]);
    }
  }
  return cases;
}

TEST_F(DemoTest, EachAdapterDoesItsTaskInOneMixedCrowdAndTheBaseDoesNot) {
  const std::vector<EvalCase> cases = AllCases();
  std::vector<v1::GenerateRequest> requests;
  for (const EvalCase& c : cases) {
    requests.push_back(GreedyRequest(c.adapter, c.prompt));
    requests.push_back(GreedyRequest("", c.prompt));
  }
  const std::vector<Answer> answers = AskAll(client_.get(), requests, 64);
  struct Score {
    double all = 0, adapter = 0, base = 0;
  };
  std::map<std::string, Score> scores;
  for (size_t i = 0; i < cases.size(); ++i) {
    const Answer& adapted = answers[2 * i];
    const Answer& base = answers[2 * i + 1];
    ASSERT_TRUE(adapted.status.ok()) << adapted.status;
    ASSERT_TRUE(base.status.ok()) << base.status;
    EXPECT_EQ(adapted.finish.adapter(), "adapters/" + cases[i].adapter);
    EXPECT_EQ(base.finish.adapter(), "");
    Score& score = scores[cases[i].adapter];
    score.all += 1;
    score.adapter += adapted.text == cases[i].expected;
    score.base += base.text == cases[i].expected;
  }
  EXPECT_EQ(scores.size(), 8U);
  for (const auto& [adapter, score] : scores) {
    EXPECT_GE(score.all, 20) << adapter;
    EXPECT_GE(score.adapter, 0.9 * score.all) << adapter;
    EXPECT_LE(score.base, 0.1 * score.all) << adapter;
  }
}

TEST_F(DemoTest, ARequestGivesTheSameBitsAloneAndInACrowd) {
  std::vector<std::string> adapters = DemoAdapters();
  adapters.push_back("");
  std::vector<v1::GenerateRequest> requests;
  for (size_t i = 0; i < 32; ++i) {
    const std::string& adapter = adapters[i % adapters.size()];
    auto request = GreedyRequest(adapter, Prompt(adapter.empty() ? "json" : adapter), 40);
    request.mutable_sampling()->set_temperature(0.8F);
    request.mutable_sampling()->set_seed(1000 + i);
    request.set_logprobs(3);
    request.set_ignore_eos(i % 2 == 0);
    requests.push_back(request);
  }
  const std::vector<Answer> together = AskAll(client_.get(), requests, 32);
  const std::vector<Answer> alone = AskAll(client_.get(), requests, 1);
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_TRUE(together[i].status.ok()) << together[i].status;
    ASSERT_TRUE(alone[i].status.ok()) << alone[i].status;
    EXPECT_FALSE(alone[i].logprobs.empty());
    EXPECT_TRUE(together[i].SameOutput(alone[i]))
        << requests[i].adapter() << ": \"" << together[i].text << "\" together, \"" << alone[i].text
        << "\" alone";
  }
}

TEST_F(DemoTest, ScoreOfAGreedyContinuationIsWhatGenerateSaid) {
  for (const std::string& adapter : {std::string("pirate"), std::string("json"), std::string()}) {
    auto request = GreedyRequest(adapter, Prompt("pirate"), 30);
    request.set_logprobs(0);
    request.set_include_prompt(true);
    const Answer generated = Ask(client_.get(), request);
    ASSERT_TRUE(generated.status.ok()) << generated.status;
    v1::ScoreRequest score;
    score.set_adapter(adapter);
    auto* context = score.mutable_context()->mutable_token_ids();
    context->mutable_ids()->Assign(generated.prompt_tokens.begin(), generated.prompt_tokens.end());
    auto* continuation = score.mutable_continuation()->mutable_token_ids();
    continuation->mutable_ids()->Assign(generated.tokens.begin(), generated.tokens.end());
    const auto scored = client_->Score(score);
    ASSERT_TRUE(scored.ok()) << scored.status();
    EXPECT_TRUE(scored->is_greedy());
    ASSERT_EQ(scored->tokens_size(), static_cast<int>(generated.tokens.size()));
    // Prefill and decode sum in another order, so low bits may differ.
    EXPECT_NEAR(scored->total_logprob(), generated.total_logprob, 1e-2);
    EXPECT_LT(generated.total_logprob, 0);

    // Another continuation is not the greedy one.
    continuation->set_ids(0, generated.tokens[0] == 100 ? 101 : 100);
    const auto other = client_->Score(score);
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_FALSE(other->is_greedy());
    EXPECT_LT(other->total_logprob(), scored->total_logprob());
  }
}

TEST_F(DemoTest, TokenizeAndDetokenizeAreEachOthersInverse) {
  for (const std::string text :
       {"Words: rice drum sad\nReversed:", "na\xc3\xafve \xe2\x82\xac 12  x",
        "\xf0\x9f\x98\x80 tail ", "a"}) {
    v1::TokenizeRequest tokenize;
    tokenize.set_text(text);
    const auto tokens = client_->Tokenize(tokenize);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(tokens->token_ids(0), 0) << "<s> first";
    EXPECT_EQ(tokens->pieces_size(), tokens->token_ids_size());
    v1::DetokenizeRequest detokenize;
    *detokenize.mutable_token_ids() = tokens->token_ids();
    const auto back = client_->Detokenize(detokenize);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(back->text(), text);
    detokenize.set_skip_special_tokens(false);
    const auto whole = client_->Detokenize(detokenize);
    ASSERT_TRUE(whole.ok()) << whole.status();
    EXPECT_EQ(whole->text(), "<s>" + text);
  }
}

TEST_F(DemoTest, StopStringsAndStopTokensEndTheText) {
  const auto plain = GreedyRequest("pirate", Prompt("pirate"));
  const Answer whole = Ask(client_.get(), plain);
  ASSERT_TRUE(whole.status.ok()) << whole.status;
  EXPECT_EQ(whole.finish.reason(), v1::FINISH_REASON_STOP_TOKEN);
  EXPECT_EQ(whole.finish.stop_token_id(), 1);
  ASSERT_GT(whole.tokens.size(), 6U);
  EXPECT_EQ(whole.tokens.back(), 1);

  auto by_string = plain;
  const std::string stop = whole.text.substr(whole.text.size() / 2, 4);
  by_string.add_stop("never to be seen");
  by_string.add_stop(stop);
  const Answer cut = Ask(client_.get(), by_string);
  ASSERT_TRUE(cut.status.ok()) << cut.status;
  EXPECT_EQ(cut.finish.reason(), v1::FINISH_REASON_STOP_STRING);
  EXPECT_EQ(cut.finish.stop_string(), stop);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stop)));

  auto by_token = plain;
  const int token = whole.tokens[4];
  by_token.add_stop_token_ids(token);
  const Answer ended = Ask(client_.get(), by_token);
  ASSERT_TRUE(ended.status.ok()) << ended.status;
  EXPECT_EQ(ended.finish.reason(), v1::FINISH_REASON_STOP_TOKEN);
  EXPECT_EQ(ended.finish.stop_token_id(), token);
  EXPECT_EQ(ended.tokens.back(), token);
  EXPECT_LE(ended.tokens.size(), 5U);
}

TEST_F(DemoTest, LengthsAreKept) {
  const auto plain = GreedyRequest("arith", Prompt("arith"));
  const Answer whole = Ask(client_.get(), plain);
  ASSERT_TRUE(whole.status.ok()) << whole.status;

  auto shortened = plain;
  shortened.set_max_tokens(1);
  const Answer one = Ask(client_.get(), shortened);
  ASSERT_TRUE(one.status.ok()) << one.status;
  EXPECT_EQ(one.finish.reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(one.tokens, std::vector<int>(whole.tokens.begin(), whole.tokens.begin() + 1));
  EXPECT_EQ(one.finish.usage().completion_tokens(), 1);

  auto lengthened = plain;
  const int least = static_cast<int>(whole.tokens.size()) + 10;
  lengthened.set_min_tokens(least);
  const Answer longer = Ask(client_.get(), lengthened);
  ASSERT_TRUE(longer.status.ok()) << longer.status;
  EXPECT_GE(longer.finish.usage().completion_tokens(), least);

  const Answer endless = Ask(client_.get(), LongRequest("arith", Prompt("arith"), 100));
  ASSERT_TRUE(endless.status.ok()) << endless.status;
  EXPECT_EQ(endless.tokens.size(), 100U);
  EXPECT_EQ(endless.finish.reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(DemoTest, IncludePromptGivesTheTextAndTheTokensOfThePrompt) {
  auto request = GreedyRequest("sort", Prompt("sort"), 3);
  request.set_include_prompt(true);
  request.set_request_id("my-own-id");
  const Answer answer = Ask(client_.get(), request);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.prompt_text, Prompt("sort"));
  EXPECT_EQ(static_cast<int>(answer.prompt_tokens.size()), answer.finish.usage().prompt_tokens());
  EXPECT_EQ(answer.prompt_tokens.front(), 0);
  EXPECT_EQ(answer.finish.request_id(), "my-own-id");
  request.set_include_prompt(false);
  EXPECT_EQ(Ask(client_.get(), request).prompt_text, "");
}

TEST_F(DemoTest, ASeedMakesSamplingRepeatable) {
  auto request = LongRequest("", "Once upon a time", 40);
  request.mutable_sampling()->set_temperature(1.0F);
  const Answer first = Ask(client_.get(), request);
  const Answer second = Ask(client_.get(), request);
  ASSERT_TRUE(first.status.ok() && second.status.ok()) << first.status << second.status;
  EXPECT_NE(first.finish.seed(), second.finish.seed());
  EXPECT_NE(first.tokens, second.tokens);
  request.mutable_sampling()->set_seed(first.finish.seed());
  const Answer again = Ask(client_.get(), request);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.finish.seed(), first.finish.seed());
  EXPECT_EQ(again.tokens, first.tokens);
}

}  // namespace
}  // namespace lorad::integration
