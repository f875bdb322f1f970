#include "server/model_ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>

#include "kernels/cpu/thread_pool.h"
#include "kernels/quantise.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "model/decoder_executor.h"
#include "model/tensor_parallel_executor.h"
#include "server/log.h"

namespace lorad {
namespace {

constexpr size_t kMinPageBytes = 32 << 10;

// Host threads of each rank, which share the cores.
int ThreadsOfRank(const Config& config) {
  if (config.tensor_parallel == 1) return config.threads;
  const int all = config.threads > 0 ? config.threads : kernels::cpu::UsableCores();
  return std::max(1, all / config.tensor_parallel);
}

absl::StatusOr<std::unique_ptr<kernels::Backend>> OpenCuda(const Config& config, int rank) {
  // Ranks must not write one file.
  const std::string file = rank == 0 ? "gemm-choices" : fmt::format("gemm-choices-{}", rank);
  return kernels::NewCudaBackend(
      {.device = config.device + rank,
       .kv_format = config.kv_format == "fp8" ? kernels::KvFormat::kFp8 : kernels::KvFormat::kBf16,
       .batch_invariant = config.batch_invariant,
       .gemm_choices = std::filesystem::path(config.state_dir) / file,
       .host_threads = ThreadsOfRank(config),
       .notice = [](const std::string& text) {
         Log(LogLevel::kWarn, "cuda", {{"what", text}});
       }});
}

absl::StatusOr<std::unique_ptr<kernels::Backend>> OpenFirst(const Config& config) {
  if (config.backend == "reference") return kernels::NewReferenceBackend();
  if (config.backend != "cpu") {
    auto cuda = OpenCuda(config, 0);
    if (cuda.ok()) return cuda;
    const bool absent =
        absl::IsFailedPrecondition(cuda.status()) || absl::IsUnavailable(cuda.status());
    if (config.backend == "cuda" || !absent) return Explain("--backend cuda", cuda.status());
    if (config.kv_format == "fp8") {
      return Explain("--kv-format fp8 needs the cuda backend", cuda.status());
    }
    Log(LogLevel::kInfo, "no cuda device",
        {{"why", std::string(cuda.status().message())}, {"backend", "cpu"}});
  }
  return kernels::NewCpuBackend({.threads = ThreadsOfRank(config), .isa = config.cpu_isa});
}

absl::Status CheckWeights(const Config& config, const kernels::Backend& backend) {
  if (backend.Supports(config.WeightFormat())) return absl::OkStatus();
  std::string supported;
  for (const kernels::WeightFormat format : kernels::kWeightFormats) {
    if (!backend.Supports(format)) continue;
    supported += fmt::format("{}{}", supported.empty() ? "" : ", ", Name(format));
  }
  return absl::InvalidArgumentError(
      fmt::format("--weights {}: backend {} has {}", config.weights, backend.name(), supported));
}

// Another rank's device, of the kind of the first.
absl::StatusOr<std::unique_ptr<kernels::Backend>> OpenLike(const kernels::Backend& first,
                                                           const Config& config, int rank) {
  const std::string_view name = first.name();
  if (name.starts_with("cuda")) {
    auto cuda = OpenCuda(config, rank);
    if (cuda.ok()) return cuda;
    return Explain(fmt::format("--tensor-parallel {}: device {}", config.tensor_parallel,
                               config.device + rank),
                   cuda.status());
  }
  if (name == "reference") return kernels::NewReferenceBackend();
  // The instruction set that the first one has found best: a race may end otherwise each time.
  return kernels::NewCpuBackend(
      {.threads = ThreadsOfRank(config), .isa = std::string(name.substr(name.find('/') + 1))});
}

// What --pool-bytes auto means. Asked when the model is loaded: what is then left of a device's
// memory is the pool's, but for what activations, graphs and libraries still take.
uint64_t AutoPoolBytes(const kernels::Backend& backend) {
  constexpr uint64_t kHostPool = uint64_t{1} << 30;
  constexpr uint64_t kReserve = uint64_t{2} << 30;
  const uint64_t free = backend.FreeBytes();
  if (free == 0) return kHostPool;
  const uint64_t share = free / 10 * 9;
  return share > kReserve ? share - kReserve : 0;
}

// Logs each tenth of the way.
std::function<void(size_t, size_t)> LogProgress() {
  return [shown = -1](size_t done, size_t total) mutable {
    const int percent = total == 0 ? 100 : static_cast<int>(done * 100 / total);
    if (percent / 10 == shown) return;
    shown = percent / 10;
    Log(LogLevel::kInfo, "loading weights", {{"percent", percent}, {"mib", done >> 20}});
  };
}

absl::StatusOr<std::vector<std::unique_ptr<kernels::Communicator>>> NewCommunicators(
    std::span<kernels::Backend* const> ranks) {
  if (ranks[0]->name().starts_with("cuda")) return kernels::NewCudaCommunicators(ranks);
  return kernels::NewThreadCommunicators(static_cast<int>(ranks.size()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelRanks>> ModelRanks::Load(const Config& config,
                                                             const ModelConfig& model) {
  LORAD_RETURN_IF_ERROR(Explain(fmt::format("--tensor-parallel {}", config.tensor_parallel),
                                CheckShards(model, config.tensor_parallel)));
  std::unique_ptr<ModelRanks> ranks(new ModelRanks());
  LORAD_RETURN_IF_ERROR(ranks->OpenDevices(config));
  Log(LogLevel::kInfo, "loading model",
      {{"model", config.model_name},
       {"architecture", model.architecture},
       {"backend", std::string(ranks->backend_name())},
       {"weights", std::string(Name(config.WeightFormat()))},
       {"ranks", ranks->size()},
       {"layers", model.layers}});
  ranks->ChooseGeometry(config, model);
  LORAD_ASSIGN_OR_RETURN(auto weights, ranks->LoadAllWeights(config, model));
  LORAD_RETURN_IF_ERROR(ranks->MakeExecutor(config, model, std::move(weights)));
  LORAD_RETURN_IF_ERROR(ranks->MakePools(config));
  return ranks;
}

absl::Status ModelRanks::OpenDevices(const Config& config) {
  for (int rank = 0; rank < config.tensor_parallel; ++rank) {
    Rank& opened = ranks_.emplace_back();
    opened.shard = {rank, config.tensor_parallel};
    LORAD_ASSIGN_OR_RETURN(
        opened.backend, rank == 0 ? OpenFirst(config) : OpenLike(*ranks_[0].backend, config, rank));
  }
  return CheckWeights(config, *ranks_[0].backend);
}

void ModelRanks::ChooseGeometry(const Config& config, const ModelConfig& model) {
  geometry_ = KvGeometryOf(ShardOf(model, ranks_[0].shard),
                           config.page_tokens == 0 ? 16 : config.page_tokens);
  while (config.page_tokens == 0 && ranks_[0].backend->KvPageBytes(geometry_) < kMinPageBytes) {
    geometry_.page_tokens += 16;
  }
}

// All ranks at the same time: each reads the files for itself and packs its share.
absl::StatusOr<std::vector<std::unique_ptr<ModelWeights>>> ModelRanks::LoadAllWeights(
    const Config& config, const ModelConfig& model) {
  std::optional<ModelTensors> tensors;
  if (config.load_format != "dummy") {
    LORAD_ASSIGN_OR_RETURN(tensors, ModelTensors::Open(config.model));
  }
  std::vector<absl::StatusOr<std::unique_ptr<ModelWeights>>> loaded(ranks_.size());
  const auto load = [&](size_t i) {
    WeightOptions options{.format = config.WeightFormat(), .shard = ranks_[i].shard};
    if (i == 0) options.progress = LogProgress();
    kernels::Backend* const backend = ranks_[i].backend.get();
    loaded[i] = tensors.has_value() ? LoadWeights(model, *tensors, backend, options)
                                    : MakeDummyWeights(model, /*seed=*/0, backend, options);
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < ranks_.size(); ++i) threads.emplace_back(load, i);
  load(0);
  for (std::thread& thread : threads) thread.join();
  std::vector<std::unique_ptr<ModelWeights>> weights;
  for (auto& rank : loaded) {
    LORAD_RETURN_IF_ERROR(rank.status());
    weights.push_back(*std::move(rank));
    weight_bytes_ += weights.back()->bytes();
  }
  return weights;
}

absl::Status ModelRanks::MakeExecutor(const Config& config, const ModelConfig& model,
                                      std::vector<std::unique_ptr<ModelWeights>> weights) {
  const DecoderExecutorOptions options{
      .limits = {.max_rows = config.max_step_tokens, .max_sequences = config.max_running},
      .max_logit_rows = 0,
      .page_tokens = geometry_.page_tokens};
  if (size() == 1) {
    executor_ =
        std::make_unique<DecoderExecutor>(model, std::move(weights[0]), backend(0), options);
  } else {
    std::vector<kernels::Backend*> backends;
    for (const Rank& rank : ranks_) backends.push_back(rank.backend.get());
    TensorParallelExecutor::Ranks group;
    LORAD_ASSIGN_OR_RETURN(group.communicators, NewCommunicators(backends));
    for (size_t i = 0; i < ranks_.size(); ++i) {
      group.executors.push_back(std::make_unique<DecoderExecutor>(
          model, std::move(weights[i]), backends[i], options, group.communicators[i].get()));
    }
    executor_ = std::make_unique<TensorParallelExecutor>(std::move(group));
  }
  for (const Rank& rank : ranks_) {
    LORAD_RETURN_IF_ERROR(Explain("loading the model", rank.backend->status()));
  }
  return absl::OkStatus();
}

absl::Status ModelRanks::MakePools(const Config& config) {
  const size_t page_bytes = ranks_[0].backend->KvPageBytes(geometry_);
  uint64_t bytes = config.pool_bytes;
  for (const Rank& rank : ranks_) {
    if (config.pool_bytes > 0) break;
    const uint64_t free = AutoPoolBytes(*rank.backend);
    bytes = rank.shard.rank == 0 ? free : std::min(bytes, free);
  }
  const uint64_t pages = bytes / page_bytes;
  if (pages < 4 || pages > UINT32_MAX) {
    return absl::InvalidArgumentError(
        fmt::format("--pool-bytes {} makes {} pages of {} bytes", bytes, pages, page_bytes));
  }
  pool_pages_ = static_cast<uint32_t>(pages);
  for (Rank& rank : ranks_) {
    LORAD_ASSIGN_OR_RETURN(rank.pool, rank.backend->Allocate(pages * page_bytes));
    rank.slab = {rank.pool->data(), page_bytes};
    rank.backend->SetPool(rank.slab, geometry_);
  }
  Log(LogLevel::kInfo, "pool",
      {{"pages", pages}, {"page_bytes", page_bytes}, {"page_tokens", geometry_.page_tokens}});
  return absl::OkStatus();
}

std::vector<uint64_t> ModelRanks::LastSteps() const {
  std::vector<uint64_t> steps;
  for (const Rank& rank : ranks_) steps.push_back(rank.backend->LastStep());
  return steps;
}

std::vector<const kernels::Backend*> ModelRanks::backends() const {
  std::vector<const kernels::Backend*> backends;
  for (const Rank& rank : ranks_) backends.push_back(rank.backend.get());
  return backends;
}

void ModelRanks::PackAdapter(const AdapterImage& image, std::span<const ShardedFactors> shares,
                             std::span<const uint32_t> pages) {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const kernels::AdapterLayout& layout = image.layouts[i];
    ranks_[i].backend->PackAdapter(layout, shares[i].factors(), ranks_[i].slab,
                                   pages.first(layout.pages));
  }
}

}  // namespace lorad
