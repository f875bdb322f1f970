// A tiny model over several emulated devices: what one device computes, with exchanges that stand
// in graphs, and an end for all when a device fails.
#include "tests/unit/model/decoder/rank_group.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/nccl_communicator.h"
#include "tests/emulator/runtime.h"
#include "tests/unit/kernels/cuda/fake_nccl.h"

namespace lorad::kernels::cuda {
namespace {

struct Devices {
  Devices(int ranks, uint64_t seed, const CudaBackendOptions& options, int heads = 4) {
    std::vector<Runtime*> runtimes;
    std::vector<std::unique_ptr<Backend>> owned;
    for (int rank = 0; rank < ranks; ++rank) {
      emulator::RuntimeOptions device{.order_seed = seed + static_cast<uint64_t>(rank)};
      device.facts.index = rank;
      auto runtime = std::make_unique<emulator::EmulatedRuntime>(device);
      emulated.push_back(runtime.get());
      runtimes.push_back(runtime.get());
      auto backend = CudaBackend::Create(std::move(runtime), options);
      LORAD_CHECK(backend.ok());
      backends.push_back(backend->get());
      owned.push_back(*std::move(backend));
    }
    nccl = std::make_unique<FakeNccl>(std::move(runtimes));
    auto communicators =
        NcclCommunicator::Connect(nccl->api(), backends, {.short_bytes = size_t{2} << 10});
    LORAD_CHECK(communicators.ok());
    ModelConfig config = TinyConfig();
    config.heads = heads;
    config.kv_heads = heads / 2;
    config.qkv_bias = config.output_bias = config.mlp_bias = config.qk_norm = true;
    group = std::make_unique<RankGroup>(config, std::move(owned), *std::move(communicators));
  }

