// EvictionQueue: what in the pool may go when room is needed, and in which order. Idle adapters and
// unreferenced prefix pages stand in one queue, in one currency: the seconds of work that a page
// saves.
//
// The score of an item is
//
//     score = age + uses * seconds / pages
//
//   seconds  what it takes to have it again: measured load time of an adapter, measured compute
//            time of a page's tokens
//   pages    what evicting it gives
//   uses     how often it was wanted since it came
//   age      the greatest score of what was evicted so far, at the time of scoring
// and the least score goes first, ties in order of scoring. This is GreedyDual-Size-Frequency
// (Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy",
// HP Labs HPL-98-69R1, 1998) with size in pages and cost in seconds; `age` is what makes an item
// that was popular once go in the end. Where nothing costs anything it is plain LRU.
//
// Items are members of what they stand for; the queue borrows them. Thread: the engine's only. It
// does NOT decide who may go: only what is put in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>

#include "absl/status/status.h"
#include "memory/page_pool.h"

namespace lorad {

class EvictionQueue {
 public:
  struct Item;
  class Owner {
   public:
    virtual ~Owner() = default;
    // Frees the item's pages. It is off the queue already; others may be put in by this call (a
    // parent that became a leaf).
    virtual void Evict(Item* item) = 0;
  };
  struct Item {
    Owner* owner = nullptr;
    uint32_t pages = 1;
    double seconds = 0;  // to have all its pages again
    double uses = 0;
    double score = 0;
    uint64_t order = 0;  // of its last scoring; no two are equal
    bool queued = false;
  };

  explicit EvictionQueue(PagePool* pool) : pool_(pool) {}
  EvictionQueue(const EvictionQueue&) = delete;
  EvictionQueue& operator=(const EvictionQueue&) = delete;
  ~EvictionQueue();  // REQUIRES: empty

  // The item was wanted: counts a use, or a part of one (a page of which only some tokens were of
  // use), and scores it anew. Queued or not.
  void Use(Item* item, double uses = 1);
  // Scores it anew without a use, because it was in use until now. Queued or not.
  void Touch(Item* item);
  // Puts it in with the score that it has.  REQUIRES: not queued.
  void Put(Item* item);
  // REQUIRES: queued.
  void Take(Item* item);

  // Evicts until the pool has `free_pages` free pages or nothing is left. True if it has.
  bool MakeRoom(uint32_t free_pages);

  double age() const { return age_; }
  size_t size() const { return queue_.size(); }
  // Internal error naming an item that is out of place.
  absl::Status Validate() const;

 private:
  struct Before {
    bool operator()(const Item* a, const Item* b) const {
      return a->score != b->score ? a->score < b->score : a->order < b->order;
    }
  };

  PagePool* const pool_;
  std::set<Item*, Before> queue_;
  double age_ = 0;
  uint64_t order_ = 0;
};

}  // namespace lorad
