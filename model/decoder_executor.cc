#include "model/decoder_executor.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "memory/base/check.h"

namespace lorad {
namespace {

int LogitRowsOf(const DecoderExecutorOptions& options) {
  return options.max_logit_rows > 0 ? options.max_logit_rows : options.limits.max_sequences;
}

// The adapter of a sequence, null for the base model. The same on every rank, whatever a rank's
// share is, because the order of rows depends on it.
const AdapterUse* AdapterOf(const SequenceInput& sequence) {
  if (sequence.adapters.empty() || sequence.adapters[0].pages.empty()) return nullptr;
  return &sequence.adapters[0];
}

// Equal for sequences that can share a segment; base sequences come last. An image is known by its
// first page.
std::tuple<bool, uint32_t, float> SegmentKey(const SequenceInput& sequence) {
  const AdapterUse* use = AdapterOf(sequence);
  if (use == nullptr) return {true, 0, 0.0f};
  return {false, use->pages[0], use->weight};
}

bool SameSegment(const kernels::AdapterSegment& segment, const kernels::AdapterLayout& layout,
                 const AdapterUse& use) {
  return segment.layout == &layout && segment.weight == use.weight &&
         segment.pages[0] == use.pages[0];
}

}  // namespace

DecoderExecutor::DecoderExecutor(const ModelConfig& config,
                                 std::unique_ptr<const ModelWeights> weights,
                                 kernels::Backend* backend, const DecoderExecutorOptions& options,
                                 kernels::Communicator* ranks)
    : shard_(ranks == nullptr ? Shard{} : Shard{ranks->rank(), ranks->size()}),
      config_(ShardOf(config, shard_)),
      weights_(std::move(weights)),
      backend_(backend),
      ranks_(ranks),
      options_(options),
      decoder_(config_, *weights_, backend, ranks, options.limits.max_rows, LogitRowsOf(options)) {}

absl::Status DecoderExecutor::Execute(const StepInput& input,
                                      std::vector<SequenceResult>* results) {
  results->resize(input.sequences.size());
  if (input.sequences.empty()) return absl::OkStatus();
  PlanStep(input);
  backend_->CopyPages(input.page_copies);
  decoder_.Forward({tokens_, positions_, sequences_, segments_});
  ListLogitRows(input, results);
  ForEachLogitRow([&](const LogitRow& row, std::span<const float> logits) {
    const SequenceInput& sequence = input.sequences[static_cast<size_t>(row.sequence)];
    SequenceResult& result = (*results)[static_cast<size_t>(row.sequence)];
    if (row.score >= 0) {
      result.scores[static_cast<size_t>(row.score)] =
          ScoreToken(logits, row.target, sequence.score_top);
    }
    if (row.sample) result.sample = sequence.sampler->Sample(logits, sequence.sample_index);
  });
  return ranks_ == nullptr ? absl::OkStatus() : ranks_->status();
}

std::vector<float> DecoderExecutor::AllLogits(const StepInput& input) {
  PlanStep(input);
  backend_->CopyPages(input.page_copies);
  decoder_.Forward({tokens_, positions_, sequences_, segments_});

  // Where each sequence's logits start in the output, in tokens.
  std::vector<size_t> starts;
  size_t total = 0;
  for (const SequenceInput& sequence : input.sequences) {
    starts.push_back(total);
    total += sequence.tokens.size();
  }
  logit_rows_.clear();
  for (int index : order_) {
    const int count = static_cast<int>(input.sequences[static_cast<size_t>(index)].tokens.size());
    for (int i = 0; i < count; ++i) {
      logit_rows_.push_back({first_row_[static_cast<size_t>(index)] + i, index, -1, -1, false});
    }
  }
  const auto vocab = static_cast<size_t>(config_.vocab_size);
  std::vector<float> all(total * vocab);
  ForEachLogitRow([&](const LogitRow& row, std::span<const float> logits) {
    const auto index = static_cast<size_t>(row.sequence);
    const size_t token = starts[index] + static_cast<size_t>(row.row - first_row_[index]);
    std::copy(logits.begin(), logits.end(), all.begin() + static_cast<int64_t>(token * vocab));
  });
  // Other ranks than 0 have not waited for anything yet.
  const absl::Status status = backend_->WaitForStep(backend_->EndStep());
  LORAD_CHECK(status.ok());
  return all;
}

void DecoderExecutor::PlanStep(const StepInput& input) {
  const int count = static_cast<int>(input.sequences.size());
  LORAD_CHECK(count <= options_.limits.max_sequences);
  order_.clear();
  for (int i = 0; i < count; ++i) {
    CheckSequence(input.sequences[static_cast<size_t>(i)]);
    order_.push_back(i);
  }
  std::sort(order_.begin(), order_.end(), [&](int a, int b) {
    const auto key_a = SegmentKey(input.sequences[static_cast<size_t>(a)]);
    const auto key_b = SegmentKey(input.sequences[static_cast<size_t>(b)]);
    return key_a != key_b ? key_a < key_b : a < b;
  });

  first_row_.assign(static_cast<size_t>(count), 0);
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  segments_.clear();
  for (int index : order_) {
    first_row_[static_cast<size_t>(index)] = static_cast<int>(tokens_.size());
    AddRows(input.sequences[static_cast<size_t>(index)]);
  }
  LORAD_CHECK(static_cast<int>(tokens_.size()) <= options_.limits.max_rows);
}

void DecoderExecutor::CheckSequence(const SequenceInput& sequence) const {
  LORAD_CHECK(!sequence.tokens.empty());
  LORAD_CHECK(sequence.first_position >= 0);
  const size_t end = static_cast<size_t>(sequence.first_position) + sequence.tokens.size();
  LORAD_CHECK(sequence.kv_pages.size() * static_cast<size_t>(options_.page_tokens) >= end);
  LORAD_CHECK(sequence.adapters.size() <= 1);
  LORAD_CHECK(sequence.adapters.empty() ||
              (sequence.adapters[0].pages.size() >= sequence.adapters[0].image->pages() &&
               sequence.adapters[0].image->layouts.size() == static_cast<size_t>(shard_.size)));
  LORAD_CHECK(sequence.score_targets.empty() ||
              sequence.score_targets.size() == sequence.tokens.size());
  for (TokenId token : sequence.tokens) LORAD_CHECK(token >= 0 && token < config_.vocab_size);
  for (TokenId token : sequence.score_targets)
    LORAD_CHECK(token >= -1 && token < config_.vocab_size);
}

void DecoderExecutor::AddRows(const SequenceInput& sequence) {
  const int first_row = static_cast<int>(tokens_.size());
  int position = sequence.first_position;
  for (TokenId token : sequence.tokens) {
    tokens_.push_back(token);
    positions_.push_back(position++);
  }
  sequences_.push_back(
      {first_row, static_cast<int>(tokens_.size()), sequence.first_position, sequence.kv_pages});
  AddToSegment(sequence, first_row);
}

void DecoderExecutor::AddToSegment(const SequenceInput& sequence, int first_row) {
  const AdapterUse* use = AdapterOf(sequence);
  if (use == nullptr) return;
  const int end_row = static_cast<int>(tokens_.size());
  const kernels::AdapterLayout& layout = use->image->layouts[static_cast<size_t>(shard_.rank)];
  if (!segments_.empty() && SameSegment(segments_.back(), layout, *use)) {
    segments_.back().end_row = end_row;
  } else {
    segments_.push_back({first_row, end_row, &layout, use->pages, use->weight,
                         use->transfer == nullptr ? nullptr : use->transfer->OfRank(shard_.rank)});
  }
}

void DecoderExecutor::ListLogitRows(const StepInput& input, std::vector<SequenceResult>* results) {
  logit_rows_.clear();
  for (int index : order_) {
    const SequenceInput& sequence = input.sequences[static_cast<size_t>(index)];
    SequenceResult& result = (*results)[static_cast<size_t>(index)];
    result.sample.reset();
    int scores = 0;
    const size_t count = sequence.tokens.size();
    for (size_t i = 0; i < count; ++i) {
      const TokenId target = sequence.score_targets.empty() ? -1 : sequence.score_targets[i];
      const bool sample = i + 1 == count && sequence.sampler != nullptr;
      if (target < 0 && !sample) continue;
      const int row = first_row_[static_cast<size_t>(index)] + static_cast<int>(i);
      logit_rows_.push_back({row, index, target < 0 ? -1 : scores, target, sample});
      if (target >= 0) ++scores;
    }
    result.scores.clear();
    result.scores.resize(static_cast<size_t>(scores));
  }
}

void DecoderExecutor::ComputeLogits(size_t begin, size_t end) {
  gathered_rows_.clear();
  gathered_segments_.clear();
  size_t segment = 0;  // of segments_, which are by row as logit_rows_ are
  const kernels::AdapterSegment* last = nullptr;
  for (size_t i = begin; i < end; ++i) {
    const int row = logit_rows_[i].row;
    const int gathered = static_cast<int>(gathered_rows_.size());
    gathered_rows_.push_back(row);
    while (segment < segments_.size() && segments_[segment].end_row <= row) ++segment;
    if (segment == segments_.size() || row < segments_[segment].first_row) continue;
    if (last == &segments_[segment]) {
      gathered_segments_.back().end_row = gathered + 1;
      continue;
    }
    last = &segments_[segment];
    gathered_segments_.push_back(*last);
    gathered_segments_.back().first_row = gathered;
    gathered_segments_.back().end_row = gathered + 1;
  }
  decoder_.Logits(gathered_rows_, gathered_segments_);
  host_logits_.clear();
  if (!HasLogits()) return;
  for (size_t i = begin; i < end; ++i) {
    host_logits_.push_back(decoder_.LogitRow(static_cast<int>(i - begin)));
  }
}

template <typename Fn>
void DecoderExecutor::ForEachLogitRow(const Fn& fn) {
  const auto chunk = static_cast<size_t>(decoder_.max_logit_rows());
  for (size_t begin = 0; begin < logit_rows_.size(); begin += chunk) {
    const size_t end = std::min(logit_rows_.size(), begin + chunk);
    ComputeLogits(begin, end);
    if (!HasLogits()) continue;
    backend_->ParallelFor(static_cast<int>(end - begin), [&](int i) {
      fn(logit_rows_[begin + static_cast<size_t>(i)], host_logits_[static_cast<size_t>(i)]);
    });
  }
}

bool DecoderExecutor::HasLogits() const {
  return shard_.rank == 0 && (ranks_ == nullptr || ranks_->status().ok());
}

size_t DecoderExecutor::activation_bytes() const {
  return sizeof(float) * Decoder::CountActivations(config_, shard_.size, decoder_.max_rows(),
                                                   decoder_.max_logit_rows());
}

kernels::KvGeometry KvGeometryOf(const ModelConfig& config, int page_tokens) {
  return {config.layers, config.kv_heads, config.head_dim, page_tokens};
}

}  // namespace lorad
