// Weights from a model directory.
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "memory/base/status_macros.h"
#include "model/model_tensors.h"
#include "model/weights.h"

namespace lorad {
namespace {

class FileSource final : public TensorSource {
 public:
  explicit FileSource(const ModelTensors& tensors) : tensors_(tensors) {}

  absl::StatusOr<kernels::HostMatrix> Matrix(std::string_view name, int64_t rows,
                                             int64_t cols) override {
    used_.emplace(name);
    return tensors_.Matrix(name, rows, cols);
  }

  absl::StatusOr<std::vector<float>> Vector(std::string_view name, int64_t size) override {
    used_.emplace(name);
    return tensors_.Vector(name, size);
  }

  bool WasUsed(std::string_view name) const { return used_.contains(name); }

 private:
  const ModelTensors& tensors_;
  std::set<std::string, std::less<>> used_;
};

// Saved by some versions of transformers though they follow from other tensors or from the
// configuration.
bool IsRedundant(const ModelConfig& config, std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") ||
         (config.tie_embeddings && name == "lm_head.weight");
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelWeights>> LoadWeights(const ModelConfig& config,
                                                          const ModelTensors& tensors,
                                                          kernels::Backend* backend,
                                                          const WeightOptions& options) {
  FileSource source(tensors);
  LORAD_ASSIGN_OR_RETURN(auto weights, BuildWeights(config, &source, backend, options));
  for (std::string_view name : tensors.names()) {
    if (!source.WasUsed(name) && !IsRedundant(config, name)) {
      return absl::InvalidArgumentError(
          fmt::format("tensor {} is no part of a {}", name, config.architecture));
    }
  }
  return weights;
}

}  // namespace lorad
