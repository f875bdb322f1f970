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
#include "model/matrix_slice.h"

namespace lorad {
namespace {

using kernels::DType;
using kernels::HostMatrix;
using kernels::WeightFormat;

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

WeightFormat HeadFormat(const ModelConfig& config, WeightFormat layers) {
  const bool fine = layers == WeightFormat::kInt8 && !config.tie_embeddings;
  return fine ? WeightFormat::kInt8 : WeightFormat::kBf16;
}

// Reads tensors from the source and packs the shard's part of them, keeping count.
class Builder {
 public:
  Builder(const ModelConfig& config, TensorSource* source, kernels::Backend* backend,
          const WeightOptions& options)
      : source_(source),
        backend_(backend),
        options_(options),
        total_(CountWeights(config, options.shard)) {}

  struct Part {
    std::string name;  // without ".weight" or ".bias"
    int64_t rows;
    Share own;  // of the rows: the shard's
  };

  // What the shard has of the parts, stacked, and of their biases if there are any. Where the
  // columns are split, the rank with the first ones adds the bias.
  absl::StatusOr<std::unique_ptr<kernels::Matrix>> Matrix(std::initializer_list<Part> parts,
                                                          int64_t cols, const Share& own_cols,
                                                          bool has_bias) {
    return Matrix(parts, cols, own_cols, has_bias, options_.format);
  }
  absl::StatusOr<std::unique_ptr<kernels::Matrix>> Matrix(std::initializer_list<Part> parts,
                                                          int64_t cols, const Share& own_cols,
                                                          bool has_bias, WeightFormat format) {
    std::vector<HostMatrix> stacked;
    std::vector<float> bias;
    for (const Part& part : parts) {
      LORAD_ASSIGN_OR_RETURN(HostMatrix m, Slice(part, cols, own_cols));
      stacked.push_back(m);
      if (!has_bias) continue;
      LORAD_ASSIGN_OR_RETURN(std::vector<float> values, Values(part.name + ".bias", part.rows));
      const auto first = values.begin() + part.own.begin;
      if (own_cols.begin == 0) bias.insert(bias.end(), first, first + part.own.count);
    }
    return Pack(stacked, bias, format);
  }

  // The shard's rows of a table of the vocabulary, and zeros to make all shards equal.
  absl::StatusOr<std::unique_ptr<kernels::Matrix>> Head(const std::string& name,
                                                        const ModelConfig& config) {
    const int64_t cols = config.hidden_size;
    const Share own = HeadShare(config, options_.shard);
    LORAD_ASSIGN_OR_RETURN(HostMatrix m, Slice({name, config.vocab_size, own}, cols, {0, cols}));
    const int64_t missing = HeadRows(config, options_.shard.size) - m.rows;
    const std::vector<std::byte> zeros(static_cast<size_t>(missing * cols) * SizeOf(m.dtype));
    std::vector<HostMatrix> stacked;
    if (m.rows > 0) stacked.push_back(m);
    if (missing > 0) stacked.push_back({m.dtype, zeros.data(), missing, cols});
    done_ += static_cast<size_t>(missing * cols);
    return Pack(stacked, {}, HeadFormat(config, options_.format));
  }

  absl::StatusOr<std::unique_ptr<kernels::Vector>> Vector(const std::string& name, int64_t size) {
    LORAD_ASSIGN_OR_RETURN(std::vector<float> values, Values(name + ".weight", size));
    return backend_->NewVector(values);
  }

 private:
  // The shard's part of a tensor of the source; lives until Pack.
  absl::StatusOr<HostMatrix> Slice(const Part& part, int64_t cols, const Share& own_cols) {
    const std::string name = part.name + ".weight";
    LORAD_ASSIGN_OR_RETURN(HostMatrix m, source_->Matrix(name, part.rows, cols));
    LORAD_CHECK(m.rows == part.rows && m.cols == cols);
    m = SliceRows(m, part.own.begin, part.own.count);
    if (own_cols.count < cols) {
      m = CopyColumns(m, own_cols.begin, own_cols.count, &copies_.emplace_back());
    }
    done_ += static_cast<size_t>(m.rows * m.cols);
    if (!options_.check_finite) return m;
    const int64_t bad = FindNonFinite(m);
    if (bad < 0) return m;
    return NotFinite(name, part.own.begin + bad / m.cols, own_cols.begin + bad % m.cols);
  }

