#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "tests/bench/lorad_bench/load.h"
#include "tests/bench/lorad_bench/numpy_random.h"
#include "tests/bench/lorad_bench/report.h"
#include "tests/bench/lorad_bench/synthetic_adapter.h"
#include "tests/bench/lorad_bench/workload.h"
#include "tests/unit/client/fake_server.h"

namespace lorad::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Expected {
  int adapter, input, output;
};

void ExpectRequest(const PlannedRequest& r, const Expected& e) {
  EXPECT_EQ(r.adapter, e.adapter);
  EXPECT_EQ(r.input_tokens, e.input);
  EXPECT_EQ(r.output_tokens, e.output);
}

// The expected numbers are numpy's own (np.random.seed(42), then power, randint, randint, gamma, as
// in S-LoRA's trace.py).
TEST(WorkloadTest, TheTraceIsNumpys) {
  WorkloadOptions options{.adapters = 200, .alpha = 1, .rate = 2, .cv = 1, .duration_s = 60};
  const auto trace = OpenLoopTrace(options);
  ASSERT_EQ(trace.size(), 120u);
  ExpectRequest(trace[0], {74, 510, 158});
  ExpectRequest(trace[1], {190, 355, 422});
  ExpectRequest(trace[5], {31, 232, 270});
  ExpectRequest(trace[119], {107, 441, 240});
  EXPECT_NEAR(trace[0].start_s, 1.529568753, 1e-8);
  EXPECT_NEAR(trace[119].start_s, 56.068650550, 1e-8);
}

TEST(WorkloadTest, TheTraceIsNumpysForBurstyGaps) {  // gamma with shape < 1
  WorkloadOptions options{.adapters = 200, .alpha = 0.1, .rate = 2, .cv = 4, .duration_s = 60};
  const auto trace = OpenLoopTrace(options);
  ExpectRequest(trace[1], {120, 355, 422});
  EXPECT_NEAR(trace[0].start_s, 3.855861364, 1e-8);
  EXPECT_NEAR(trace[2].start_s, 13.201426868, 1e-8);
  EXPECT_NEAR(trace[119].start_s, 55.209404237, 1e-8);
}

TEST(WorkloadTest, TheTraceIsNumpysForEvenGaps) {  // gamma with shape > 1; a range of one length
  WorkloadOptions options{.adapters = 10,
                          .alpha = 0.6,
                          .rate = 2,
                          .cv = 0.5,
                          .duration_s = 60,
                          .input = {8, 9},
                          .output = {8, 16}};
  const auto trace = OpenLoopTrace(options);
  ExpectRequest(trace[0], {1, 8, 9});
  ExpectRequest(trace[119], {3, 8, 10});
  EXPECT_NEAR(trace[0].start_s, 0.295256493, 1e-8);
  EXPECT_NEAR(trace[119].start_s, 62.390847065, 1e-8);
}

// Share of adapter 0 and of the tenth of the adapters that is asked for most, as the law gives
// them.
TEST(WorkloadTest, PopularityFollowsThePowerLaw) {
  for (const auto& [alpha, first, tenth] :
       {std::tuple{0.1, 0.59, 0.79}, {0.3, 0.20, 0.50}, {1.0, 0.005, 0.10}}) {
    WorkloadOptions options{.adapters = 200, .alpha = alpha};
    double zero = 0, top = 0;
    const auto requests = ClosedLoopRequests(options, 20000, Popularity::kPower);
    for (const PlannedRequest& r : requests) {
      ASSERT_GE(r.adapter, 0);
      ASSERT_LT(r.adapter, 200);
      zero += r.adapter == 0;
      top += r.adapter < 20;
    }
    EXPECT_NEAR(zero / 20000, first, 0.015) << alpha;
    EXPECT_NEAR(top / 20000, tenth, 0.015) << alpha;
  }
}

TEST(WorkloadTest, GapsHaveTheAskedMeanAndVariation) {
  for (const double cv : {0.5, 1.0, 2.0}) {
    WorkloadOptions options{.rate = 5, .cv = cv, .duration_s = 8000};
    const auto trace = OpenLoopTrace(options);
    std::vector<double> gaps;
    double last = 0;
    for (const PlannedRequest& r : trace) {
      gaps.push_back(r.start_s - last);
      last = r.start_s;
    }
    const double n = static_cast<double>(gaps.size());
    const double mean = std::accumulate(gaps.begin(), gaps.end(), 0.0) / n;
    double variance = 0;
    for (const double g : gaps) variance += (g - mean) * (g - mean) / n;
    EXPECT_NEAR(mean, 0.2, 0.01) << cv;
    EXPECT_NEAR(std::sqrt(variance) / mean, cv, 0.05 * cv) << cv;
  }
}

