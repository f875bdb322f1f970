// Whatever a client sends, it is told what is wrong with it, and the next request works.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <thread>

#include "client/error.h"
#include "tests/integration/daemon_process.h"
#include "tests/integration/demo_requests.h"

namespace lorad::integration {
namespace {

using absl::StatusCode;

class BadInputTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    daemon_ = std::make_unique<DaemonProcess>();
    ASSERT_TRUE(daemon_->StartWithDemo());
    client_ = std::make_unique<Client>(ClientOptions{.address = daemon_->address()});
  }
  static void TearDownTestSuite() {
    client_.reset();
    EXPECT_EQ(daemon_->Terminate().code, 0);
    daemon_.reset();
  }

  // A normal request works.
  static void ExpectAlive() {
    const EvalCase c = LoadEval("arith", 1)[0];
    const Answer answer = Ask(client_.get(), GreedyRequest("arith", c.prompt));
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.text, c.expected);
  }

  static void ExpectNothingRuns() {
    EXPECT_TRUE(Eventually([] {
      const auto pool = client_->GetPool(0);
      const auto stats = client_->GetStats();
      return pool.ok() && stats.ok() && pool->kv_pages() == 0 && stats->running_requests() == 0 &&
             stats->waiting_requests() == 0;
    }));
  }

  static std::unique_ptr<DaemonProcess> daemon_;
  static std::unique_ptr<Client> client_;
};

std::unique_ptr<DaemonProcess> BadInputTest::daemon_;
std::unique_ptr<Client> BadInputTest::client_;

struct Case {
  std::string what;
  std::function<void(v1::GenerateRequest*)> spoil;
  StatusCode code;
  std::string reason;
  std::string field;  // empty: none is named
};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A value of a sampling parameter that is refused by its name.
template <typename Set, typename Value>
Case Sampling(const std::string& name, Set set, Value value) {
  return {.what = fmt::format("{} = {}", name, value),
          .spoil = [set, value](v1::GenerateRequest* r) { (r->mutable_sampling()->*set)(value); },
          .code = StatusCode::kInvalidArgument,
          .reason = "INVALID_FIELD",
          .field = fmt::format("sampling.{}", name)};
}

std::vector<Case> SamplingCases() {
  using S = v1::SamplingParams;
  std::vector<Case> cases;
  for (float v : {kNan, -1.0F, kInfinity}) {
    cases.push_back(Sampling("temperature", &S::set_temperature, v));
  }
  for (float v : {0.0F, 2.0F, -0.5F, kNan}) cases.push_back(Sampling("top_p", &S::set_top_p, v));
  cases.push_back(Sampling("top_k", &S::set_top_k, -1));
  for (float v : {-0.1F, 1.5F, kNan}) cases.push_back(Sampling("min_p", &S::set_min_p, v));
  for (float v : {0.0F, -1.0F, kNan, kInfinity}) {
    cases.push_back(Sampling("repetition_penalty", &S::set_repetition_penalty, v));
  }
  for (float v : {2.5F, -2.5F, kNan}) {
    cases.push_back(Sampling("presence_penalty", &S::set_presence_penalty, v));
    cases.push_back(Sampling("frequency_penalty", &S::set_frequency_penalty, v));
  }
  return cases;
}

void AddBiases(v1::GenerateRequest* request, int count, int token, float bias) {
  for (int i = 0; i < count; ++i) {
    auto* added = request->mutable_sampling()->add_logit_bias();
    added->set_token_id(token);
    added->set_bias(bias);
  }
}

// Refused as INVALID_FIELD of `field`.
Case Field(const std::string& what, const std::string& field,
           std::function<void(v1::GenerateRequest*)> spoil) {
  return {what, std::move(spoil), StatusCode::kInvalidArgument, "INVALID_FIELD", field};
}