  std::vector<emulator::EmulatedRuntime*> emulated;
  std::vector<CudaBackend*> backends;
  std::unique_ptr<FakeNccl> nccl;
  std::unique_ptr<RankGroup> group;  // owns the backends
};

// Logits of a prompt and of tokens that follow one by one: two sequences, one with an adapter.
std::vector<std::vector<float>> LogitsOf(RankGroup& group, int decode_steps) {
  const auto adapter = group.NewAdapter(5, 3);
  const std::vector<AdapterUse> use = {adapter->Use()};
  std::vector<TokenId> tokens[2];
  std::vector<uint32_t> pages[2];
  for (int s = 0; s < 2; ++s) {
    for (int i = 0; i < 5 + s + decode_steps; ++i) tokens[s].push_back((i * i * 7 + i + s) % 61);
    pages[s] = group.TakePages(2);
  }
  std::vector<std::vector<float>> logits;
  for (int step = 0; step <= decode_steps; ++step) {
    std::vector<SequenceInput> inputs;
    for (size_t s = 0; s < 2; ++s) {
      const size_t prompt = 5 + s;
      const size_t begin = step == 0 ? 0 : prompt + static_cast<size_t>(step) - 1;
      const size_t end = prompt + static_cast<size_t>(step);
      inputs.push_back({.tokens = std::span(tokens[s]).subspan(begin, end - begin),
                        .first_position = static_cast<int>(begin),
                        .kv_pages = pages[s]});
      if (s == 1) inputs.back().adapters = use;
    }
    logits.push_back(group.executor().AllLogits({.sequences = inputs}));
  }
  return logits;
}

double RelativeError(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(a[i] - b[i], 2);
    norm += std::pow(b[i], 2);
  }
  return std::sqrt(difference / norm);
}

TEST(CudaRankGroupTest, SeveralDevicesComputeWhatOneDoes) {
  std::vector<std::vector<float>> expected;
  // Four ranks share two key/value heads.
  for (const int ranks : {1, 2, 4}) {
    Devices devices(ranks, static_cast<uint64_t>(ranks), {.host_threads = 1});
    const auto logits = LogitsOf(*devices.group, 2);
    if (ranks == 1) expected = logits;
    for (size_t step = 0; step < logits.size(); ++step) {
      ASSERT_EQ(logits[step].size(), expected[step].size());
      EXPECT_LT(RelativeError(logits[step], expected[step]), 2e-2) << ranks << " at " << step;
    }
  }
}

TEST(CudaRankGroupTest, ExchangesStandInGraphs) {
  std::vector<std::vector<float>> expected;
  for (const size_t graphs : {0, 16}) {
    Devices devices(2, 5 + graphs, {.host_threads = 1, .programs = {.graphs = graphs}});
    const auto logits = LogitsOf(*devices.group, 6);
    if (graphs == 0) expected = logits;
    EXPECT_EQ(logits, expected);
    for (const CudaBackend* backend : devices.backends) {
      EXPECT_EQ(backend->program_counts().replayed > 0, graphs > 0);
    }
  }
}

// Tokens that two sequences draw on the devices, step after step; with `overlap` each step but the
// first goes on with tokens that the one before has not given yet.
std::vector<std::vector<TokenId>> Draw(RankGroup& group, int steps, bool overlap) {
  TensorParallelExecutor& executor = group.executor();
  const auto adapter = group.NewAdapter(5, 3);
  const std::vector<AdapterUse> use = {adapter->Use()};
  SamplingParams greedy, random;
  greedy.temperature = 0;
  random.seed = 7;
  const Sampler samplers[2] = {Sampler(greedy, {}, 61), Sampler(random, {}, 61)};
  const std::vector<TokenId> prompts[2] = {{1, 2, 3}, {9, 8, 7, 6, 5}};
  const std::vector<uint32_t> pages[2] = {group.TakePages(2), group.TakePages(2)};
  std::vector<std::vector<TokenId>> drawn(2);
  const auto collect = [&] {
    std::vector<SequenceResult> results;
    ASSERT_TRUE(executor.Collect(&results).ok());
    for (size_t s = 0; s < 2; ++s) drawn[s].push_back(results.at(s).sample.value().token);
  };
  for (int step = 0; step < steps; ++step) {
    std::vector<SequenceInput> inputs;
    std::vector<TokenId> last(2, 0);
    for (size_t s = 0; s < 2; ++s) {
      SequenceInput& input = inputs.emplace_back();
      input.tokens = prompts[s];
      if (step > 0) {
        input.tokens = std::span(last).subspan(s, 1);
        input.first_position = static_cast<int>(prompts[s].size()) + step - 1;
        if (overlap) {
          input.token_from_previous = static_cast<int>(s);
        } else {
          last[s] = drawn[s].back();
        }
      }
      input.kv_pages = pages[s];
      input.sampler = &samplers[s];
      input.sample_index = step;
      if (s == 1) input.adapters = use;
    }
    EXPECT_TRUE(executor.Submit({.sequences = inputs}).ok());
    if (!overlap || step > 0) collect();
  }
  if (overlap) collect();
  return drawn;
}

TEST(CudaRankGroupTest, StepsThatOverlapDrawTheSameTokens) {
  std::vector<std::vector<TokenId>> expected;
  for (const bool overlap : {false, true}) {
    Devices devices(2, 11, {.host_threads = 1});
    ASSERT_TRUE(devices.group->executor().Overlaps());
    const auto drawn = Draw(*devices.group, 7, overlap);
    EXPECT_EQ(drawn[0].size(), 7u);
    if (!overlap) expected = drawn;
    EXPECT_EQ(drawn, expected);
  }
}

TEST(CudaRankGroupTest, ADeviceThatFailsEndsTheGroup) {
  for (const int64_t after : {0, 3, 20}) {
    Devices devices(3, 13, {.host_threads = 1}, /*heads=*/6);
    const std::vector<uint32_t> pages = devices.group->TakePages(1);
    const std::vector<TokenId> tokens = {1, 2, 3};
    const SequenceInput input{.tokens = tokens, .kv_pages = pages};
    std::vector<SequenceResult> results;
    TensorParallelExecutor& executor = devices.group->executor();
    ASSERT_TRUE(executor.Execute({.sequences = std::span(&input, 1)}, &results).ok());
    devices.emulated[1]->FailAfter(after);
    const absl::Status status = executor.Execute({.sequences = std::span(&input, 1)}, &results);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_TRUE(std::string(status.message()).starts_with("rank 1: emulated device: failed"))
        << status;
    EXPECT_FALSE(executor.Execute({.sequences = std::span(&input, 1)}, &results).ok());
    EXPECT_EQ(devices.nccl->open_comms(), 0);
  }
}

}  // namespace
}  // namespace lorad::kernels::cuda
