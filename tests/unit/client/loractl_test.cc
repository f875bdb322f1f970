#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "client/loractl/json.h"
#include "client/loractl/session.h"
#include "client/loractl/terminal.h"
#include "tests/unit/client/fake_server.h"

namespace lorad::loractl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

struct Outcome {
  int code;
  std::string out, err;
};

class LoractlTest : public ::testing::Test {
 protected:
  Outcome Run(std::vector<std::string> args, const std::string& input = "") {
    args.insert(args.begin(), {"loractl", "--address", server_.address()});
    std::vector<const char*> argv;
    for (const std::string& arg : args) argv.push_back(arg.c_str());
    std::istringstream in(input);
    std::ostringstream out, err;
    const int code =
        RunLoractl(static_cast<int>(argv.size()), argv.data(), in, out, err, /*interactive=*/false);
    return {code, out.str(), err.str()};
  }

  FakeServer server_;
};

TEST_F(LoractlTest, HelpTeachesAndUsageErrorsAreOne) {
  const Outcome help = Run({"--help"});
  EXPECT_EQ(help.code, kOk);
  EXPECT_THAT(help.out, AllOf(HasSubstr("Exit codes"), HasSubstr("LORAD_ADDRESS")));
  EXPECT_EQ(Run({}).code, kUsage);
  EXPECT_EQ(Run({"dance"}).code, kUsage);
  EXPECT_EQ(Run({"generate", "x", "--top-k", "many"}).code, kUsage);
  EXPECT_EQ(Run({"adapters", "list", "--state", "HAPPY"}).code, kUsage);
  EXPECT_EQ(Run({"generate", "-f", "/nonexistent/prompt"}).code, kUsage);
  EXPECT_EQ(Run({"adapters", "upload", "/nonexistent"}).code, kUsage);
}

TEST_F(LoractlTest, GenerateSendsWhatTheOptionsSayAndNothingElse) {
  const Outcome r = Run({"generate", "-a", "pirate", "good", "day", "-n", "7", "-t", "0", "--stop",
                         "\\n", "--seed", "18446744073709551615"});
  ASSERT_EQ(r.code, kOk) << r.err;
  EXPECT_EQ(r.out, "one two\nthree\n");
  ASSERT_EQ(server_.inference.requests().size(), 1u);
  const v1::GenerateRequest request = server_.inference.requests()[0];
  EXPECT_EQ(request.adapter(), "pirate");
  EXPECT_EQ(request.prompt().text(), "good day");
  EXPECT_EQ(request.max_tokens(), 7);
  EXPECT_TRUE(request.sampling().has_temperature());
  EXPECT_EQ(request.sampling().temperature(), 0);
  EXPECT_FALSE(request.sampling().has_top_p());
  EXPECT_FALSE(request.has_logprobs());
  EXPECT_EQ(request.stop(0), "\n");
  EXPECT_EQ(request.sampling().seed(), UINT64_MAX);
}

TEST_F(LoractlTest, GenerateReadsStandardInput) {
  ASSERT_EQ(Run({"generate"}, "from a pipe").code, kOk);
  EXPECT_EQ(server_.inference.requests()[0].prompt().text(), "from a pipe");
}

TEST_F(LoractlTest, SeveralAdaptersAreLabelled) {
  const Outcome r = Run({"generate", "--base", "-a", "pirate", "-a", "adapters/json", "x"});
  ASSERT_EQ(r.code, kOk) << r.err;
  for (const char* line :
       {"base   | one two\n", "base   | three\n", "pirate | one two\n", "json   | three\n"}) {
    EXPECT_THAT(r.out, HasSubstr(line));
  }
  EXPECT_THAT(r.out, Not(HasSubstr("\x1b[")));
}

