#include "memory/eviction_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "memory/base/check.h"

namespace lorad {

EvictionQueue::~EvictionQueue() { LORAD_CHECK(queue_.empty()); }

void EvictionQueue::Use(Item* item, double uses) {
  item->uses += uses;
  Touch(item);
}

void EvictionQueue::Touch(Item* item) {
  auto place = item->queued ? queue_.extract(item) : decltype(queue_)::node_type();
  item->score = age_ + item->uses * item->seconds / item->pages;
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
    age_ = std::max(age_, item->score);  // a parent may be worth less than its last child was
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
