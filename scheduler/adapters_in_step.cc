#include "scheduler/adapters_in_step.h"

#include <algorithm>
#include <utility>

namespace lorad {

void AdaptersInStep::Use(AdapterVersionId adapter, uint64_t bytes, int left) {
  if (adapter == 0) return;
  const auto [at, joined] = longest_left_.try_emplace(adapter, left);
  if (joined) bytes_ += bytes;
  at->second = std::max(at->second, left);
}

bool AdaptersInStep::Admits(const WaitingRequest& w) const {
  if (w.adapter == 0) return true;
  if (w.adapter == draining_) return w.left_tokens <= drain_left_;
  if (in_use(w.adapter) || longest_left_.empty()) return true;
  if (next_ != 0 && w.adapter != next_) return false;
  return policy_.max_adapter_bytes == 0 || bytes_ + w.adapter_bytes <= policy_.max_adapter_bytes;
}

void AdaptersInStep::MakeWayFor(const WaitingRequest& w) {
  if (next_ != 0 || w.adapter == 0) return;
  next_ = w.adapter;
  if (policy_.drain_tolerance <= 0) return;
  std::pair<int, AdapterVersionId> least{0, 0};
  for (const auto& [adapter, left] : longest_left_) {
    if (adapter == w.adapter) continue;
    const std::pair<int, AdapterVersionId> other{left, adapter};
    if (least.second == 0 || other < least) least = other;
  }
  draining_ = least.second;
  drain_left_ = policy_.drain_tolerance * least.first;
}

}  // namespace lorad
