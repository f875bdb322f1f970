// DecoderExecutor: the Executor that runs the real model. It lays a step's sequences out as rows,
// those of one adapter next to each other, runs the Decoder over them, and samples or scores the
// rows that ask for it: on the device what it can draw, the rest on the backend's host threads.
//
// As one rank of a tensor-parallel model it runs its share of every step (model/shard.h). Rank 0
// scores, samples on the host and gives the results for all; what the device draws every rank draws
// for itself from the same logits.
//
// Thread: the engine's only. A result is a function of the sequence's own input: what else is in
// the step changes nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "model/decoder.h"
#include "model/executor.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace lorad {

struct DecoderExecutorOptions {
  ExecutorLimits limits = {};
  // Rows of logits computed at a time (long prompts that are scored go through in several such
  // chunks); 0: max_sequences.
  int max_logit_rows = 0;
  int page_tokens = 16;  // of the KV geometry that the backend's pool was set with
};

class DecoderExecutor final : public Executor {
 public:
  // `config` is the whole model's, `weights` are this rank's; a null `ranks` means that there are
  // no others. REQUIRES: `backend` and `ranks` outlive this; the backend's pool is set before the
  // first step.
  DecoderExecutor(const ModelConfig& config, std::unique_ptr<const ModelWeights> weights,
                  kernels::Backend* backend, const DecoderExecutorOptions& options,
                  kernels::Communicator* ranks = nullptr);

  // Of other ranks than 0 the results are empty. Aborted: another rank failed.
  absl::Status Submit(const StepInput& input) override;
  absl::Status Collect(std::vector<SequenceResult>* results) override;
  bool Overlaps() const override { return backend_->Samples(); }
  bool CanDraw(const SamplingParams& params) const override;
  void PoisonPages(std::span<const uint32_t> pages) override { backend_->PoisonPages(pages); }

  // The logits of every token of the step, in the order of the input: [tokens, vocab]; of other
  // ranks than 0 zeros. For tests and tools that compare models; samplers and targets are ignored.
  // Writes KV pages as Execute does. REQUIRES: the device works.
  std::vector<float> AllLogits(const StepInput& input);

  size_t weight_bytes() const { return weights_->bytes(); }
  // At most: a backend may hold activations in fewer bits.
  size_t activation_bytes() const;

 private:
  // A row whose logits are wanted, and what for.
  struct LogitRow {
    int row;
    int sequence;    // index in the input
    int score;       // index in the result's scores, -1: not scored
    TokenId target;  // to score
    bool sample;
  };

  // Rows that go through the head together.
  struct GatheredRows {
    std::vector<int32_t> rows;
    std::vector<kernels::AdapterSegment> segments;  // over 0 .. rows.size()
  };
  // A step that was submitted and not collected.
  struct StepUnderWay {
    StepInput input;           // its spans: only while there are host rows
    uint64_t number = 0;       // of the backend's step; 0: it has not ended
    std::vector<int> draw_of;  // [sequences] index among the drawn tokens, -1: none
    size_t draws = 0;
    bool host_rows = false;
  };

  void PlanStep(const StepInput& input);
  void CheckSequence(const SequenceInput& sequence) const;
  void AddRows(const SequenceInput& sequence);
  void AddToSegment(const SequenceInput& sequence, int first_row);
  // The token that stands for a row's: its own, or what the step before draws.
  TokenId TokenOf(const SequenceInput& sequence, size_t i) const;
  // Rows to draw from go to draw_rows_, all others to logit_rows_.
  void ListLogitRows(const StepInput& input, StepUnderWay* step);
  void Draw(const StepInput& input);
  void SampleOnHost(const StepInput& input, std::vector<SequenceResult>* results);
  // Computes the logits of `rows`, which are by row, through `lists`.
  void ComputeLogits(std::span<const LogitRow> rows, GatheredRows* lists);
  // fn(const LogitRow&, logits), from several threads; not on other ranks than 0.
  template <typename Fn>
  void ForEachLogitRow(const Fn& fn);
  absl::Status GroupStatus() const;
  // False: another rank samples and scores, or the group is broken and there is nothing to sample.
  bool HasLogits() const;

  const Shard shard_;
  const ModelConfig config_;  // this rank's
  const std::unique_ptr<const ModelWeights> weights_;
  kernels::Backend* const backend_;
  kernels::Communicator* const ranks_;  // null: no others
  const DecoderExecutorOptions options_;
  Decoder decoder_;

  std::deque<StepUnderWay> under_way_;  // oldest first

  // The step that is being submitted; members so that their memory is reused.
  std::vector<int> order_;      // input indices in row order
  std::vector<int> first_row_;  // [sequences] by input index
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<kernels::SequenceRows> sequences_;
  std::vector<kernels::AdapterSegment> segments_;
  std::vector<LogitRow> logit_rows_;  // by row: for the host
  std::vector<LogitRow> draw_rows_;   // by row: for the device
  std::vector<kernels::SampleRow> sample_rows_;
  // Two, for the backend may read the lists of the drawn rows late.
  GatheredRows drawn_, for_host_;
  std::vector<std::span<const float>> host_logits_;
};

// The pages that this model's sequences need (of a rank: ShardOf).
kernels::KvGeometry KvGeometryOf(const ModelConfig& config, int page_tokens);

}  // namespace lorad
