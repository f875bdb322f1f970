// Executor: runs planned steps of the model on a device. The engine says what to run (StepInput),
// the executor returns the tokens (SequenceResult). It owns weights and activations; it does NOT
// own pages, choose what runs, or remember sequences: everything it needs of a sequence is in the
// input.
//
// A step is submitted and its results are collected. With an executor that overlaps, a second step
// may be submitted before the first is collected, and go on with tokens that the first has not
// given yet: the host prepares a step while the device runs the one before. Steps run in the order
// in which they were submitted.
//
// Thread: the engine's only, except where a method says otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/types.h"
#include "model/adapter_image.h"
#include "model/sampling.h"

namespace lorad {

// An adapter as the executor sees it: where its image lies. Borrowed for the step. Without pages it
// changes nothing.
struct AdapterUse {
  const AdapterImage* image = nullptr;
  std::span<const uint32_t> pages;
  float weight = 1.0f;
  const ImageTransfer* transfer = nullptr;  // into these pages; null: all of it is there
};

// Some consecutive tokens of one sequence.
struct SequenceInput {
  std::span<const TokenId> tokens = {};     // to be computed this step, at least one
  int first_position = 0;                   // of tokens[0]; all before it are in the KV pages
  std::span<const uint32_t> kv_pages = {};  // cover every position up to the last token's
  std::span<const AdapterUse> adapters =
      {};  // ordered list; empty: the base model. At most one for now.
  const Sampler* sampler =
      nullptr;           // sample after the last token; null: prefill that is not finished
  int sample_index = 0;  // output index of that sample
  // If not -1: the one token to be computed is what the step submitted before this one samples for
  // its sequence of this index, with a sampler that CanDraw; tokens[0] says nothing.
  int token_from_previous = -1;
  // Prompt scoring: if score_targets is not empty it has one entry a token of `tokens`: the token
  // whose log-probability is wanted at that position (the next one), or -1 for none.
  std::span<const TokenId> score_targets = {};
  int score_top = 0;  // likeliest alternatives at each scored position
};

struct StepInput {
  std::span<const SequenceInput> sequences;
  // Made before anything else: pages that sequences of this step go on writing.
  std::span<const kernels::PageCopy> page_copies = {};
};

struct SequenceResult {
  std::optional<SampledToken> sample;
  std::vector<SampledToken> scores;  // one a target that is not -1, in order
};

struct ExecutorLimits {
  int max_rows = 2048;      // tokens in a step
  int max_sequences = 256;  // in a step
};

class Executor {
 public:
  virtual ~Executor() = default;

  // An error of either means that the device is broken: nothing that was not collected made
  // progress and the caller must stop serving.
  //
  // Queues a step. What the input refers to may change afterwards if the executor overlaps and can
  // draw every sample of the step; else it must stay until the step is collected, before another is
  // submitted.
  virtual absl::Status Submit(const StepInput& input) = 0;
  // Waits for the oldest step that was submitted and not collected. results[i] belongs to
  // input.sequences[i]; the executor resizes it.
  virtual absl::Status Collect(std::vector<SequenceResult>* results) = 0;
  absl::Status Execute(const StepInput& input, std::vector<SequenceResult>* results) {
    if (absl::Status status = Submit(input); !status.ok()) return status;
    return Collect(results);
  }

  // True: two steps may be under way, the elder without anything to score and with samples that can
  // be drawn. False: every step is collected before the next is submitted.
  virtual bool Overlaps() const { return false; }
  // Whether a sample with such parameters is drawn on the device.
  virtual bool CanDraw(const SamplingParams& /*params*/) const { return false; }

  // For tests and debugging: spoils pages that nobody holds, so that whoever reads them is found.
  virtual void PoisonPages(std::span<const uint32_t> /*pages*/) {}
};

}  // namespace lorad
