// A tiny model with dummy weights on the reference backend, with a pool of its own: what executor
// tests share.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "memory/base/check.h"
#include "model/decoder_executor.h"
#include "model/sites.h"

namespace lorad {

inline ModelConfig TinyConfig() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 61;
  config.hidden_size = 32;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 8;
  config.ffn_size = 48;
  config.max_positions = 256;
  config.rms_norm_eps = 1e-5f;
  config.inv_freq = {1.0f, 0.1f, 0.01f, 0.001f};
  return config;
}

// Random factors on every projection and the head.
class TinyFactors {
 public:
  TinyFactors(const ModelConfig& config, uint32_t rank, uint64_t seed) : seed_(seed) {
    for (int layer = 0; layer < config.layers; ++layer) {
      for (const Projection& p : Projections(config)) {
        Add(SiteIndex(layer, p.site), p.out_begin, Matrix(rank, p.in_cols),
            Matrix(p.out_cols, rank));
      }
    }
    Add(LmHeadSite(config), 0, Matrix(rank, config.hidden_size), Matrix(config.vocab_size, rank));
  }

  std::span<const kernels::LowRankFactors> factors() const { return factors_; }

 private:
  void Add(uint32_t site, int out_begin, const kernels::HostMatrix& a,
           const kernels::HostMatrix& b) {
    factors_.push_back({site, static_cast<uint32_t>(out_begin), 0.5f, a, b});
  }
  kernels::HostMatrix Matrix(int64_t rows, int64_t cols) {
    std::vector<float>& v = values_.emplace_back(static_cast<size_t>(rows * cols));
    for (float& x : v) {
      seed_ = seed_ * 6364136223846793005u + 1442695040888963407u;
      x = static_cast<float>(static_cast<int32_t>(seed_ >> 32)) * 0x1.0p-33f;
    }
    return {kernels::DType::kF32, v.data(), rows, cols};
  }

  uint64_t seed_;
  std::deque<std::vector<float>> values_;
  std::vector<kernels::LowRankFactors> factors_;
};

// An adapter in the pool.
struct TinyAdapter {
  AdapterImage image;
  std::vector<uint32_t> pages;

  AdapterUse Use(float weight = 1.0f) const { return {&image, pages, weight}; }
};

class TinyModel {
 public:
  explicit TinyModel(const DecoderExecutorOptions& options = {}, ModelConfig config = TinyConfig(),
                     std::unique_ptr<kernels::Backend> backend = kernels::NewReferenceBackend())
      : config_(std::move(config)), backend_(std::move(backend)) {
    const kernels::KvGeometry geometry = KvGeometryOf(config_, options.page_tokens);
    page_bytes_ = backend_->KvPageBytes(geometry);
    auto pool = backend_->Allocate(page_bytes_ * kPages);
    LORAD_CHECK(pool.ok());
    pool_ = std::move(*pool);
    slab_ = {pool_->data(), page_bytes_};
    backend_->SetPool(slab_, geometry);
    auto weights = MakeDummyWeights(config_, /*seed=*/17, backend_.get());
    LORAD_CHECK(weights.ok());
    executor_ =
        std::make_unique<DecoderExecutor>(config_, std::move(*weights), backend_.get(), options);
  }

  // Pages in an order that no contiguous layout would survive.
  std::vector<uint32_t> TakePages(uint32_t count) {
    std::vector<uint32_t> pages;
    for (uint32_t i = 0; i < count; ++i) {
      LORAD_CHECK(next_page_ < kPages);
      pages.push_back(next_page_++ * 37 % kPages);
    }
    return pages;
  }

  std::unique_ptr<TinyAdapter> AddAdapter(std::span<const kernels::LowRankFactors> factors) {
    auto adapter = std::make_unique<TinyAdapter>();
    adapter->image.layouts = {backend_->PlanAdapter(factors, SiteCount(config_), page_bytes_)};
    adapter->pages = TakePages(adapter->image.pages());
    backend_->PackAdapter(adapter->image.layouts[0], factors, slab_, adapter->pages);
    return adapter;
  }
  std::unique_ptr<TinyAdapter> NewAdapter(uint32_t rank, uint64_t seed) {
    return AddAdapter(TinyFactors(config_, rank, seed).factors());
  }

  const ModelConfig& config() const { return config_; }
  kernels::Backend* backend() { return backend_.get(); }
  DecoderExecutor& executor() { return *executor_; }

 private:
  static constexpr uint32_t kPages = 1024;  // coprime with 37

  const ModelConfig config_;
  const std::unique_ptr<kernels::Backend> backend_;
  size_t page_bytes_ = 0;
  std::unique_ptr<kernels::Buffer> pool_;
  kernels::PageSlab slab_;
  std::unique_ptr<DecoderExecutor> executor_;
  uint32_t next_page_ = 0;
};

}  // namespace lorad
