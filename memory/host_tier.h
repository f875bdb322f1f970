// HostTier: which adapters' images lie in host memory, ready to be copied into the pool: where, who
// uses them, and which leave when room is needed. The memory is one arena cut into equal blocks; an
// image lies in one run of them. An image is
//   writing   its blocks are taken, a loader writes them
//   held      somebody reads it: a copy into the pool is under way
//   idle      nobody does: it may leave
//
// Room for a new image is made where that costs least: of all runs of blocks that are long enough
// and have only free ones and idle images in them, in the one whose images are expected to save the
// fewest seconds. An image is expected to save
//
//     uses * seconds
//
//   seconds  what reading and packing it took
//   uses     how often it was wanted, each use counting half as much whenever a quarter of the
//            arena has been evicted since (as in memory/eviction_queue.h)
//
// All runs that are compared are about as long, so that is by seconds saved a byte. Images that are
// in the pool all the time are not asked for here and fade: the tier keeps what comes and goes.
//
// Books. The extents cover the arena without gap or overlap; no two free ones are neighbours; each
// that is not free is one image's. A retired image is never idle. Validate() proves it.
//
// Not thread-safe. It does NOT own the memory or know what an image holds.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "memory/adapter_cache.h"

namespace lorad {

class HostTier {
 public:
  // Of the arena: after so much of it has been evicted, a use counts half.
  static constexpr double kMemory = 0.25;

  struct Stats {
    uint64_t hits = 0;       // Acquire that found it
    uint64_t misses = 0;     // and that did not
    uint64_t evictions = 0;  // images that left to make room; not those that were retired
    uint32_t images = 0;
    uint32_t used_blocks = 0;
    uint32_t total_blocks = 0;
  };

  explicit HostTier(uint32_t blocks);
  HostTier(const HostTier&) = delete;
  HostTier& operator=(const HostTier&) = delete;

  // The first block of the image, which then stays until it is released. None: it is not here.
  std::optional<uint32_t> Acquire(AdapterVersionId id);
  // Takes a run of blocks for an image and returns the first, evicting if needed. None: there is no
  // room beside what is held; nothing changed.  REQUIRES: id is not here, blocks >= 1.
  std::optional<uint32_t> BeginWrite(AdapterVersionId id, uint32_t blocks);
  // It is written, which took `seconds`, and is now held by whoever wrote it; or it could not be.
  // REQUIRES of both: BeginWrite before.
  void FinishWrite(AdapterVersionId id, double seconds);
  void AbortWrite(AdapterVersionId id);
  // REQUIRES: a hold on it that was not released.
  void Release(AdapterVersionId id);
  // The version is not wanted any more: its image leaves now if it is idle, else when it is not
  // held any more. Nothing happens if it is not here.
  void Retire(AdapterVersionId id);

  bool Contains(AdapterVersionId id) const { return images_.contains(id); }
  // Ids whose images left since the last call, evicted or retired. Not those that could not be
  // written: their caller knows.
  std::vector<AdapterVersionId> TakeLeft();
  Stats stats() const;
  // Internal error naming what is wrong in the books.
  absl::Status Validate() const;

 private:
  struct Image {
    uint32_t first = 0;  // block
    bool writing = true;
    bool retired = false;
    uint32_t holds = 0;
    double seconds = 0;
    double uses = 1;     // as of used_at
    double used_at = 0;  // in turns

    bool idle() const { return !writing && holds == 0; }
  };
  struct Extent {
    uint32_t blocks = 0;
    AdapterVersionId id = 0;
    bool free = true;
  };
  using Extents = std::map<uint32_t, Extent>;  // by first block

  // The cheapest run for so many blocks: the place of its first extent; end(): there is none.
  Extents::iterator FindRun(uint32_t blocks);
  double Value(const Extent& extent) const;
  double Uses(const Image& image) const;
  bool MayLeave(const Extent& extent) const;
  // Makes an image's extent free, joined with free neighbours, and forgets the image.
  void Forget(AdapterVersionId id);
  void Leave(AdapterVersionId id);  // Forget, and says so in TakeLeft
  Image& Get(AdapterVersionId id);  // REQUIRES: it is here

  const uint32_t total_blocks_;
  Extents extents_;
  absl::flat_hash_map<AdapterVersionId, Image> images_;
  uint32_t used_blocks_ = 0;
  double turns_ = 0;  // how often the arena was evicted in all
  std::vector<AdapterVersionId> left_;
  uint64_t hits_ = 0;
  uint64_t misses_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace lorad
