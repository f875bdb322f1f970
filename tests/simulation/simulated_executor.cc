#include "tests/simulation/simulated_executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "memory/base/check.h"
#include "tests/simulation/simulated_transfer.h"
#include "tests/simulation/token_chain.h"

namespace lorad::sim {

SimulatedExecutor::SimulatedExecutor(const CostModel& cost, VirtualClock* clock, uint32_t pages,
                                     int adapters)
    : cost_(cost),
      clock_(clock),
      slots_(size_t{pages} * static_cast<size_t>(cost.page_tokens)),
      images_(pages, 0),
      used_in_(static_cast<size_t>(adapters) + 1, 0) {}

void SimulatedExecutor::PlaceAdapter(AdapterVersionId id, std::span<const uint32_t> pages) {
  for (uint32_t page : pages) images_[page] = id;
}

absl::Status SimulatedExecutor::Submit(const StepInput& input) {
  LORAD_CHECK(under_way_.size() <= (cost_.overlaps ? 1u : 0u));
  clock_->Advance(For(cost_.host_s));
  ++steps_;
  last_ = {};
  StepShape shape;
  const auto page_tokens = static_cast<size_t>(cost_.page_tokens);
  for (const kernels::PageCopy& copy : input.page_copies) {
    std::copy_n(slots_.begin() + static_cast<std::ptrdiff_t>(copy.from * page_tokens), page_tokens,
                slots_.begin() + static_cast<std::ptrdiff_t>(copy.to * page_tokens));
    images_[copy.to] = 0;
  }
  Step step;
  step.results.reserve(input.sequences.size());
  for (const SequenceInput& s : input.sequences) step.results.push_back(Run(s, &shape));
  last_tokens_.clear();
  for (const SequenceResult& r : step.results) {
    last_tokens_.push_back(r.sample.has_value() ? r.sample->token : -1);
  }
  last_.rows = static_cast<int>(shape.rows);
  last_.sequences = static_cast<int>(input.sequences.size());
  last_.adapters = shape.adapters;
  last_.adapter_bytes = static_cast<uint64_t>(shape.adapter_bytes);
  last_.seconds = slowdown_ * StepSeconds(cost_, shape);
  busy_s_ += last_.seconds;
  free_ = std::max(std::max(clock_->Now(), free_) + For(last_.seconds), TransfersEnd(input));
  step.end = free_;
  under_way_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status SimulatedExecutor::Collect(std::vector<SequenceResult>* results) {
  LORAD_CHECK(!under_way_.empty());
  clock_->AdvanceTo(under_way_.front().end);
  *results = std::move(under_way_.front().results);
  under_way_.pop_front();
  return absl::OkStatus();
}

SequenceResult SimulatedExecutor::Run(const SequenceInput& s, StepShape* shape) {
  const auto count = static_cast<int>(s.tokens.size());
  const int end = s.first_position + count;
  const AdapterVersionId adapter = AdapterOf(s, shape);
  uint64_t chain =
      s.first_position == 0 ? ChainStart(adapter) : SlotAt(s.kv_pages, s.first_position - 1).chain;
  for (int i = 0; i < count; ++i) {
    const TokenId token = s.token_from_previous >= 0
                              ? last_tokens_[static_cast<size_t>(s.token_from_previous)]
                              : s.tokens[static_cast<size_t>(i)];
    if (token < 0) Fault(fmt::format("step {}: a token that nobody gave is computed", steps_));
    chain = ChainNext(chain, token);
    SlotAt(s.kv_pages, s.first_position + i) = {.chain = chain, .token = token};
  }
  CheckLink(s);
  shape->rows += count;
  shape->context += end;
  shape->pairs += int64_t{count} * s.first_position + int64_t{count} * (count + 1) / 2;
  if (count == 1) {
    ++last_.decodes;
  } else {
    last_.longest_chunk = std::max(last_.longest_chunk, count);
  }
  SequenceResult result;
  if (s.sampler != nullptr) {
    ++shape->samples;
    const bool ends = s.sample_index + 1 >= OutputTokensOf(s.sampler->params().seed);
    result.sample = SampledToken{.token = ends ? kSimStop : TokenAfter(chain), .logprob = 0};
  }
  return result;
}

AdapterVersionId SimulatedExecutor::AdapterOf(const SequenceInput& s, StepShape* shape) {
  if (s.adapters.empty()) return 0;
  const AdapterUse& use = s.adapters[0];
  const AdapterVersionId id = images_[use.pages[0]];
  // One of its pages a time; over the steps all have their turn.
  const uint32_t page = use.pages[static_cast<size_t>(s.first_position) % use.pages.size()];
  if (id == 0 || images_[page] != id || use.pages.size() != use.image->pages()) {
    Fault(fmt::format("step {}: page {} is not of adapter {}", steps_, page, id));
    return 0;
  }
  const uint64_t bytes = use.image->bytes();
  shape->adapter_rows += static_cast<int64_t>(s.tokens.size() * bytes);
  if (std::exchange(used_in_[id], steps_) != steps_) {
    ++shape->adapters;
    shape->adapter_bytes += static_cast<int64_t>(bytes);
  }
  return id;
}

// A page of the context, another one each time, follows from the page before it.
void SimulatedExecutor::CheckLink(const SequenceInput& s) {
  const int pages = s.first_position / cost_.page_tokens;
  if (pages < 1) return;
  const int position = (1 + s.first_position % pages) * cost_.page_tokens;
  if (position > s.first_position) return;
  const Slot& slot = SlotAt(s.kv_pages, position);
  if (slot.chain == ChainNext(SlotAt(s.kv_pages, position - 1).chain, slot.token)) return;
  Fault(fmt::format("step {}: page {} of a running sequence was overwritten", steps_,
                    s.kv_pages[static_cast<size_t>(position / cost_.page_tokens)]));
}

TimePoint SimulatedExecutor::TransfersEnd(const StepInput& input) const {
  TimePoint end{};
  for (const SequenceInput& s : input.sequences) {
    for (const AdapterUse& use : s.adapters) {
      if (use.transfer == nullptr) continue;
      end = std::max(end, static_cast<const SimulatedTransfer*>(use.transfer->OfRank(0))->end());
    }
  }
  return end;
}

void SimulatedExecutor::Fault(std::string what) {
  if (fault_.empty()) fault_ = std::move(what);
}

}  // namespace lorad::sim
