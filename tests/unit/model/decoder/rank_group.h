// RankGroup: a tiny model with dummy weights over several ranks, each with a pool of its own;
// offers what TinyModel does.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/communicator.h"
#include "memory/base/check.h"
#include "model/sharded_factors.h"
#include "model/sites.h"
#include "model/tensor_parallel_executor.h"
#include "tests/unit/model/decoder/tiny_model.h"

namespace lorad {

class RankGroup {
 public:
  RankGroup(const ModelConfig& config, std::vector<std::unique_ptr<kernels::Backend>> backends,
            std::vector<std::unique_ptr<kernels::Communicator>> communicators,
            const DecoderExecutorOptions& options = {})
      : config_(config) {
    TensorParallelExecutor::Ranks members;
    const int size = static_cast<int>(backends.size());
    for (int rank = 0; rank < size; ++rank) {
      Rank& self = ranks_.emplace_back();
      self.shard = {rank, size};
      self.backend = std::move(backends[static_cast<size_t>(rank)]);
      const kernels::KvGeometry geometry =
          KvGeometryOf(ShardOf(config, self.shard), options.page_tokens);
      self.slab.page_bytes = self.backend->KvPageBytes(geometry);
      auto memory = self.backend->Allocate(self.slab.page_bytes * kPages);
      LORAD_CHECK(memory.ok());
      self.memory = *std::move(memory);
      self.slab.data = self.memory->data();
      self.backend->SetPool(self.slab, geometry);
      auto weights =
          MakeDummyWeights(config, /*seed=*/17, self.backend.get(), {.shard = self.shard});
      LORAD_CHECK(weights.ok());
      members.executors.push_back(std::make_unique<DecoderExecutor>(
          config, *std::move(weights), self.backend.get(), options,
          communicators[static_cast<size_t>(rank)].get()));
    }
    members.communicators = std::move(communicators);
    executor_ = std::make_unique<TensorParallelExecutor>(std::move(members));
  }

  std::unique_ptr<TinyAdapter> AddAdapter(std::span<const kernels::LowRankFactors> factors) {
    auto adapter = std::make_unique<TinyAdapter>();
    std::vector<ShardedFactors> shares;
    for (const Rank& rank : ranks_) {
      shares.emplace_back(factors, config_, rank.shard);
      adapter->image.layouts.push_back(rank.backend->PlanAdapter(
          shares.back().factors(), SiteCount(config_), rank.slab.page_bytes));
    }
    adapter->pages = TakePages(adapter->image.pages());
    for (size_t i = 0; i < ranks_.size(); ++i) {
      const kernels::AdapterLayout& layout = adapter->image.layouts[i];
      ranks_[i].backend->PackAdapter(layout, shares[i].factors(), ranks_[i].slab,
                                     std::span(adapter->pages).first(layout.pages));
    }
    return adapter;
  }
  std::unique_ptr<TinyAdapter> NewAdapter(uint32_t rank, uint64_t seed) {
    return AddAdapter(TinyFactors(config_, rank, seed).factors());
  }

  std::vector<uint32_t> TakePages(uint32_t count) {
    std::vector<uint32_t> pages;
    for (uint32_t i = 0; i < count; ++i) {
      LORAD_CHECK(next_page_ < kPages);
      pages.push_back(next_page_++ * 37 % kPages);
    }
    return pages;
  }

  TensorParallelExecutor& executor() { return *executor_; }

 private:
  static constexpr uint32_t kPages = 512;  // coprime with 37

  struct Rank {
    Shard shard;
    std::unique_ptr<kernels::Backend> backend;
    std::unique_ptr<kernels::Buffer> memory;
    kernels::PageSlab slab;
  };

  const ModelConfig config_;
  std::vector<Rank> ranks_;
  std::unique_ptr<TensorParallelExecutor> executor_;
  uint32_t next_page_ = 0;
};

}  // namespace lorad
