// ModelWeights: the base model's weights as the backend holds them. Made once at start, from a
// Hugging Face directory or (to try a model's shape without its files) from a seed; immutable
// afterwards, so any thread may read.
//
// A tensor is read, checked and packed one layer at a time: the packed copy is the only whole one
// in memory (a file's pages are the operating system's to drop). A rank of a tensor-parallel model
// (model/shard.h) packs its share of each tensor; the sizes below are those of a whole model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "model/model_config.h"
#include "model/shard.h"

namespace lorad {

class ModelTensors;

struct LayerWeights {
  std::unique_ptr<kernels::Vector> input_norm;  // [hidden], before attention
  std::unique_ptr<kernels::Matrix> qkv;         // [q_size + 2 * kv_size, hidden]
  std::unique_ptr<kernels::Vector> q_norm;      // [head_dim] or null
  std::unique_ptr<kernels::Vector> k_norm;      // [head_dim] or null
  std::unique_ptr<kernels::Matrix> output;      // [hidden, q_size]
  std::unique_ptr<kernels::Vector> ffn_norm;    // [hidden], before the feed-forward block
  std::unique_ptr<kernels::Matrix> gate_up;     // [2 * ffn, hidden]
  std::unique_ptr<kernels::Matrix> down;        // [hidden, ffn]
};

struct ModelWeights {
  std::unique_ptr<kernels::Matrix> embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  std::unique_ptr<kernels::Vector> final_norm;  // [hidden]
  // [vocab, hidden], or [HeadRows, hidden] of a shard; null: it is the embedding.
  std::unique_ptr<kernels::Matrix> own_head;
  std::unique_ptr<kernels::Vector> inv_freq;  // [head_dim / 2]

  const kernels::Matrix& head() const { return own_head ? *own_head : *embedding; }
  size_t bytes() const;
};

// Where tensors come from. Errors name the tensor.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // Lives until the next Release().
  virtual absl::StatusOr<kernels::HostMatrix> Matrix(std::string_view name, int64_t rows,
                                                     int64_t cols) = 0;
  virtual absl::StatusOr<std::vector<float>> Vector(std::string_view name, int64_t size) = 0;
  virtual void Release() {}
};

struct WeightOptions {
  // Of the layers' matrices. The embedding is bf16 always, and so is an output layer that is tied
  // to it; another one is int8 with int8 and bf16 with the coarser formats, which cost it most.
  kernels::WeightFormat format = kernels::WeightFormat::kBf16;
  bool check_finite = false;  // refuse NaN and infinity (reads every packed value once more)
  Shard shard = {};           // what of the model to pack
  std::function<void(size_t done_bytes, size_t total_bytes)> progress = {};  // after each matrix
};

// Packs every tensor that the configuration, which is the whole model's, asks for. Errors name the
// tensor.  REQUIRES: the backend supports the format.
absl::StatusOr<std::unique_ptr<ModelWeights>> BuildWeights(const ModelConfig& config,
                                                           TensorSource* source,
                                                           kernels::Backend* backend,
                                                           const WeightOptions& options = {});

// From a model directory. Besides BuildWeights' checks: a tensor that the model does not use is an
// error, so that no unknown part of a model is left out silently.
absl::StatusOr<std::unique_ptr<ModelWeights>> LoadWeights(const ModelConfig& config,
                                                          const ModelTensors& tensors,
                                                          kernels::Backend* backend,
                                                          const WeightOptions& options = {});

// Random weights of the configuration's shapes, bfloat16: projections of variance 1 / d_in, norms
// near 1. A value depends on the seed, the tensor's name and its place alone.
absl::StatusOr<std::unique_ptr<ModelWeights>> MakeDummyWeights(const ModelConfig& config,
                                                               uint64_t seed,
                                                               kernels::Backend* backend,
                                                               const WeightOptions& options = {});

// Numbers in all matrices of a shard (vectors are negligible): times the backend's element size is
// what BuildWeights will take if all are of one format.
size_t CountWeights(const ModelConfig& config, const Shard& shard = {});

}  // namespace lorad
