// ModelRanks: the devices that run the model and what each of them holds: backend, weights, pool,
// executor. One, or with --tensor-parallel several, each with its share of the model and of every
// adapter (model/shard.h). All pools have the same number of pages, and what is in a page of one
// has its other shares in the pages of the same number of the others.
//
// Thread: Load's until the engine starts; then each part as it says itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/communicator.h"
#include "model/executor.h"
#include "model/model_config.h"
#include "model/model_tensors.h"
#include "model/sharded_factors.h"
#include "model/weights.h"
#include "server/config.h"

namespace lorad {

class ModelRanks {
 public:
  // Opens the devices, loads the weights and allocates the pools. Errors name the option or the
  // part of the model that stands in the way.  REQUIRES: `model` is that of config.model.
  static absl::StatusOr<std::unique_ptr<ModelRanks>> Load(const Config& config,
                                                          const ModelConfig& model);

  int size() const { return static_cast<int>(ranks_.size()); }
  // Of rank 0, as are all things that are equal on all ranks.
  std::string_view backend_name() const { return ranks_[0].backend->name(); }
  const kernels::KvGeometry& geometry() const { return geometry_; }
  size_t page_bytes() const { return ranks_[0].slab.page_bytes; }
  uint32_t pool_pages() const { return pool_pages_; }
  // By rank: each counts its own.
  std::vector<uint64_t> LastSteps() const;
  bool stages_adapters() const { return ranks_[0].backend->StagesAdapters(); }

  Executor* executor() { return executor_.get(); }
  size_t weight_bytes() const { return weight_bytes_; }  // of all ranks
  kernels::Backend* backend(int rank) { return ranks_[static_cast<size_t>(rank)].backend.get(); }
  const kernels::PageSlab& slab(int rank) const { return ranks_[static_cast<size_t>(rank)].slab; }
  std::vector<const kernels::Backend*> backends() const;

  // Writes an adapter's image into pages of every rank's pool.  REQUIRES: the pools are host
  // memory. `shares` are those that the image was planned for, by rank.
  void PackAdapter(const AdapterImage& image, std::span<const ShardedFactors> shares,
                   std::span<const uint32_t> pages);

 private:
  struct Rank {
    Shard shard;
    std::unique_ptr<kernels::Backend> backend;
    std::unique_ptr<kernels::Buffer> pool;
    kernels::PageSlab slab;
  };

  ModelRanks() = default;
  absl::Status OpenDevices(const Config& config);
  absl::StatusOr<std::vector<std::unique_ptr<ModelWeights>>> LoadAllWeights(
      const Config& config, const ModelConfig& model);
  absl::Status MakeExecutor(const Config& config, const ModelConfig& model,
                            std::vector<std::unique_ptr<ModelWeights>> weights);
  void ChooseGeometry(const Config& config, const ModelConfig& model);
  absl::Status MakePools(const Config& config);

  std::vector<Rank> ranks_;
  kernels::KvGeometry geometry_;  // of each rank's pages
  uint32_t pool_pages_ = 0;
  size_t weight_bytes_ = 0;
  std::unique_ptr<Executor> executor_;  // uses what is above
};

}  // namespace lorad
