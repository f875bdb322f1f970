// Requests of the wire against the rules of proto/lorad/v1/inference.proto, and errors on their way
// back.
#include "server/request_parsing.h"

#include <gmock/gmock.h>
#include <google/rpc/error_details.pb.h>
#include <google/rpc/error_info.pb.h>
#include <google/rpc/status.pb.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "memory/base/error_detail.h"
#include "server/status_conversion.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;

struct Fixture {
  Fixture() {
    model.vocab_size = 100;
    model.eos_token_ids = {2};
    context = {
        .model = &model, .tokenizer = nullptr, .max_model_len = 50, .default_max_tokens = 20};
  }
  ModelConfig model;
  RequestContext context;
};

v1::GenerateRequest Valid() {
  v1::GenerateRequest request;
  for (int id : {5, 6, 7}) request.mutable_prompt()->mutable_token_ids()->add_ids(id);
  return request;
}

TEST(ParseGenerateTest, FillsInDefaults) {
  Fixture f;
  const auto parsed = ParseGenerate(Valid(), f.context);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const GenerationRequest& r = **parsed;
  EXPECT_THAT(r.prompt, ElementsAre(5, 6, 7));
  EXPECT_EQ(r.max_tokens, 20);
  EXPECT_EQ(r.sampling.temperature, 1.0f);
  EXPECT_THAT(r.sampling.stop_tokens, ElementsAre(2));
  EXPECT_EQ(r.sampling.logprobs, -1);
  EXPECT_EQ(r.cache_salt, "");
  const auto again = ParseGenerate(Valid(), f.context);
  EXPECT_NE((*again)->sampling.seed, r.sampling.seed);
}

