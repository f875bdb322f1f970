#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/loractl/json.h"
#include "client/loractl/session.h"
#include "client/loractl/terminal.h"
#include "tests/unit/client/run_loractl.h"

namespace lorad::loractl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

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

TEST_F(LoractlTest, TheTenantIsAGlobalOption) {
  ASSERT_EQ(Run({"model", "--tenant", "acme"}).code, kOk);
  EXPECT_EQ(server_.tenants().at("/lorad.v1.Admin/GetModel"), "acme");
  setenv("LORAD_TENANT", "umbrella", 1);
  const int from_environment = Run({"model"}).code;
  unsetenv("LORAD_TENANT");
  ASSERT_EQ(from_environment, kOk);
  EXPECT_EQ(server_.tenants().at("/lorad.v1.Admin/GetModel"), "umbrella");
  // gRPC would end the program at such metadata.
  EXPECT_EQ(Run({"--tenant", "a\nb", "model"}).code, kUsage);
}

TEST_F(LoractlTest, CacheSaltsGoWithRequestsAndCachedTokensAreShown) {
  ASSERT_EQ(Run({"generate", "x", "--cache-salt", "pepper"}).code, kOk);
  EXPECT_EQ(server_.inference.requests()[0].cache_salt(), "pepper");
  const Outcome score = Run({"score", "x", "--cache-salt", "pepper"});
  EXPECT_EQ(server_.inference.scored.cache_salt(), "pepper");
  EXPECT_THAT(score.out, AllOf(HasSubstr("CACHED"), HasSubstr("  5  ")));
}

TEST_F(LoractlTest, PrioritiesGoWithRequests) {
  ASSERT_EQ(Run({"generate", "x", "--priority", "interactive"}).code, kOk);
  ASSERT_EQ(Run({"generate", "x"}).code, kOk);
  EXPECT_EQ(server_.inference.requests()[0].priority(), v1::PRIORITY_INTERACTIVE);
  EXPECT_EQ(server_.inference.requests()[1].priority(), v1::PRIORITY_UNSPECIFIED);
  ASSERT_EQ(Run({"score", "x", "--priority", "batch"}).code, kOk);
  EXPECT_EQ(server_.inference.scored.priority(), v1::PRIORITY_BATCH);
  EXPECT_EQ(Run({"generate", "x", "--priority", "urgent"}).code, kUsage);
}

TEST_F(LoractlTest, TopShowsHowOftenPrefixesHit) {
  server_.admin.stats.mutable_uptime()->set_seconds(10);
  server_.admin.stats.set_prompt_tokens_total(300);
  server_.admin.stats.set_cached_tokens_total(100);
  server_.admin.stats.set_prefix_evictions_total(7);
  EXPECT_THAT(Run({"top", "--count", "1"}).out,
              AllOf(HasSubstr("30 prompt tokens computed, 10 cached (hit rate 25 %)"),
                    HasSubstr("7 prefix pages evicted"), HasSubstr("cached prefixes")));
  server_.admin.stats.set_prompt_tokens_total(0);
  server_.admin.stats.set_cached_tokens_total(0);
  EXPECT_THAT(Run({"top", "--count", "1"}).out, HasSubstr("(hit rate -)"));
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
  // Rounding goes to those that lost most by it, not all to one.
  EXPECT_EQ(Bar(plain, {{5, "a", Color::kNone}, {5, "b", Color::kNone}, {5, "c", Color::kNone}}, 8),
            "aabbbccc");
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
