#include "memory/host_tier.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

#include "memory/base/check.h"

namespace lorad {

HostTier::HostTier(uint32_t blocks) : total_blocks_(blocks) {
  if (blocks > 0) extents_[0] = {.blocks = blocks};
}

HostTier::Image& HostTier::Get(AdapterVersionId id) {
  const auto found = images_.find(id);
  LORAD_CHECK(found != images_.end());
  return found->second;
}

double HostTier::Uses(const Image& image) const {
  return image.uses * std::exp2((image.used_at - turns_) / kMemory);
}

std::optional<uint32_t> HostTier::Acquire(AdapterVersionId id) {
  const auto found = images_.find(id);
  if (found == images_.end() || found->second.writing) {
    ++misses_;
    return std::nullopt;
  }
  ++hits_;
  Image& image = found->second;
  image.uses = Uses(image) + 1;
  image.used_at = turns_;
  ++image.holds;
  return image.first;
}

std::optional<uint32_t> HostTier::BeginWrite(AdapterVersionId id, uint32_t blocks) {
  LORAD_CHECK(blocks >= 1 && !images_.contains(id));
  const auto run = FindRun(blocks);
  if (run == extents_.end()) return std::nullopt;
  // Images of the run leave until it is one free extent that is long enough; a free one before the
  // run may join it.
  const uint32_t begin = run->first;
  auto at = run;
  while (!at->second.free || at->second.blocks < blocks) {
    const Extent leaves = at->second.free ? std::next(at)->second : at->second;
    turns_ += static_cast<double>(leaves.blocks) / total_blocks_;
    ++evictions_;
    Leave(leaves.id);
    at = std::prev(extents_.upper_bound(begin));
  }
  const uint32_t first = at->first;
  const uint32_t rest = at->second.blocks - blocks;
  at->second = {.blocks = blocks, .id = id, .free = false};
  if (rest > 0) extents_[first + blocks] = {.blocks = rest};
  images_[id] = {.first = first, .used_at = turns_};
  used_blocks_ += blocks;
  return first;
}

bool HostTier::MayLeave(const Extent& extent) const {
  return extent.free || images_.at(extent.id).idle();
}

double HostTier::Value(const Extent& extent) const {
  if (extent.free) return 0;
  const Image& image = images_.at(extent.id);
  return Uses(image) * image.seconds;
}

// Slides a window over the extents: for each last one, the shortest run that ends there.
HostTier::Extents::iterator HostTier::FindRun(uint32_t blocks) {
  auto best = extents_.end();
  double best_value = std::numeric_limits<double>::infinity();
  uint32_t best_length = 0;
  auto begin = extents_.begin();
  uint32_t length = 0;
  for (auto end = extents_.begin(); end != extents_.end(); ++end) {
    if (!MayLeave(end->second)) {
      begin = std::next(end);
      length = 0;
      continue;
    }
    length += end->second.blocks;
    while (length - begin->second.blocks >= blocks) {
      length -= begin->second.blocks;
      ++begin;
    }
    if (length < blocks) continue;
    double value = 0;
    for (auto at = begin; at != std::next(end); ++at) value += Value(at->second);
    // Of equal runs the shorter: it leaves less of a hole.
    if (value < best_value || (value == best_value && length < best_length)) {
      best = begin;
      best_value = value;
      best_length = length;
    }
  }
  return best;
}

void HostTier::FinishWrite(AdapterVersionId id, double seconds) {
  Image& image = Get(id);
  LORAD_CHECK(image.writing && seconds >= 0);
  image.writing = false;
  image.seconds = seconds;
  image.holds = 1;
}

void HostTier::AbortWrite(AdapterVersionId id) {
  LORAD_CHECK(Get(id).writing);
  Forget(id);
}

void HostTier::Release(AdapterVersionId id) {
  Image& image = Get(id);
  LORAD_CHECK(image.holds > 0);
  --image.holds;
  if (image.idle() && image.retired) Leave(id);
}

void HostTier::Retire(AdapterVersionId id) {
  const auto found = images_.find(id);
  if (found == images_.end()) return;
  if (found->second.idle()) {
    Leave(id);
  } else {
    found->second.retired = true;
  }
}

void HostTier::Forget(AdapterVersionId id) {
  const auto image = images_.find(id);
  LORAD_CHECK(image != images_.end());
  auto at = extents_.find(image->second.first);
  LORAD_CHECK(at != extents_.end() && !at->second.free && at->second.id == id);
  used_blocks_ -= at->second.blocks;
  at->second = {.blocks = at->second.blocks};
  images_.erase(image);
  const auto next = std::next(at);
  if (next != extents_.end() && next->second.free) {
    at->second.blocks += next->second.blocks;
    extents_.erase(next);
  }
  if (at == extents_.begin()) return;
  const auto before = std::prev(at);
  if (before->second.free) {
    before->second.blocks += at->second.blocks;
    extents_.erase(at);
  }
}

void HostTier::Leave(AdapterVersionId id) {
  left_.push_back(id);
  Forget(id);
}

std::vector<AdapterVersionId> HostTier::TakeLeft() { return std::exchange(left_, {}); }

HostTier::Stats HostTier::stats() const {
  return {.hits = hits_,
          .misses = misses_,
          .evictions = evictions_,
          .images = static_cast<uint32_t>(images_.size()),
          .used_blocks = used_blocks_,
          .total_blocks = total_blocks_};
}

absl::Status HostTier::Validate() const {
  uint32_t next = 0, used = 0;
  size_t images = 0;
  bool after_free = false;
  for (const auto& [first, extent] : extents_) {
    if (first != next || extent.blocks == 0) {
      return absl::InternalError(fmt::format("host tier: an extent of {} blocks at {}, not {}",
                                             extent.blocks, first, next));
    }
    next += extent.blocks;
    if (extent.free && std::exchange(after_free, extent.free)) {
      return absl::InternalError(fmt::format("host tier: free neighbours at {}", first));
    }
    after_free = extent.free;
    if (extent.free) continue;
    const auto image = images_.find(extent.id);
    if (image == images_.end() || image->second.first != first) {
      return absl::InternalError(fmt::format("host tier: the extent at {} is nobody's", first));
    }
    if (image->second.idle() && image->second.retired) {
      return absl::InternalError(fmt::format("host tier: image {} is idle but retired", extent.id));
    }
    ++images;
    used += extent.blocks;
  }
  if (next != total_blocks_ || images != images_.size() || used != used_blocks_) {
    return absl::InternalError(
        fmt::format("host tier: {} of {} blocks covered, {} of {} images placed, {} blocks used, "
                    "{} in the books",
                    next, total_blocks_, images, images_.size(), used, used_blocks_));
  }
  return absl::OkStatus();
}

}  // namespace lorad
