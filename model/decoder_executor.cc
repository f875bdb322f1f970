#include "model/decoder_executor.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "memory/base/check.h"
#include "memory/base/status_macros.h"

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
      decoder_(config_, *weights_, backend, ranks, options.limits.max_rows, LogitRowsOf(options)) {
  LORAD_CHECK(!backend_->Samples() || LogitRowsOf(options) >= options.limits.max_sequences);
}

bool DecoderExecutor::CanDraw(const SamplingParams& params) const {
  const bool masks_stop = params.min_tokens > 0 && !params.stop_tokens.empty();
  return backend_->Samples() && params.logprobs < 0 && params.logit_bias.empty() && !masks_stop &&
         params.repetition_penalty == 1.0f && params.presence_penalty == 0.0f &&
         params.frequency_penalty == 0.0f;
}

absl::Status DecoderExecutor::Submit(const StepInput& input) {
  LORAD_RETURN_IF_ERROR(GroupStatus());  // of a broken group steps are left that nobody collects
  LORAD_CHECK(under_way_.empty() || (Overlaps() && !under_way_.back().host_rows));
  StepUnderWay step{.input = input};
  if (!input.sequences.empty()) {
    PlanStep(input);
    backend_->CopyPages(input.page_copies);
    decoder_.Forward({tokens_, positions_, sequences_, segments_});
    ListLogitRows(input, &step);
    if (step.draws > 0) Draw(input);
    if (!step.host_rows) step.number = backend_->EndStep();
  }
  under_way_.push_back(std::move(step));
  return GroupStatus();
}

absl::Status DecoderExecutor::Collect(std::vector<SequenceResult>* results) {
  LORAD_CHECK(!under_way_.empty());
  StepUnderWay step = std::move(under_way_.front());
  under_way_.pop_front();
  results->assign(step.draw_of.size(), {});
  if (step.host_rows) {
    SampleOnHost(step.input, results);
    step.number = backend_->EndStep();
  }
  if (step.draws > 0) {
    LORAD_ASSIGN_OR_RETURN(const std::span<const int32_t> tokens, backend_->Sampled(step.number));
    for (size_t i = 0; i < step.draw_of.size() && shard_.rank == 0; ++i) {
      if (step.draw_of[i] < 0) continue;
      (*results)[i].sample = SampledToken{.token = tokens[static_cast<size_t>(step.draw_of[i])]};
    }
  }
  LORAD_RETURN_IF_ERROR(backend_->WaitForStep(step.number));
  return GroupStatus();
}

absl::Status DecoderExecutor::GroupStatus() const {
  return ranks_ == nullptr ? absl::OkStatus() : ranks_->status();
}

void DecoderExecutor::SampleOnHost(const StepInput& input, std::vector<SequenceResult>* results) {
  for (const LogitRow& row : logit_rows_) {
    std::vector<SampledToken>& scores = (*results)[static_cast<size_t>(row.sequence)].scores;
    if (row.score >= 0) scores.resize(static_cast<size_t>(row.score) + 1);
  }
  ForEachLogitRow([&](const LogitRow& row, std::span<const float> logits) {
    const SequenceInput& sequence = input.sequences[static_cast<size_t>(row.sequence)];
    SequenceResult& result = (*results)[static_cast<size_t>(row.sequence)];
    if (row.score >= 0) {
      result.scores[static_cast<size_t>(row.score)] =
          ScoreToken(logits, row.target, sequence.score_top);
    }
    if (row.sample) result.sample = sequence.sampler->Sample(logits, sequence.sample_index);
  });
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
  if (sequence.token_from_previous >= 0) {
    LORAD_CHECK(sequence.tokens.size() == 1);
  } else {
    for (TokenId token : sequence.tokens) LORAD_CHECK(token >= 0 && token < config_.vocab_size);
  }
  for (TokenId token : sequence.score_targets)
    LORAD_CHECK(token >= -1 && token < config_.vocab_size);
}

void DecoderExecutor::AddRows(const SequenceInput& sequence) {
  const int first_row = static_cast<int>(tokens_.size());
  int position = sequence.first_position;
  for (size_t i = 0; i < sequence.tokens.size(); ++i) {
    tokens_.push_back(TokenOf(sequence, i));
    positions_.push_back(position++);
  }
  sequences_.push_back(
      {first_row, static_cast<int>(tokens_.size()), sequence.first_position, sequence.kv_pages});
  AddToSegment(sequence, first_row);
}

