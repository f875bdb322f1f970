#include "memory/eviction_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "memory/base/check.h"

namespace lorad {

EvictionQueue::~EvictionQueue() { LORAD_CHECK(queue_.empty()); }

double EvictionQueue::ShareOfPool(const Item& item) const {
  return static_cast<double>(item.pages) / pool_->total_pages();
}

void EvictionQueue::Learn(const Item& item, bool wanted_again) {
  double& again = item.owner->again_;
  again += std::min(1.0, ShareOfPool(item) / kMemory) * ((wanted_again ? 1 : 0) - again);
}

void EvictionQueue::Use(Item* item, double uses) {
  if (item->newcomer && item->uses > 0 && uses >= 0.5) {
    item->newcomer = false;
    Learn(*item, /*wanted_again=*/true);
  }
  item->uses = item->uses * std::exp2((item->used_at - turns_) / kMemory) + uses;
  Touch(item);
}

void EvictionQueue::Touch(Item* item) {
  auto place = item->queued ? queue_.extract(item) : decltype(queue_)::node_type();
  const double expected = item->newcomer && !item->awaited ? item->owner->again_ : 1;
  item->used_at = turns_;
  item->score = std::log2(expected * item->uses * item->seconds / item->pages) + turns_ / kMemory;
  item->order = ++order_;
  if (!place.empty()) queue_.insert(std::move(place));
}

void EvictionQueue::Put(Item* item) {
  LORAD_CHECK(!item->queued && item->owner != nullptr && item->pages >= 1);
  item->queued = true;
  LORAD_CHECK(queue_.insert(item).second);
}

void EvictionQueue::Take(Item* item) {
  LORAD_CHECK(item->queued);
  item->queued = false;
  LORAD_CHECK(queue_.erase(item) == 1);
}

bool EvictionQueue::MakeRoom(uint32_t free_pages) {
  while (pool_->free_pages() < free_pages && !queue_.empty()) {
    Item* item = *queue_.begin();
    Take(item);
    turns_ += ShareOfPool(*item);
    if (item->newcomer) Learn(*item, /*wanted_again=*/false);
    item->owner->Evict(item);
  }
  return pool_->free_pages() >= free_pages;
}

absl::Status EvictionQueue::Validate() const {
  const Item* before = nullptr;
  for (const Item* item : queue_) {
    if (!item->queued || item->owner == nullptr || item->pages == 0 ||
        (before != nullptr && !Before()(before, item))) {
      return absl::InternalError(fmt::format("eviction queue: an item of score {}, order {} is {}",
                                             item->score, item->order,
                                             item->queued ? "out of place" : "not marked queued"));
    }
    before = item;
  }
  return absl::OkStatus();
}

}  // namespace lorad
