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
  Devices(int ranks, uint64_t seed, const CudaBackendOptions& options) {
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

}  // namespace
}  // namespace lorad::kernels::cuda
