// GoldenModel: one of the tiny models that make_goldens.py wrote, on a backend, with all its
// adapters in a pool of scattered pages, and what transformers + PEFT computed for them. With more
// backends than one it is tensor-parallel, a rank on each.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "memory/page_pool.h"
#include "model/decoder_executor.h"
#include "model/model_config.h"
#include "model/peft_adapter.h"
#include "model/tensor_parallel_executor.h"

namespace lorad {

inline constexpr int kGoldenPageTokens = 16;

// What transformers + PEFT computed with one adapter.
struct GoldenCase {
  std::string adapter;
  int prompt_tokens = 0;        // the rest was added greedily by the adapted model
  std::vector<TokenId> tokens;  // [n]
  std::vector<float> logits;    // [n, vocab] with the adapter
  std::vector<float> base;      // [n, vocab] without
};

// Ways to load a model in low precision or, for negative controls, wrongly.
struct Sabotage {
  std::function<void(ModelConfig*)> config;
  std::function<void(std::vector<kernels::LowRankFactors>*)> factors;  // of every adapter
  kernels::WeightFormat format = kernels::WeightFormat::kBf16;         // of the layers
};

class GoldenModel {
 public:
  // Aborts if the files cannot be loaded.
  GoldenModel(const std::string& name, std::vector<std::unique_ptr<kernels::Backend>> ranks,
              const Sabotage& sabotage = {});
  GoldenModel(const std::string& name, std::unique_ptr<kernels::Backend> backend,
              const Sabotage& sabotage = {});

  // Some tokens of a case, with adapter `adapter` (index of a case) or -1 for the base model.
  struct Request {
    size_t tokens_of = 0;
    int adapter = -1;
  };
  // Runs the requests side by side: in each step every unfinished one gets the next chunk(step, i)
  // of its tokens. Returns each one's logits, [n, vocab].
  std::vector<std::vector<float>> Run(std::span<const Request> requests,
                                      const std::function<int(int step, size_t i)>& chunk);
  // Every case with its adapter, and then every case without.
  std::vector<Request> AllRequests() const;

  const std::vector<GoldenCase>& cases() const { return cases_; }
  int vocab_size() const { return config_.vocab_size; }
  Executor& executor();
  std::vector<float> AllLogits(const StepInput& input);  // DecoderExecutor's
  std::vector<AdapterUse> Use(int adapter) const;        // -1: none
  PageList KvPages(size_t tokens);

 private:
  struct LoadedAdapter {
    AdapterImage image;
    PageList pages;
  };

  struct Rank {
    Shard shard;
    std::unique_ptr<kernels::Backend> backend;
    std::unique_ptr<kernels::Buffer> memory;
    kernels::PageSlab slab;
  };

  void MakePools();
  void LoadModel(const std::filesystem::path& dir, kernels::WeightFormat format);
  void LoadAdapters(const std::filesystem::path& dir, const Sabotage& sabotage);

  std::vector<Rank> ranks_;
  ModelConfig config_;
  std::vector<GoldenCase> cases_;
  std::unique_ptr<PagePool> pool_;
  std::vector<LoadedAdapter> adapters_;  // of cases_
  // One of them.
  std::unique_ptr<DecoderExecutor> alone_;
  std::unique_ptr<TensorParallelExecutor> group_;
};

std::filesystem::path GoldenDir(const std::string& model);
std::vector<GoldenCase> ReadGoldenCases(const std::string& model);

// ||a - b|| / ||b||
double RelativeError(std::span<const float> a, std::span<const float> b);
// The largest relative error of a row.
double WorstRow(std::span<const float> a, std::span<const float> b, int cols);
std::vector<float> Difference(std::span<const float> a, std::span<const float> b);

}  // namespace lorad
