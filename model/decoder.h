// Decoder: the forward pass of a Llama-family model (Llama, Mistral, Qwen2, Qwen3) over a backend's
// operations. One batch of rows goes through all layers; logits are then made for the rows that
// need them. Owns the activations, allocated once.
//
// As one rank of a tensor-parallel model it computes its heads and its share of the feed-forward
// block; hidden states are everybody's, added up after `output` and after `down`, and every rank
// gets all logits. The ranks must be given the same calls.
//
// Thread: the engine's only. It does NOT know requests or sampling, and the pages it writes keys
// and values to are the caller's.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/backend.h"
#include "kernels/communicator.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace lorad {

// The rows of one step. Row i computes tokens[i] at positions[i] of its sequence.
struct DecoderBatch {
  std::span<const int32_t> tokens;                    // [rows]
  std::span<const int32_t> positions;                 // [rows]
  std::span<const kernels::SequenceRows> sequences;   // cover all rows
  std::span<const kernels::AdapterSegment> segments;  // by row

  int rows() const { return static_cast<int>(tokens.size()); }
};

class Decoder {
 public:
  // All are borrowed. `config` and `weights` are this rank's (ShardOf); a null `ranks` means that
  // there are no others.
  Decoder(const ModelConfig& config, const ModelWeights& weights, kernels::Backend* backend,
          kernels::Communicator* ranks, int max_rows, int max_logit_rows);

  // Runs all layers: keys and values go to the pages, the last hidden states stay here for
  // Logits(). REQUIRES: 1 <= rows <= max_rows, tokens are in the vocabulary.
  void Forward(const DecoderBatch& batch);

  // Computes the logits of `rows` of the last batch. `segments` are over 0 .. rows.size(), not over
  // the batch. REQUIRES: 1 <= rows.size() <= max_logit_rows.
  void Logits(std::span<const int32_t> rows, std::span<const kernels::AdapterSegment> segments);

  // Draws tokens from rows of the last Logits().  REQUIRES: the backend Samples().
  void Sample(std::span<const kernels::SampleRow> rows) { backend_->Sample(*logits_, rows); }

  // Row `i` of the last Logits(), fp32 [vocab]; valid until the next call of Forward or Logits.
  std::span<const float> LogitRow(int i) { return backend_->HostRow(*logits_, i); }

  const kernels::Tensor& logits() const { return *logits_; }  // of the last Logits(), by row

  int max_rows() const { return hidden_->max_rows(); }
  int max_logit_rows() const { return logits_->max_rows(); }

  // Numbers in the activations of a decoder of these limits, one of `ranks`.
  static size_t CountActivations(const ModelConfig& config, int ranks, int max_rows,
                                 int max_logit_rows);

 private:
  void Layer(int index, const DecoderBatch& batch);
  void Attention(int index, const DecoderBatch& batch);
  void FeedForward(int index, const DecoderBatch& batch);
  // One linear layer with the adapters' corrections.
  void Linear(const kernels::Tensor& x, const kernels::Matrix& w, kernels::Tensor* y, int rows,
              uint32_t site, std::span<const kernels::AdapterSegment> segments,
              bool accumulate = false);
  // The same, added to the hidden states; of several ranks each computes a part of the sum.
  void AddToHidden(const kernels::Tensor& x, const kernels::Matrix& w, int rows, uint32_t site,
                   std::span<const kernels::AdapterSegment> segments);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  kernels::Backend* const backend_;
  kernels::Communicator* const ranks_;  // null: no others
  const kernels::AttentionShape shape_;

  // [max_rows, ...]
  std::unique_ptr<kernels::Tensor> hidden_;   // hidden: the residual stream
  std::unique_ptr<kernels::Tensor> normed_;   // hidden
  std::unique_ptr<kernels::Tensor> qkv_;      // q_size + 2 * kv_size
  std::unique_ptr<kernels::Tensor> angles_;   // head_dim
  std::unique_ptr<kernels::Tensor> heads_;    // q_size: what attention gives
  std::unique_ptr<kernels::Tensor> gate_up_;  // 2 * ffn
  std::unique_ptr<kernels::Tensor> inner_;    // ffn
  // [max_logit_rows, ...]
  std::unique_ptr<kernels::Tensor> last_hidden_;  // hidden
  std::unique_ptr<kernels::Tensor> last_normed_;  // hidden
  std::unique_ptr<kernels::Tensor> logits_;       // vocab
  std::unique_ptr<kernels::Tensor> own_logits_;   // HeadRows: this rank's; null: no others
};

}  // namespace lorad