TEST(WorkloadTest, LengthsFillTheirRange) {
  WorkloadOptions options{.input = {3, 6}, .output = {8, 9}};
  std::vector<int> seen;
  for (const auto& r : ClosedLoopRequests(options, 500, Popularity::kPower)) {
    EXPECT_EQ(r.output_tokens, 8);
    seen.push_back(r.input_tokens);
  }
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  EXPECT_THAT(seen, ElementsAre(3, 4, 5));
}

TEST(WorkloadTest, RoundRobinUsesEveryAdapterInTurn) {
  WorkloadOptions options{.adapters = 3};
  const auto requests = ClosedLoopRequests(options, 7, Popularity::kRoundRobin);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(requests[i].adapter, static_cast<int>(i % 3));
  }
}

TEST(WorkloadTest, ImpossibleOptionsAreNamed) {
  WorkloadOptions options;
  EXPECT_TRUE(Validate(options).ok());
  options.input = {9, 9};
  EXPECT_THAT(std::string(Validate(options).message()), HasSubstr("--input"));
  options = {};
  options.cv = 0;
  EXPECT_THAT(std::string(Validate(options).message()), HasSubstr("--cv"));
}

TEST(ReportTest, PercentilesAreNearestRank) {
  std::vector<float> samples;
  for (int i = 100; i >= 1; --i) samples.push_back(static_cast<float>(i));
  const Percentiles p = Summarize(&samples);
  EXPECT_EQ(p.p50, 50);
  EXPECT_EQ(p.p99, 99);
  EXPECT_EQ(p.max, 100);
  EXPECT_DOUBLE_EQ(p.mean, 50.5);
  std::vector<float> none;
  EXPECT_EQ(Summarize(&none).count, 0u);
}

LoadResult Rate(int64_t tokens) {
  LoadResult result;
  result.seconds = 1;
  result.output_tokens = tokens;
  return result;
}

TEST(ReportTest, RatiosOfBestRoundsAndWithinRounds) {
  const ScenarioRow base{.name = "base", .rounds = {Rate(100), Rate(50), Rate(80)}};
  const ScenarioRow row{.name = "8", .rounds = {Rate(90), Rate(40), Rate(80)}};
  const Ratio ratio = RatioTo(base, row);
  EXPECT_DOUBLE_EQ(ratio.best, 0.9);
  EXPECT_DOUBLE_EQ(ratio.median, 0.9);
  EXPECT_DOUBLE_EQ(RatioTo(base, base).median, 1);
}

TEST(LoadTest, ClosedLoopKeepsItsClientsBusyAndCountsWhatComes) {
  FakeServer server;
  server.inference.gap = std::chrono::milliseconds(5);
  Client client({.address = server.address()});
  LoadOptions options{.adapters = {"", "a"}, .clients = 4, .popularity = Popularity::kRoundRobin};
  options.workload.duration_s = 0.5;
  options.prompt_token = 7;
  const auto result = RunLoad(&client, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->finished, 0);
  EXPECT_LE(result->started, result->finished + 2 * options.clients);
  EXPECT_GE(result->output_tokens, 4 * result->finished);
  EXPECT_LE(result->output_tokens, 4 * result->started);
  EXPECT_TRUE(result->errors.empty()) << result->first_error;
  EXPECT_EQ(result->attainment, 1);
  EXPECT_GT(result->token_gap_s.p50, 0);
  const auto requests = server.inference.requests();
  EXPECT_GE(static_cast<int64_t>(requests.size()), result->finished);
  for (const v1::GenerateRequest& request : requests) {
    EXPECT_TRUE(request.ignore_eos());
    EXPECT_GE(request.prompt().token_ids().ids_size(), 8);
    EXPECT_EQ(request.prompt().token_ids().ids(0), 7);
    EXPECT_GE(request.max_tokens(), 8);
    EXPECT_LT(request.max_tokens(), 512);
  }
}

TEST(LoadTest, OpenLoopSendsTheWholeTrace) {
  FakeServer server;
  Client client({.address = server.address()});
  LoadOptions options{.adapters = {""}};
  options.workload.rate = 200;
  options.workload.duration_s = 0.5;
  const auto result = RunLoad(&client, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->started, 100);
  EXPECT_EQ(result->finished, 100);
  EXPECT_EQ(result->output_tokens, 400);
  EXPECT_EQ(result->ttft_s.count, 100u);
}