TEST(ParseGenerateTest, DefaultLengthIsWhatFits) {
  Fixture f;
  v1::GenerateRequest request;
  for (int i = 0; i < 45; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(1);
  EXPECT_EQ((*ParseGenerate(request, f.context))->max_tokens, 5);
}

TEST(ParseGenerateTest, ZeroIsAValueAndNotTheDefault) {
  Fixture f;
  v1::GenerateRequest request = Valid();
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_seed(0);
  request.set_ignore_eos(true);
  request.add_stop_token_ids(9);
  const auto parsed = ParseGenerate(request, f.context);
  EXPECT_EQ((*parsed)->sampling.temperature, 0.0f);
  EXPECT_EQ((*parsed)->sampling.seed, 0u);
  EXPECT_THAT((*parsed)->sampling.stop_tokens, ElementsAre(9));
}

struct BadCase {
  const char* field;
  std::function<void(v1::GenerateRequest*)> spoil;
};

TEST(ParseGenerateTest, EveryBadFieldIsNamed) {
  const float nan = std::nanf("");
  const std::vector<BadCase> cases = {
      {"prompt", [](auto* r) { r->clear_prompt(); }},
      {"prompt", [](auto* r) { r->mutable_prompt()->mutable_token_ids()->clear_ids(); }},
      {"prompt.token_ids.ids[1]",
       [](auto* r) { r->mutable_prompt()->mutable_token_ids()->set_ids(1, 100); }},
      {"prompt.token_ids.ids[0]",
       [](auto* r) { r->mutable_prompt()->mutable_token_ids()->set_ids(0, -1); }},
      {"prompt.text", [](auto* r) { r->mutable_prompt()->set_text("hi"); }},
      {"max_tokens", [](auto* r) { r->set_max_tokens(0); }},
      {"max_tokens", [](auto* r) { r->set_max_tokens(-5); }},
      {"max_tokens", [](auto* r) { r->set_max_tokens(48); }},
      {"max_tokens", [](auto* r) { r->set_max_tokens(INT32_MAX); }},
      {"min_tokens", [](auto* r) { r->set_min_tokens(-1); }},
      {"min_tokens", [](auto* r) { r->set_min_tokens(21); }},
      {"stop", [](auto* r) { r->add_stop()->push_back('x'); }},
      {"stop_token_ids[0]", [](auto* r) { r->add_stop_token_ids(100); }},
      {"logprobs", [](auto* r) { r->set_logprobs(21); }},
      {"logprobs", [](auto* r) { r->set_logprobs(-1); }},
      {"cache_salt", [](auto* r) { r->set_cache_salt(std::string(129, 'x')); }},
      {"sampling.temperature", [](auto* r) { r->mutable_sampling()->set_temperature(-1); }},
      {"sampling.temperature", [nan](auto* r) { r->mutable_sampling()->set_temperature(nan); }},
      {"sampling.top_p", [](auto* r) { r->mutable_sampling()->set_top_p(0); }},
      {"sampling.top_p", [](auto* r) { r->mutable_sampling()->set_top_p(1.5f); }},
      {"sampling.top_k", [](auto* r) { r->mutable_sampling()->set_top_k(-1); }},
      {"sampling.min_p", [](auto* r) { r->mutable_sampling()->set_min_p(-0.1f); }},
      {"sampling.repetition_penalty",
       [](auto* r) { r->mutable_sampling()->set_repetition_penalty(0); }},
      {"sampling.presence_penalty",
       [](auto* r) { r->mutable_sampling()->set_presence_penalty(3); }},
      {"sampling.frequency_penalty",
       [nan](auto* r) { r->mutable_sampling()->set_frequency_penalty(nan); }},
  };
  Fixture f;
  for (const BadCase& c : cases) {
    v1::GenerateRequest request = Valid();
    c.spoil(&request);
    const auto parsed = ParseGenerate(request, f.context);
    ASSERT_FALSE(parsed.ok()) << c.field;
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(GetErrorDetail(parsed.status()).field, c.field) << parsed.status();
  }
}

TEST(ParseScoreTest, ScoresTheContinuationOnly) {
  Fixture f;
  v1::ScoreRequest request;
  for (int id : {5, 6}) request.mutable_context()->mutable_token_ids()->add_ids(id);
  for (int id : {7, 8, 9}) request.mutable_continuation()->mutable_token_ids()->add_ids(id);
  const auto parsed = ParseScore(request, f.context);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_THAT((*parsed)->prompt, ElementsAre(5, 6, 7, 8, 9));
  EXPECT_EQ((*parsed)->score_from, 2);
  request.clear_context();
  EXPECT_EQ((*ParseScore(request, f.context))->score_from, 0);
  request.mutable_context()->mutable_token_ids();  // there, but without a token
  EXPECT_EQ((*ParseScore(request, f.context))->score_from, 0);
  request.mutable_context()->mutable_token_ids()->add_ids(5);
  EXPECT_EQ((*ParseScore(request, f.context))->score_from, 1);
  request.mutable_continuation()->mutable_token_ids()->clear_ids();
  EXPECT_EQ(GetErrorDetail(ParseScore(request, f.context).status()).field, "continuation");
}

TEST(PriorityTest, IsTakenByBothKindsOfRequest) {
  Fixture f;
  v1::GenerateRequest generate = Valid();
  v1::ScoreRequest score;
  score.mutable_continuation()->mutable_token_ids()->add_ids(1);
  const std::pair<v1::Priority, Priority> known[] = {
      {v1::PRIORITY_UNSPECIFIED, Priority::kStandard},
      {v1::PRIORITY_INTERACTIVE, Priority::kInteractive},
      {v1::PRIORITY_STANDARD, Priority::kStandard},
      {v1::PRIORITY_BATCH, Priority::kBatch}};
  for (const auto& [wire, priority] : known) {
    generate.set_priority(wire);
    EXPECT_EQ((*ParseGenerate(generate, f.context))->priority, priority);
    score.set_priority(wire);
    EXPECT_EQ((*ParseScore(score, f.context))->priority, priority);
  }
  generate.set_priority(static_cast<v1::Priority>(4));  // of a later version of the interface
  score.set_priority(static_cast<v1::Priority>(-1));
  EXPECT_EQ(GetErrorDetail(ParseGenerate(generate, f.context).status()).field, "priority");
  EXPECT_EQ(GetErrorDetail(ParseScore(score, f.context).status()).field, "priority");
}

TEST(CacheSaltTest, IsTakenByBothKindsOfRequest) {
  Fixture f;
  v1::GenerateRequest generate = Valid();
  generate.set_cache_salt("user 7");
  EXPECT_EQ((*ParseGenerate(generate, f.context))->cache_salt, "user 7");
  v1::ScoreRequest score;
  score.mutable_continuation()->mutable_token_ids()->add_ids(7);
  score.set_cache_salt(std::string(128, 'x'));
  EXPECT_EQ((*ParseScore(score, f.context))->cache_salt, std::string(128, 'x'));
  score.set_cache_salt(std::string(129, 'x'));
  EXPECT_EQ(GetErrorDetail(ParseScore(score, f.context).status()).field, "cache_salt");
}

TEST(RequestIdTest, IsTheClientsOrOneOfOurs) {
  EXPECT_EQ(*ChooseRequestId("mine ~"), "mine ~");
  EXPECT_EQ(*ChooseRequestId(std::string(128, 'x')), std::string(128, 'x'));
  const auto first = ChooseRequestId("");
  ASSERT_TRUE(first.ok());
  EXPECT_FALSE(first->empty());
  EXPECT_NE(*ChooseRequestId(""), *first);
  for (const std::string& bad :
       {std::string("a\nb"), std::string(129, 'x'), std::string("\x7f"), std::string("\xc3\xa4")}) {
    EXPECT_EQ(GetErrorDetail(ChooseRequestId(bad).status()).field, "request_id") << bad;
  }
}

TEST(StatusConversionTest, DetailsBecomeGoogleRpcMessages) {
  const grpc::Status wire = ToGrpcStatus(
      WithResource(WithRetryAfter(InvalidField("sampling.top_p", "must be positive", "BAD_P"),
                                  std::chrono::milliseconds(1500)),
                   "lorad.dev/Adapter", "adapters/x"));
  EXPECT_EQ(wire.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  google::rpc::Status rich;
  ASSERT_TRUE(rich.ParseFromString(wire.error_details()));
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad;
  google::rpc::ResourceInfo resource;
  google::rpc::RetryInfo retry;
  ASSERT_EQ(rich.details_size(), 4);
  ASSERT_TRUE(rich.details(0).UnpackTo(&info));
  ASSERT_TRUE(rich.details(1).UnpackTo(&bad));
  ASSERT_TRUE(rich.details(2).UnpackTo(&resource));
  ASSERT_TRUE(rich.details(3).UnpackTo(&retry));
  EXPECT_EQ(info.reason(), "BAD_P");
  EXPECT_EQ(info.domain(), "lorad.dev");
  EXPECT_EQ(bad.field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(resource.resource_name(), "adapters/x");
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500000000);
}

TEST(StatusConversionTest, TheRequestIsNamedIfThereIsOne) {
  google::rpc::Status rich;
  ASSERT_TRUE(
      rich.ParseFromString(ToGrpcStatus(absl::InternalError("x"), "req-1").error_details()));
  google::rpc::RequestInfo request;
  ASSERT_EQ(rich.details_size(), 2);
  ASSERT_TRUE(rich.details(1).UnpackTo(&request));
  EXPECT_EQ(request.request_id(), "req-1");
}

TEST(StatusConversionTest, EveryErrorHasAReason) {
  google::rpc::Status rich;
  ASSERT_TRUE(rich.ParseFromString(ToGrpcStatus(absl::InternalError("x")).error_details()));
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(rich.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "INTERNAL");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace lorad