TEST_F(LoractlTest, OneRefusedAdapterDoesNotHideTheOthers) {
  server_.inference.adapter_errors["gone"] =
      RichError(grpc::StatusCode::NOT_FOUND, "no adapter gone", "adapter", "ADAPTER_NOT_FOUND", 0);
  const Outcome r = Run({"generate", "-a", "pirate", "-a", "gone", "x"});
  EXPECT_EQ(r.code, kRefused);
  EXPECT_THAT(r.out, HasSubstr("pirate | three"));
  EXPECT_THAT(r.err, AllOf(HasSubstr("gone"), HasSubstr("ADAPTER_NOT_FOUND")));
}

TEST_F(LoractlTest, ErrorsNameTheField) {
  server_.inference.error =
      RichError(grpc::StatusCode::INVALID_ARGUMENT, "sampling.top_p: must be in (0, 1]",
                "sampling.top_p", "INVALID_FIELD", 0);
  const Outcome r = Run({"generate", "x", "--top-p", "2"});
  EXPECT_EQ(r.code, kRefused);
  EXPECT_THAT(r.err, HasSubstr("field: sampling.top_p"));
}

TEST_F(LoractlTest, JsonIsOneMessageALine) {
  const Outcome r = Run({"generate", "x", "--json"});
  EXPECT_THAT(r.out,
              AllOf(HasSubstr(R"("text":"one two\nthree")"), HasSubstr(R"("token_ids":[0,1,2,3])"),
                    HasSubstr(R"("reason":"FINISH_REASON_LENGTH")")));
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 1);
}

TEST_F(LoractlTest, ExitCodesFollowTheStatus) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), kOk);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), kRefused);
  EXPECT_EQ(ExitCodeOf(absl::NotFoundError("")), kRefused);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), kUnavailable);
  EXPECT_EQ(ExitCodeOf(absl::DeadlineExceededError("")), kDeadline);
  EXPECT_EQ(ExitCodeOf(absl::ResourceExhaustedError("")), kOverloaded);
  EXPECT_EQ(ExitCodeOf(absl::InternalError("")), kFailed);
  EXPECT_EQ(Run({"health", "--address", "127.0.0.1:1"}).code, kUnavailable);
  server_.inference.words.assign(10000, "x");
  server_.inference.gap = std::chrono::milliseconds(2);
  EXPECT_EQ(Run({"generate", "x", "--timeout", "0.05"}).code, kDeadline);
}

TEST_F(LoractlTest, Adapters) {
  v1::Adapter& adapter = server_.adapters.adapters.emplace_back();
  adapter.set_name("adapters/pirate");
  adapter.set_state(v1::Adapter::RESIDENT);
  adapter.set_rank(16);
  EXPECT_THAT(Run({"adapters", "list"}).out, AllOf(HasSubstr("pirate"), HasSubstr("RESIDENT")));
  EXPECT_THAT(Run({"adapters", "list", "--json"}).out, HasSubstr(R"("rank":16)"));
  EXPECT_THAT(Run({"adapters", "get", "adapters/pirate"}).out, HasSubstr("adapters/pirate"));
  EXPECT_EQ(Run({"adapters", "get", "adapters/none"}).code, kRefused);
  EXPECT_EQ(Run({"adapters", "create", "pirate", "/srv/pirate"}).code, kRefused);
  EXPECT_THAT(Run({"adapters", "create", "pirate", "/srv/pirate", "--replace"}).out,
              HasSubstr("version"));
  EXPECT_EQ(Run({"adapters", "delete", "adapters/pirate"}).code, kOk);
  EXPECT_EQ(Run({"adapters", "delete", "adapters/pirate"}).code, kRefused);
  EXPECT_EQ(Run({"adapters", "delete", "adapters/pirate", "--allow-missing"}).code, kOk);
}