  std::unique_ptr<kernels::Matrix> Pack(std::span<const HostMatrix> stacked,
                                        std::span<const float> bias, WeightFormat format) {
    std::unique_ptr<kernels::Matrix> packed = backend_->Pack(stacked, bias, format);
    const size_t bytes_each = SizeOf(stacked[0].dtype);
    copies_.clear();
    source_->Release();
    if (options_.progress) options_.progress(done_ * bytes_each, total_ * bytes_each);
    return packed;
  }

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
  std::vector<std::vector<std::byte>> copies_;  // of columns, since the last Pack
};

absl::Status BuildLayer(const ModelConfig& c, const Shard& shard, const std::string& prefix,
                        Builder* builder, LayerWeights* layer) {
  const std::string attention = prefix + "self_attn.";
  const std::string mlp = prefix + "mlp.";
  const Share hidden = {0, c.hidden_size};
  const Share q = QShare(c, shard), kv = KvShare(c, shard), ffn = FfnShare(c, shard);
  LORAD_ASSIGN_OR_RETURN(layer->input_norm,
                         builder->Vector(prefix + "input_layernorm", c.hidden_size));
  LORAD_ASSIGN_OR_RETURN(layer->qkv, builder->Matrix({{attention + "q_proj", c.q_size(), q},
                                                      {attention + "k_proj", c.kv_size(), kv},
                                                      {attention + "v_proj", c.kv_size(), kv}},
                                                     c.hidden_size, hidden, c.qkv_bias));
  if (c.qk_norm) {
    LORAD_ASSIGN_OR_RETURN(layer->q_norm, builder->Vector(attention + "q_norm", c.head_dim));
    LORAD_ASSIGN_OR_RETURN(layer->k_norm, builder->Vector(attention + "k_norm", c.head_dim));
  }
  LORAD_ASSIGN_OR_RETURN(
      layer->output, builder->Matrix({{attention + "o_proj", c.hidden_size, hidden}}, c.q_size(), q,
                                     c.output_bias));
  LORAD_ASSIGN_OR_RETURN(layer->ffn_norm,
                         builder->Vector(prefix + "post_attention_layernorm", c.hidden_size));
  LORAD_ASSIGN_OR_RETURN(layer->gate_up, builder->Matrix({{mlp + "gate_proj", c.ffn_size, ffn},
                                                          {mlp + "up_proj", c.ffn_size, ffn}},
                                                         c.hidden_size, hidden, c.mlp_bias));
  LORAD_ASSIGN_OR_RETURN(layer->down, builder->Matrix({{mlp + "down_proj", c.hidden_size, hidden}},
                                                      c.ffn_size, ffn, c.mlp_bias));
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
  LORAD_CHECK(backend->Supports(options.format));
  Builder builder(config, source, backend, options);
  auto weights = std::make_unique<ModelWeights>();
  const Share all_tokens = {0, config.vocab_size}, hidden = {0, config.hidden_size};
  LORAD_ASSIGN_OR_RETURN(
      weights->embedding,
      builder.Matrix({{"model.embed_tokens", config.vocab_size, all_tokens}}, config.hidden_size,
                     hidden, /*has_bias=*/false, WeightFormat::kBf16));
  weights->layers.resize(static_cast<size_t>(config.layers));
  for (int i = 0; i < config.layers; ++i) {
    LORAD_RETURN_IF_ERROR(BuildLayer(config, options.shard, fmt::format("model.layers.{}.", i),
                                     &builder, &weights->layers[static_cast<size_t>(i)]));
  }
  LORAD_ASSIGN_OR_RETURN(weights->final_norm, builder.Vector("model.norm", config.hidden_size));
  if (!config.tie_embeddings || !options.shard.whole()) {
    LORAD_ASSIGN_OR_RETURN(
        weights->own_head,
        builder.Head(config.tie_embeddings ? "model.embed_tokens" : "lm_head", config));
  }
  weights->inv_freq = backend->NewVector(config.inv_freq);
  return weights;
}

size_t CountWeights(const ModelConfig& config, const Shard& shard) {
  const ModelConfig part = ShardOf(config, shard);
  const auto rows = static_cast<size_t>(part.qkv_size() + part.q_size() + 3 * part.ffn_size);
  const bool own_head = !config.tie_embeddings || !shard.whole();
  const int table_rows = config.vocab_size + (own_head ? HeadRows(config, shard.size) : 0);
  return static_cast<size_t>(config.hidden_size) *
         (rows * static_cast<size_t>(config.layers) + static_cast<size_t>(table_rows));
}

}  // namespace lorad
