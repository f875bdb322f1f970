// DecoderRig: a tiny model with dummy weights on the CUDA backend, its adapters and sequences in
// scattered pages of one pool, run step by step below the executor: what tests of whole steps
// share.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "model/decoder.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace lorad::kernels::cuda {

struct DecoderRigOptions {
  uint64_t seed = 1;   // of the order of emulated streams
  size_t graphs = 64;  // kept; 0: none
  uint32_t pages = 400;
  KvFormat kv_format = KvFormat::kBf16;
};

class DecoderRig {
 public:
  static constexpr int kPageTokens = 16;
  static constexpr int kMaxRows = 90;
  static constexpr int kMaxSequences = 22;

  // REQUIRES: there is a device (NewTestRuntime).
  explicit DecoderRig(const DecoderRigOptions& options = {});
  ~DecoderRig();

  CudaBackend& backend() { return *backend_; }
  const ModelConfig& config() const { return config_; }

  // --- Adapters: of every projection and the head ---
  struct Adapter {
    AdapterLayout layout;
    std::vector<uint32_t> pages;
    std::unique_ptr<Buffer> image;  // pinned, while a transfer may read it
    std::unique_ptr<AdapterTransfer> transfer;
  };
  // Packed straight into fresh pages.
  int AddAdapter(uint32_t rank, uint64_t seed);
  // Staged, and on its way to fresh pages.
  int StartAdapter(uint32_t rank, uint64_t seed);
  Adapter& adapter(int index) { return *adapters_[size_t(index)]; }
  // Its pages are poisoned and used again.
  void DropAdapter(int index);

  // --- Sequences ---
  struct Sequence {
    std::vector<int32_t> tokens;  // an id of -1 - k: token k that the last step sampled
    std::vector<uint32_t> pages;
    int adapter = -1;
    float weight = 1.0f;
  };
  // The next tokens of one sequence.
  struct Advance {
    int sequence = 0;
    std::vector<int32_t> tokens;
  };
  int AddSequence(int adapter, float weight = 1.0f);
  const Sequence& sequence(int index) const { return sequences_[size_t(index)]; }
  void DropSequence(int index);

  // Gives the step's operations to the backend: all layers, and the logits of each part's last row,
  // in the order of `parts`. The lists stay as they are until the next Record but one.
  void Record(std::span<const Advance> parts);
  std::span<const float> Logits(int part);  // waits
  // Record, and all logits, [parts][vocab].
  std::vector<std::vector<float>> Step(std::span<const Advance> parts);
  // Samples the step's parts, the likeliest token each, and ends the step. Token `place(part)` of
  // the step is a part's.
  uint64_t SampleAndEnd();
  int place(int part) const { return lists_->place[size_t(part)]; }

 private:
  // What a step's operations read while it is under way.
  struct Lists {
    std::vector<int32_t> tokens, positions, last_rows;
    std::vector<SequenceRows> sequences;
    std::vector<std::vector<uint32_t>> pages;
    std::vector<AdapterSegment> segments, logit_segments;
    std::vector<SampleRow> sample_rows;
    std::vector<int> place;  // of each part among the step's sequences
  };
  std::vector<uint32_t> TakePages(uint32_t count);
  void GiveBack(std::span<const uint32_t> pages);
  int Stage(uint32_t rank, uint64_t seed, bool start);

  const ModelConfig config_;
  std::unique_ptr<CudaBackend> backend_;
  std::unique_ptr<Buffer> pool_;
  PageSlab slab_;
  std::vector<uint32_t> free_;
  std::unique_ptr<ModelWeights> weights_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<std::unique_ptr<Adapter>> adapters_;
  std::vector<Sequence> sequences_;
  Lists both_lists_[2];
  Lists* lists_ = &both_lists_[0];
};

}  // namespace lorad::kernels::cuda