std::vector<Case> OtherFieldCases() {
  using R = v1::GenerateRequest;
  const std::string word = "stop";
  return {
      Field("no prompt", "prompt", [](R* r) { r->clear_prompt(); }),
      Field("no token", "prompt", [](R* r) { r->mutable_prompt()->mutable_token_ids(); }),
      Field("empty text", "prompt",
            [](R* r) {
              r->mutable_prompt()->set_text("");
              r->mutable_prompt()->set_add_special_tokens(false);
            }),
      Field("token above the vocabulary", "prompt.token_ids.ids[1]",
            [](R* r) {
              auto* ids = r->mutable_prompt()->mutable_token_ids();
              ids->add_ids(5);
              ids->add_ids(1024);
            }),
      Field("negative token", "prompt.token_ids.ids[0]",
            [](R* r) { r->mutable_prompt()->mutable_token_ids()->add_ids(-1); }),
      Field("max_tokens 0", "max_tokens", [](R* r) { r->set_max_tokens(0); }),
      Field("max_tokens -5", "max_tokens", [](R* r) { r->set_max_tokens(-5); }),
      Field("min_tokens > max_tokens", "min_tokens", [](R* r) { r->set_min_tokens(65); }),
      Field("min_tokens -1", "min_tokens", [](R* r) { r->set_min_tokens(-1); }),
      Field("logprobs 21", "logprobs", [](R* r) { r->set_logprobs(21); }),
      Field("logprobs -1", "logprobs", [](R* r) { r->set_logprobs(-1); }),
      Field("empty stop", "stop[1]",
            [word](R* r) {
              r->add_stop(word);
              r->add_stop(std::string());
            }),
      Field("long stop", "stop[0]", [](R* r) { r->add_stop(std::string(257, 'a')); }),
      Field("17 stops", "stop",
            [word](R* r) {
              for (int i = 0; i < 17; ++i) r->add_stop(word);
            }),
      Field("stop token", "stop_token_ids[0]", [](R* r) { r->add_stop_token_ids(1024); }),
      Field("257 stop tokens", "stop_token_ids",
            [](R* r) {
              for (int i = 0; i < 257; ++i) r->add_stop_token_ids(1);
            }),
      Field("request_id with a newline", "request_id", [](R* r) { r->set_request_id("a\nb"); }),
      Field("long request_id", "request_id",
            [](R* r) { r->set_request_id(std::string(129, 'a')); }),
      Field("1025 biases", "sampling.logit_bias", [](R* r) { AddBiases(r, 1025, 1, 1); }),
  };
}

std::vector<Case> RequestCases() {
  using R = v1::GenerateRequest;
  std::string words;
  for (int i = 0; i < 600; ++i) words += "the dog ";
  std::vector<Case> cases = SamplingCases();
  for (Case& c : OtherFieldCases()) cases.push_back(std::move(c));
  const auto too_long = [&cases](const std::string& what, const std::string& field,
                                 std::function<void(R*)> spoil) {
    cases.push_back(
        {what, std::move(spoil), StatusCode::kInvalidArgument, "PROMPT_TOO_LONG", field});
  };
  too_long("prompt beyond the context", "prompt",
           [words](R* r) { r->mutable_prompt()->set_text(words); });
  too_long("megabytes of prompt", "prompt.text",
           [](R* r) { r->mutable_prompt()->set_text(std::string(5 << 20, 'a')); });
  too_long("prompt and max_tokens beyond the context", "max_tokens",
           [](R* r) { r->set_max_tokens(512); });
  for (const char* name : {"nobody", "adapters/nobody", "../pirate", "PIRATE"}) {
    cases.push_back({fmt::format("adapter {}", name), [name](R* r) { r->set_adapter(name); },
                     StatusCode::kNotFound, "ADAPTER_NOT_FOUND", ""});
  }
  return cases;
}

void ExpectError(const absl::Status& status, const Case& c) {
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(status.code(), c.code) << status;
  EXPECT_EQ(details.reason, c.reason) << status;
  EXPECT_EQ(details.domain, "lorad.dev");
  EXPECT_EQ(details.fields.empty() ? "" : details.fields[0].field, c.field) << status;
}

TEST_F(BadInputTest, EachBadRequestIsRefusedForTheRightReason) {
  for (const Case& c : RequestCases()) {
    SCOPED_TRACE(c.what);
    v1::GenerateRequest request = GreedyRequest("pirate", "English: yes.\nPirate:");
    c.spoil(&request);
    const Answer answer = Ask(client_.get(), request);
    ExpectError(answer.status, c);
    EXPECT_TRUE(answer.tokens.empty());
    ExpectAlive();
  }
}

TEST_F(BadInputTest, ABadBiasNamesTheEntry) {
  for (const auto& [token, bias] : {std::pair(1024, 1.0F), {-1, 1.0F}, {5, 101.0F}, {5, kNan}}) {
    auto request = GreedyRequest("", "a");
    AddBiases(&request, 1, token, bias);
    const Answer answer = Ask(client_.get(), request);
    EXPECT_EQ(answer.status.code(), StatusCode::kInvalidArgument) << answer.status;
    const ErrorDetails details = GetErrorDetails(answer.status);
    ASSERT_EQ(details.fields.size(), 1U);
    EXPECT_TRUE(details.fields[0].field.starts_with("sampling.logit_bias"))
        << details.fields[0].field;
  }
  ExpectAlive();
}

TEST_F(BadInputTest, ScoreAndTokenizersRefuseWhatIsWrong) {
  v1::ScoreRequest score;
  EXPECT_EQ(GetErrorDetails(client_->Score(score).status()).fields.at(0).field, "continuation");
  score.mutable_continuation()->set_text("a");
  score.set_top_logprobs(21);
  EXPECT_EQ(GetErrorDetails(client_->Score(score).status()).fields.at(0).field, "top_logprobs");
  score.set_top_logprobs(0);
  score.mutable_context()->mutable_token_ids()->add_ids(1);
  EXPECT_EQ(GetErrorDetails(client_->Score(score).status()).fields.at(0).field, "context");
  score.clear_context();
  score.set_adapter("nobody");
  EXPECT_EQ(client_->Score(score).status().code(), StatusCode::kNotFound);
  v1::DetokenizeRequest detokenize;
  detokenize.add_token_ids(1 << 20);
  EXPECT_EQ(GetErrorDetails(client_->Detokenize(detokenize).status()).fields.at(0).field,
            "token_ids");
  v1::TokenizeRequest tokenize;
  tokenize.set_text(std::string(5 << 20, 'a'));
  EXPECT_EQ(GetErrorDetails(client_->Tokenize(tokenize).status()).reason, "PROMPT_TOO_LONG");
  ExpectAlive();
}

