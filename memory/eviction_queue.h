// EvictionQueue: what in the pool may go when room is needed, and in which order. Idle adapters and
// unreferenced prefix pages stand in one queue, in one currency: the seconds of work that a page is
// expected to save. What is expected to save least goes first:
//
//     value = uses * seconds / pages          (times `again`, for a newcomer)
//
//   seconds  what it takes to have it again: measured load time of an adapter, measured compute
//            time of a page's tokens
//   pages    what evicting it gives
//   uses     how often it was wanted, each use counting half as much whenever a quarter of the pool
//            has been evicted since
//   again    of a newcomer, which was wanted only once: the share of newcomers of its owner that
//            were wanted again, measured over the last quarter of the pool that came
//
// Frequency that fades is LRFU (Lee, Choi, Kim, Noh, Min, Cho and Kim, "On the Existence of a
// Spectrum of Policies that Subsumes the Least Recently Used and Least Frequently Used Policies",
// SIGMETRICS 1999); weighing it by cost over size is GreedyDual-Size-Frequency (Cherkasova,
// "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy", HP Labs
// HPL-98-69R1, 1998). `again` is ours: a page of KV costs ten to thirty times what a page of an
// adapter does, so without it prompts that nobody repeats would drive adapters out.
// docs/benchmarks/2026-11-24-eviction.md compares. Where nothing costs anything it is plain LRU.
//
// All values fade alike, so their order changes only when an item is scored: the queue is ordered
// by
//
//     score = log2(value when scored) + (turns when scored) / kMemory
//
// where `turns` is how often the pool's pages were evicted in all; ties go in order of scoring.
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
  // Of the pool: after so much of it has been evicted, a use counts half.
  static constexpr double kMemory = 0.25;

  struct Item;
  class Owner {
   public:
    virtual ~Owner() = default;
    // Frees the item's pages. It is off the queue already; others may be put in by this call (a
    // parent that became a leaf).
    virtual void Evict(Item* item) = 0;
    // The share of its newcomers that were wanted again.
    double again() const { return again_; }

   private:
    friend class EvictionQueue;
    double again_ = 0.1;  // little, until it is measured: a scan should not empty a young pool
  };
  struct Item {
    Owner* owner = nullptr;
    uint32_t pages = 1;
    double seconds = 0;  // to have all its pages again
    // Somebody has asked for it and comes yet: a newcomer's use counts in full until then.
    bool awaited = false;

    // The queue's.
    bool queued = false;
    bool newcomer = true;
    double uses = 0;     // as of used_at
    double used_at = 0;  // in turns
    double score = 0;
    uint64_t order = 0;  // of its last scoring; no two are equal
  };

  explicit EvictionQueue(PagePool* pool) : pool_(pool) {}
  EvictionQueue(const EvictionQueue&) = delete;
  EvictionQueue& operator=(const EvictionQueue&) = delete;
  ~EvictionQueue();  // REQUIRES: empty

  // The item was wanted: counts a use, or a part of one (a page of which only some tokens were of
  // use), and scores it anew. Queued or not. A newcomer is none any more when it is wanted again,
  // at least half of it.
  void Use(Item* item, double uses = 1);
  // Scores it anew without a use, because it was in use until now. Queued or not.
  void Touch(Item* item);
  // Puts it in with the score that it has.  REQUIRES: not queued.
  void Put(Item* item);
  // REQUIRES: queued.
  void Take(Item* item);

  // Evicts until the pool has `free_pages` free pages or nothing is left. True if it has.
  bool MakeRoom(uint32_t free_pages);

  double turns() const { return turns_; }
  size_t size() const { return queue_.size(); }
  // Internal error naming an item that is out of place.
  absl::Status Validate() const;

 private:
  struct Before {
    bool operator()(const Item* a, const Item* b) const {
      return a->score != b->score ? a->score < b->score : a->order < b->order;
    }
  };
  double ShareOfPool(const Item& item) const;
  // A newcomer's fate is known.
  void Learn(const Item& item, bool wanted_again);

  PagePool* const pool_;
  std::set<Item*, Before> queue_;
  double turns_ = 0;
  uint64_t order_ = 0;
};

}  // namespace lorad
