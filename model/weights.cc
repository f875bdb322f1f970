#include "model/weights.h"

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "memory/base/check.h"
#include "memory/base/status_macros.h"

namespace lorad {
namespace {

using kernels::DType;
using kernels::HostMatrix;

// The exponent's bits, all set in NaN and infinity.
uint32_t ExponentMask(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0x7F800000;
    case DType::kF16:
      return 0x7C00;
    case DType::kBF16:
      return 0x7F80;
  }
  return 0;
}

// Index of the first value that is NaN or infinite, or -1.
int64_t FindNonFinite(const HostMatrix& m) {
  const uint32_t mask = ExponentMask(m.dtype);
  const size_t width = SizeOf(m.dtype);
  const char* at = static_cast<const char*>(m.data);
  for (int64_t i = 0; i < m.rows * m.cols; ++i, at += width) {
    uint32_t bits = 0;
    std::memcpy(&bits, at, width);
    if ((bits & mask) == mask) return i;
  }
  return -1;
}

absl::Status NotFinite(std::string_view name, int64_t row, int64_t col) {
  return absl::InvalidArgumentError(
      fmt::format("tensor {} is not finite at [{}, {}]", name, row, col));
}

// Reads tensors from the source and packs them, keeping count.
class Builder {
 public:
  Builder(const ModelConfig& config, TensorSource* source, kernels::Backend* backend,
          const WeightOptions& options)
      : source_(source), backend_(backend), options_(options), total_(CountWeights(config)) {}

  struct Part {
    std::string name;  // without ".weight" or ".bias"
    int64_t rows;
  };

  // The parts' weights, stacked, and their biases if there are any.
  absl::StatusOr<std::unique_ptr<kernels::Matrix>> Matrix(std::initializer_list<Part> parts,
                                                          int64_t cols, bool has_bias) {
    std::vector<HostMatrix> stacked;
    std::vector<float> bias;
    for (const Part& part : parts) {
      const std::string name = part.name + ".weight";
      LORAD_ASSIGN_OR_RETURN(HostMatrix m, source_->Matrix(name, part.rows, cols));
      LORAD_CHECK(m.rows == part.rows && m.cols == cols);
      if (options_.check_finite) {
        const int64_t bad = FindNonFinite(m);
        if (bad >= 0) return NotFinite(name, bad / cols, bad % cols);
      }
      stacked.push_back(m);
      done_ += static_cast<size_t>(m.rows * m.cols);
      if (!has_bias) continue;
      LORAD_ASSIGN_OR_RETURN(std::vector<float> values, Values(part.name + ".bias", part.rows));
      bias.insert(bias.end(), values.begin(), values.end());
    }
    std::unique_ptr<kernels::Matrix> packed = backend_->Pack(stacked, bias);
    const size_t bytes_each = SizeOf(stacked[0].dtype);
    source_->Release();
    if (options_.progress) options_.progress(done_ * bytes_each, total_ * bytes_each);
    return packed;
  }

  absl::StatusOr<std::unique_ptr<kernels::Vector>> Vector(const std::string& name, int64_t size) {
    LORAD_ASSIGN_OR_RETURN(std::vector<float> values, Values(name + ".weight", size));
    return backend_->NewVector(values);
  }

 private:
  absl::StatusOr<std::vector<float>> Values(const std::string& name, int64_t size) {
    LORAD_ASSIGN_OR_RETURN(std::vector<float> values, source_->Vector(name, size));
    LORAD_CHECK(static_cast<int64_t>(values.size()) == size);
    if (!options_.check_finite) return values;
    for (size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) return NotFinite(name, 0, static_cast<int64_t>(i));
    }
    return values;
  }

  TensorSource* const source_;
  kernels::Backend* const backend_;
  const WeightOptions& options_;
  const size_t total_;  // numbers
  size_t done_ = 0;
};

absl::Status BuildLayer(const ModelConfig& c, const std::string& prefix, Builder* builder,
                        LayerWeights* layer) {
  const std::string attention = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  LORAD_ASSIGN_OR_RETURN(layer->input_norm,
                         builder->Vector(prefix + "input_layernorm", c.hidden_size));
  LORAD_ASSIGN_OR_RETURN(layer->qkv, builder->Matrix({{attention + "q_proj", c.q_size()},
                                                      {attention + "k_proj", c.kv_size()},
                                                      {attention + "v_proj", c.kv_size()}},
                                                     c.hidden_size, c.qkv_bias));
  if (c.qk_norm) {
    LORAD_ASSIGN_OR_RETURN(layer->q_norm, builder->Vector(attention + "q_norm", c.head_dim));
    LORAD_ASSIGN_OR_RETURN(layer->k_norm, builder->Vector(attention + "k_norm", c.head_dim));
  }
  LORAD_ASSIGN_OR_RETURN(layer->output, builder->Matrix({{attention + "o_proj", c.hidden_size}},
                                                        c.q_size(), c.output_bias));
  LORAD_ASSIGN_OR_RETURN(layer->ffn_norm,
                         builder->Vector(prefix + "post_attention_layernorm", c.hidden_size));
  LORAD_ASSIGN_OR_RETURN(layer->gate_up, builder->Matrix({{mlp + "gate_proj", c.ffn_size},
                                                          {mlp + "up_proj", c.ffn_size}},
                                                         c.hidden_size, c.mlp_bias));
  LORAD_ASSIGN_OR_RETURN(
      layer->down, builder->Matrix({{mlp + "down_proj", c.hidden_size}}, c.ffn_size, c.mlp_bias));
  return absl::OkStatus();
}

}  // namespace

size_t ModelWeights::bytes() const {
  size_t bytes = embedding->bytes() + (own_head ? own_head->bytes() : 0);
  for (const LayerWeights& layer : layers) {
    bytes +=
        layer.qkv->bytes() + layer.output->bytes() + layer.gate_up->bytes() + layer.down->bytes();
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<ModelWeights>> BuildWeights(const ModelConfig& config,
                                                           TensorSource* source,
                                                           kernels::Backend* backend,
                                                           const WeightOptions& options) {
  Builder builder(config, source, backend, options);
  auto weights = std::make_unique<ModelWeights>();
  LORAD_ASSIGN_OR_RETURN(weights->embedding,
                         builder.Matrix({{"model.embed_tokens", config.vocab_size}},
                                        config.hidden_size, /*has_bias=*/false));
  weights->layers.resize(static_cast<size_t>(config.layers));
  for (int i = 0; i < config.layers; ++i) {
    LORAD_RETURN_IF_ERROR(BuildLayer(config, fmt::format("model.layers.{}.", i), &builder,
                                     &weights->layers[static_cast<size_t>(i)]));
  }
  LORAD_ASSIGN_OR_RETURN(weights->final_norm, builder.Vector("model.norm", config.hidden_size));
  if (!config.tie_embeddings) {
    LORAD_ASSIGN_OR_RETURN(weights->own_head,
                           builder.Matrix({{"lm_head", config.vocab_size}}, config.hidden_size,
                                          /*has_bias=*/false));
  }
  weights->inv_freq = backend->NewVector(config.inv_freq);
  return weights;
}

size_t CountWeights(const ModelConfig& config) {
  const auto hidden = static_cast<size_t>(config.hidden_size);
  const auto rows = static_cast<size_t>(config.qkv_size() + config.q_size() + 3 * config.ffn_size);
  const size_t tables = config.tie_embeddings ? 1 : 2;
  return hidden * (rows * static_cast<size_t>(config.layers) +
                   tables * static_cast<size_t>(config.vocab_size));
}

}  // namespace lorad