TEST_F(BadInputTest, TextThatIsNotUtf8IsRefused) {
  const Answer answer = Ask(client_.get(), GreedyRequest("", "a\xff\xfe b"));
  EXPECT_FALSE(answer.status.ok());
  EXPECT_TRUE(answer.tokens.empty());
  ExpectAlive();
}

TEST_F(BadInputTest, AMessageThatIsTooLargeIsRefused) {
  const Answer answer = Ask(client_.get(), GreedyRequest("", std::string(9 << 20, 'a')));
  EXPECT_EQ(answer.status.code(), StatusCode::kResourceExhausted) << answer.status;
  ExpectAlive();
}

TEST_F(BadInputTest, ACancelledRequestGivesItsPagesBack) {
  const auto before = client_->GetStats();
  {
    std::vector<std::unique_ptr<BackgroundAnswer>> running;
    for (int i = 0; i < 40; ++i) {
      running.push_back(std::make_unique<BackgroundAnswer>(
          client_.get(), LongRequest("pirate", "English: yes.\nPirate:", 480)));
    }
    for (const auto& one : running) EXPECT_TRUE(one->WaitForToken());
    for (const auto& one : running) one->Cancel();
    for (const auto& one : running) {
      EXPECT_EQ(one->Wait().status.code(), StatusCode::kCancelled) << one->Wait().status;
    }
  }
  ExpectNothingRuns();
  const auto after = client_->GetStats();
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_GT(after->cancelled_total(), before->cancelled_total());
  ExpectAlive();
}

TEST_F(BadInputTest, AClientThatDiesGivesItsPagesBack) {
  const TempDirectory directory;
  std::vector<pid_t> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(Spawn({LoractlProgram(), "--address", daemon_->address(), "generate", "-a",
                             "pirate", "--ignore-eos", "-n", "480", "English: yes.\nPirate:"},
                            directory / fmt::format("out{}", i),
                            directory / fmt::format("err{}", i)));
  }
  EXPECT_TRUE(Eventually([&] {
    for (int i = 0; i < 3; ++i) {
      if (ReadWholeFile(directory / fmt::format("out{}", i)).empty()) return false;
    }
    return true;
  })) << ReadWholeFile(directory / "err0");
  for (const pid_t client : clients) {
    kill(client, SIGKILL);
    WaitForEnd(client, std::chrono::seconds(30));
  }
  ExpectNothingRuns();
  ExpectAlive();
}

TEST_F(BadInputTest, ADeadlineEndsTheRequest) {
  std::vector<std::thread> threads;
  std::vector<absl::Status> statuses(32);
  for (absl::Status& status : statuses) {
    threads.emplace_back([&status] {
      const auto finish = client_->Generate(LongRequest("pirate", "English: yes.\nPirate:", 480),
                                            nullptr, {.timeout = std::chrono::milliseconds(30)});
      status = finish.status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded) << status;
  }
  ExpectNothingRuns();
  ExpectAlive();
}

TEST(OverloadTest, AFullQueueRefusesAndSaysWhenToRetry) {
  DaemonProcess daemon;
  ASSERT_TRUE(daemon.StartWithDemo({"--max-running", "1", "--max-waiting", "2"}));
  Client client({.address = daemon.address()});
  const auto request = LongRequest("pirate", "English: yes.\nPirate:", 400);
  const Answer alone = Ask(&client, request);
  std::vector<v1::GenerateRequest> requests(24, request);
  const std::vector<Answer> answers = AskAll(&client, requests, 24);
  int refused = 0, served = 0;
  for (const Answer& answer : answers) {
    if (answer.status.ok()) {
      ++served;
      EXPECT_TRUE(answer.SameOutput(alone));
      continue;
    }
    ++refused;
    const ErrorDetails details = GetErrorDetails(answer.status);
    EXPECT_EQ(answer.status.code(), StatusCode::kResourceExhausted) << answer.status;
    EXPECT_EQ(details.reason, "QUEUE_FULL");
    ASSERT_TRUE(details.retry_after.has_value());
    EXPECT_GT(details.retry_after->count(), 0);
  }
  EXPECT_GT(refused, 0);
  EXPECT_GE(served, 2);
  EXPECT_EQ(daemon.Metrics().at("lorad_requests_total{outcome=\"exhausted\"}"), refused);
  EXPECT_TRUE(Ask(&client, request).status.ok());
}

}  // namespace
}  // namespace lorad::integration
