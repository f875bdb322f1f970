#include "model/decoder.h"

#include <cmath>

#include "memory/base/check.h"
#include "model/sites.h"

namespace lorad {

Decoder::Decoder(const ModelConfig& config, const ModelWeights& weights, kernels::Backend* backend,
                 kernels::Communicator* ranks, int max_rows, int max_logit_rows)
    : config_(config),
      weights_(weights),
      backend_(backend),
      ranks_(ranks),
      shape_{config.heads, config.kv_heads, config.head_dim,
             1.0f / std::sqrt(static_cast<float>(config.head_dim)), config.sliding_window},
      hidden_(backend->NewTensor(max_rows, config.hidden_size, kernels::Precision::kFull)),
      normed_(backend->NewTensor(max_rows, config.hidden_size)),
      qkv_(backend->NewTensor(max_rows, config.qkv_size())),
      angles_(backend->NewTensor(max_rows, config.head_dim, kernels::Precision::kFull)),
      heads_(backend->NewTensor(max_rows, config.q_size())),
      gate_up_(backend->NewTensor(max_rows, 2 * config.ffn_size)),
      inner_(backend->NewTensor(max_rows, config.ffn_size)),
      last_hidden_(
          backend->NewTensor(max_logit_rows, config.hidden_size, kernels::Precision::kFull)),
      last_normed_(backend->NewTensor(max_logit_rows, config.hidden_size)),
      logits_(backend->NewTensor(max_logit_rows, config.vocab_size, kernels::Precision::kFull)) {
  if (ranks_ == nullptr) return;
  own_logits_ =
      backend->NewTensor(max_logit_rows, weights_.head().rows(), kernels::Precision::kFull);
}

void Decoder::Forward(const DecoderBatch& batch) {
  LORAD_CHECK(batch.rows() >= 1 && batch.rows() <= max_rows());
  LORAD_CHECK(batch.positions.size() == batch.tokens.size());
  backend_->Embed(batch.tokens, *weights_.embedding, *hidden_);
  backend_->RopeAngles(batch.positions, *weights_.inv_freq, *angles_);
  for (int i = 0; i < config_.layers; ++i) Layer(i, batch);
}

void Decoder::Layer(int index, const DecoderBatch& batch) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(index)];
  backend_->RmsNorm(batch.rows(), *hidden_, *w.input_norm, config_.rms_norm_eps, *normed_);
  Attention(index, batch);
  backend_->RmsNorm(batch.rows(), *hidden_, *w.ffn_norm, config_.rms_norm_eps, *normed_);
  FeedForward(index, batch);
}

// hidden += output(attention(qkv(normed)))
void Decoder::Attention(int index, const DecoderBatch& batch) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(index)];
  const int rows = batch.rows();
  Linear(*normed_, *w.qkv, qkv_.get(), rows, SiteIndex(index, LayerSite::kQkv), batch.segments);
  backend_->RopeAppend({.rows = rows,
                        .layer = index,
                        .shape = shape_,
                        .qkv = qkv_.get(),
                        .angles = angles_.get(),
                        .q_norm = w.q_norm.get(),
                        .k_norm = w.k_norm.get(),
                        .norm_eps = config_.rms_norm_eps,
                        .sequences = batch.sequences});
  backend_->Attention({.rows = rows,
                       .layer = index,
                       .shape = shape_,
                       .qkv = qkv_.get(),
                       .out = heads_.get(),
                       .sequences = batch.sequences});
  AddToHidden(*heads_, *w.output, rows, SiteIndex(index, LayerSite::kOutput), batch.segments);
}

// hidden += down(silu(gate(normed)) * up(normed))
void Decoder::FeedForward(int index, const DecoderBatch& batch) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(index)];
  const int rows = batch.rows();
  Linear(*normed_, *w.gate_up, gate_up_.get(), rows, SiteIndex(index, LayerSite::kGateUp),
         batch.segments);
  backend_->SwiGlu(rows, *gate_up_, *inner_);
  AddToHidden(*inner_, *w.down, rows, SiteIndex(index, LayerSite::kDown), batch.segments);
}

void Decoder::Logits(std::span<const int32_t> rows,
                     std::span<const kernels::AdapterSegment> segments) {
  const int count = static_cast<int>(rows.size());
  LORAD_CHECK(count >= 1 && count <= max_logit_rows());
  backend_->GatherRows(rows, *hidden_, *last_hidden_);
  backend_->RmsNorm(count, *last_hidden_, *weights_.final_norm, config_.rms_norm_eps,
                    *last_normed_);
  kernels::Tensor* const out = ranks_ == nullptr ? logits_.get() : own_logits_.get();
  Linear(*last_normed_, weights_.head(), out, count, LmHeadSite(config_), segments);
  if (ranks_ != nullptr) ranks_->AllGather(*own_logits_, *logits_, count);
}

// All ranks' hidden states are equal before, so that one of them adds its part to them and the
// others give theirs alone.
void Decoder::AddToHidden(const kernels::Tensor& x, const kernels::Matrix& w, int rows,
                          uint32_t site, std::span<const kernels::AdapterSegment> segments) {
  const bool accumulate = ranks_ == nullptr || ranks_->rank() == 0;
  Linear(x, w, hidden_.get(), rows, site, segments, accumulate);
  if (ranks_ != nullptr) ranks_->AllReduce(*hidden_, rows);
}

void Decoder::Linear(const kernels::Tensor& x, const kernels::Matrix& w, kernels::Tensor* y,
                     int rows, uint32_t site, std::span<const kernels::AdapterSegment> segments,
                     bool accumulate) {
  backend_->Linear({.rows = rows,
                    .x = &x,
                    .w = &w,
                    .y = y,
                    .accumulate = accumulate,
                    .site = site,
                    .segments = segments});
}

size_t Decoder::CountActivations(const ModelConfig& config, int ranks, int max_rows,
                                 int max_logit_rows) {
  const int row = 2 * config.hidden_size + config.qkv_size() + config.head_dim + config.q_size() +
                  3 * config.ffn_size;
  const int own_logits = ranks == 1 ? 0 : HeadRows(config, ranks);
  const int logit_row = 2 * config.hidden_size + config.vocab_size + own_logits;
  return static_cast<size_t>(max_rows) * static_cast<size_t>(row) +
         static_cast<size_t>(max_logit_rows) * static_cast<size_t>(logit_row);
}

}  // namespace lorad