TEST(LoadTest, RefusalsAreCountedByCode) {
  FakeServer server;
  server.inference.adapter_errors["gone"] =
      RichError(grpc::StatusCode::NOT_FOUND, "gone", "", "X", 0);
  Client client({.address = server.address()});
  LoadOptions options{
      .adapters = {"", "gone"}, .clients = 2, .popularity = Popularity::kRoundRobin};
  options.workload.duration_s = 0.3;
  const auto result = RunLoad(&client, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->errors.at("NOT_FOUND"), 0);
  EXPECT_GT(result->finished, 0);
  EXPECT_LT(result->attainment, 1);
}

TEST(LoadTest, AServerThatRefusesEverythingEndsTheRun) {
  FakeServer server;
  server.inference.error = grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  Client client({.address = server.address()});
  LoadOptions options{.adapters = {""}, .clients = 64};
  options.workload.duration_s = 60;
  EXPECT_EQ(RunLoad(&client, options).status().code(), absl::StatusCode::kUnavailable);
}

v1::Model TinyModel() {
  v1::Model model;
  model.set_layers(2);
  model.set_hidden_size(16);
  model.set_ffn_size(24);
  model.set_heads(4);
  model.set_kv_heads(2);
  model.set_head_dim(4);
  for (const char* module : {"q_proj", "v_proj", "down_proj"}) model.add_adaptable_modules(module);
  return model;
}

TEST(SyntheticAdapterTest, WritesAWellFormedPeftDirectory) {
  const std::string directory =
      ::testing::TempDir() + "/lorad_synthetic_" + std::to_string(getpid());
  std::filesystem::create_directories(directory);
  ASSERT_TRUE(
      WritePeftDirectory(TinyModel(), {.rank = 4, .seed = 1, .modules = {}}, directory).ok());
  const auto config = nlohmann::json::parse(std::ifstream(directory + "/adapter_config.json"));
  EXPECT_EQ(config["r"], 4);
  EXPECT_EQ(config["peft_type"], "LORA");
  std::ifstream file(directory + "/adapter_model.safetensors", std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
  const auto header = nlohmann::json::parse(bytes.substr(8, header_bytes));
  EXPECT_EQ(header.size(), 1u + 2 * 3 * 2);  // metadata; layers, modules, A and B
  const auto& v = header["base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"];
  EXPECT_EQ(v["shape"], nlohmann::json({8, 4}));
  uint64_t end = 0;
  for (const auto& [name, tensor] : header.items()) {
    if (name != "__metadata__") end = std::max(end, tensor["data_offsets"][1].get<uint64_t>());
  }
  EXPECT_EQ(8 + header_bytes + end, bytes.size());
  for (size_t i = 8 + header_bytes; i < bytes.size(); i += 2) {  // bf16: finite, not zero, below 1
    uint16_t half = 0;
    std::memcpy(&half, bytes.data() + i, 2);
    const uint32_t bits = uint32_t{half} << 16;
    float value = 0;
    std::memcpy(&value, &bits, 4);
    ASSERT_GT(std::abs(value), 1e-4F);
    ASSERT_LT(std::abs(value), 1.0F);
  }
  std::filesystem::remove_all(directory);
}

TEST(SyntheticAdapterTest, AModuleThatTheModelLacksIsRefused) {
  const SyntheticAdapter adapter{.rank = 4, .seed = 1, .modules = {"c_attn"}};
  EXPECT_EQ(WritePeftDirectory(TinyModel(), adapter, "/").code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SyntheticAdapterTest, OnlyMissingAdaptersAreUploaded) {
  FakeServer server;
  auto& existing = server.adapters.adapters.emplace_back();
  existing.set_name("adapters/bench-0");
  existing.set_rank(8);
  Client client({.address = server.address()});
  int announced = 0;
  const auto names = EnsureAdapters(
      &client, TinyModel(), "bench", 3, {8, 16}, [&](int missing) { announced = missing; },
      /*at_a_time=*/1);
  ASSERT_TRUE(names.ok()) << names.status();
  EXPECT_THAT(*names, ElementsAre("bench-0", "bench-1", "bench-2"));
  EXPECT_EQ(announced, 2);
  EXPECT_THAT(server.adapters.changes(),
              ElementsAre("UploadAdapter adapters/bench-1", "UploadAdapter adapters/bench-2"));
}

}  // namespace
}  // namespace lorad::bench