TEST_F(LoractlTest, ScoreAndTokenize) {
  const Outcome score = Run({"score", "--base", "-a", "pirate", "x", "--tokens"});
  ASSERT_EQ(score.code, kOk) << score.err;
  EXPECT_THAT(score.out, AllOf(HasSubstr("base"), HasSubstr("pirate"), HasSubstr("-3.0000")));
  EXPECT_THAT(Run({"score", "x", "--json"}).out, HasSubstr("\"piece\":\"\xEF\xBF\xBD\""));
  EXPECT_THAT(Run({"tokenize", "hi"}).out, AllOf(HasSubstr("104"), HasSubstr("2 tokens")));
}

TEST_F(LoractlTest, AdminViews) {
  server_.admin.model.set_architecture("LlamaForCausalLM");
  server_.admin.pool.set_total_pages(100);
  server_.admin.pool.set_free_pages(50);
  server_.admin.pool.set_kv_pages(30);
  server_.admin.pool.set_adapter_pages(20);
  server_.admin.pool.set_page_bytes(1 << 20);
  v1::PoolAdapter* adapter = server_.admin.pool.add_adapters();
  adapter->set_name("adapters/pirate");
  adapter->set_pages(20);
  server_.admin.stats.mutable_uptime()->set_seconds(10);
  server_.admin.stats.set_completion_tokens_total(5000);
  EXPECT_THAT(Run({"model"}).out, HasSubstr("LlamaForCausalLM"));
  EXPECT_THAT(Run({"pool"}).out, AllOf(HasSubstr("100.0 MiB"), HasSubstr("pirate"),
                                       HasSubstr("50.0 %"), HasSubstr("####")));
  EXPECT_THAT(Run({"top", "--count", "1"}).out, HasSubstr("500 tokens made"));
  EXPECT_THAT(Run({"health"}).out, HasSubstr("SERVING"));
  server_.health.serving = false;
  EXPECT_EQ(Run({"health"}).code, kUnavailable);
  EXPECT_EQ(Run({"drain"}).code, kOk);
  server_.admin.drained.set_remaining_requests(1);
  EXPECT_EQ(Run({"drain", "--wait", "1"}).code, kDeadline);
}

TEST_F(LoractlTest, ChatKeepsARunningText) {
  const Outcome r = Run({"chat", "-a", "pirate", "--user-prefix", "Q: ", "--model-prefix", "\\nA:"},
                        "hello\n/adapter json\nagain\n/quit\n");
  ASSERT_EQ(r.code, kOk) << r.err;
  const auto requests = server_.inference.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].prompt().text(), "Q: hello\nA:");
  EXPECT_EQ(requests[1].prompt().text(), "Q: hello\nA:one two\nthree\nQ: again\nA:");
  EXPECT_EQ(requests[1].adapter(), "json");
}

TEST(TerminalTest, BarIsAsWideAsAskedAndShowsEveryPart) {
  const Terminal plain(nullptr, nullptr, false);
  const std::string bar = Bar(plain,
                              {{1, "a", Color::kNone},
                               {998, "b", Color::kNone},
                               {1, "c", Color::kNone},
                               {0, "d", Color::kNone}},
                              20);
  EXPECT_EQ(bar, "a" + std::string(18, 'b') + "c");
  EXPECT_EQ(Bar(plain, {{0, "a", Color::kNone}}, 20), "");
}

TEST(TerminalTest, EscapesRoundTrip) {
  EXPECT_EQ(Unescape(R"(a\n\t\\\x41\q\)"), "a\n\t\\A\\q\\");
  EXPECT_EQ(Visible("a\n\x01"), "a\\n\\x01");
}

TEST(JsonTest, DurationsAreSecondsAndUnsetOptionalsAreLeftOut) {
  v1::GenerateFinish finish;
  finish.mutable_timings()->mutable_queue()->set_nanos(250000000);
  const std::string json = ToJson(finish);
  EXPECT_THAT(json, AllOf(HasSubstr(R"("queue":0.25)"), Not(HasSubstr("stop_token_id")),
                          HasSubstr(R"("adapter_version":0)")));
}

}  // namespace
}  // namespace lorad::loractl