TokenId DecoderExecutor::TokenOf(const SequenceInput& sequence, size_t i) const {
  if (sequence.token_from_previous < 0) return sequence.tokens[i];
  LORAD_CHECK(!under_way_.empty());
  const int draw = under_way_.back().draw_of[static_cast<size_t>(sequence.token_from_previous)];
  LORAD_CHECK(draw >= 0);
  return -1 - draw;  // see Backend::Embed
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

void DecoderExecutor::ListLogitRows(const StepInput& input, StepUnderWay* step) {
  logit_rows_.clear();
  draw_rows_.clear();
  step->draw_of.assign(input.sequences.size(), -1);
  for (int index : order_) {
    const SequenceInput& sequence = input.sequences[static_cast<size_t>(index)];
    int scores = 0;
    const size_t count = sequence.tokens.size();
    for (size_t i = 0; i < count; ++i) {
      const TokenId target = sequence.score_targets.empty() ? -1 : sequence.score_targets[i];
      bool sample = i + 1 == count && sequence.sampler != nullptr;
      const int row = first_row_[static_cast<size_t>(index)] + static_cast<int>(i);
      if (sample && CanDraw(sequence.sampler->params())) {
        step->draw_of[static_cast<size_t>(index)] = static_cast<int>(draw_rows_.size());
        draw_rows_.push_back({row, index, -1, -1, true});
        sample = false;
      }
      if (target < 0 && !sample) continue;
      logit_rows_.push_back({row, index, target < 0 ? -1 : scores, target, sample});
      if (target >= 0) ++scores;
    }
  }
  step->draws = draw_rows_.size();
  step->host_rows = !logit_rows_.empty();
}

// All draws of a step are one call, so they go through the head together.
void DecoderExecutor::Draw(const StepInput& input) {
  ComputeLogits(draw_rows_, &drawn_);
  sample_rows_.clear();
  for (const LogitRow& row : draw_rows_) {
    const SequenceInput& sequence = input.sequences[static_cast<size_t>(row.sequence)];
    const SamplingParams& params = sequence.sampler->params();
    sample_rows_.push_back({.row = static_cast<int>(sample_rows_.size()),
                            .temperature = params.temperature,
                            .top_k = params.top_k,
                            .top_p = params.top_p,
                            .min_p = params.min_p,
                            .seed = params.seed,
                            .index = static_cast<uint64_t>(sequence.sample_index)});
  }
  decoder_.Sample(sample_rows_);
}

void DecoderExecutor::ComputeLogits(std::span<const LogitRow> rows, GatheredRows* lists) {
  lists->rows.clear();
  lists->segments.clear();
  size_t segment = 0;  // of segments_, which are by row as `rows` are
  const kernels::AdapterSegment* last = nullptr;
  for (const LogitRow& logit_row : rows) {
    const int row = logit_row.row;
    const int gathered = static_cast<int>(lists->rows.size());
    lists->rows.push_back(row);
    while (segment < segments_.size() && segments_[segment].end_row <= row) ++segment;
    if (segment == segments_.size() || row < segments_[segment].first_row) continue;
    if (last == &segments_[segment]) {
      lists->segments.back().end_row = gathered + 1;
      continue;
    }
    last = &segments_[segment];
    lists->segments.push_back(*last);
    lists->segments.back().first_row = gathered;
    lists->segments.back().end_row = gathered + 1;
  }
  decoder_.Logits(lists->rows, lists->segments);
}

template <typename Fn>
void DecoderExecutor::ForEachLogitRow(const Fn& fn) {
  const auto chunk = static_cast<size_t>(decoder_.max_logit_rows());
  for (size_t begin = 0; begin < logit_rows_.size(); begin += chunk) {
    const size_t count = std::min(logit_rows_.size() - begin, chunk);
    const std::span<const LogitRow> rows = std::span(logit_rows_).subspan(begin, count);
    ComputeLogits(rows, &for_host_);
    if (!HasLogits()) {
      decoder_.LogitRow(0);  // so that the lists have been read when they change
      continue;
    }
    host_logits_.clear();
    for (size_t i = 0; i < count; ++i) {
      host_logits_.push_back(decoder_.LogitRow(static_cast<int>(i)));
    }
    backend_->ParallelFor(static_cast<int>(count), [&](int i) {
      fn(rows[static_cast<size_t>(i)], host_logits_[static_cast<size_t>(i)]);
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
