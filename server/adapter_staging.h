// AdapterStaging: loads adapters where pages are not host memory. Their packed images are kept in a
// pinned arena of host memory (memory/host_tier.h decides which), so that an adapter that comes
// back costs a copy and no disk:
//
//   disk --read, pack--> arena --transfer--> pages
//
// The arena is allocated once: pinning memory is slow. An image for which there is no room beside
// what is being copied goes through a buffer of its own, which is kept for the next such image.
//
// Thread-safe; Load reads files and waits for nothing else: call it from a WorkQueue. Must outlive
// every transfer that it started.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "memory/base/clock.h"
#include "memory/host_tier.h"
#include "model/adapter_image.h"
#include "server/adapter_images.h"
#include "server/adapter_version.h"
#include "server/host_tier_report.h"

namespace lorad {

class AdapterStaging {
 public:
  struct Rank {  // borrowed
    kernels::Backend* backend = nullptr;
    kernels::PageSlab slab;
  };
  struct Parts {
    std::vector<Rank> ranks;  // at least one; pages have equal sizes on all
    uint64_t bytes = 0;       // of the arena
    const Clock* clock = nullptr;
    // Reads an adapter's files and gives them to the writer.
    std::function<absl::StatusOr<AdapterImagePtr>(const AdapterVersion&, const ImageWriter&)> read;
    // After each change, under a lock: quick, and must not call back.
    std::function<void(const HostTierReport&)> changed = [](const HostTierReport&) {};
  };
  // ResourceExhausted: so much memory cannot be pinned.
  static absl::StatusOr<std::unique_ptr<AdapterStaging>> Make(Parts parts);

  // Brings the image to host memory if it is not there, and starts copying it into `pages`. The
  // copy to a rank waits for its steps up to the one in `after_steps`.
  absl::StatusOr<LoadedAdapter> Load(const AdapterVersion& version, std::span<const uint32_t> pages,
                                     std::span<const uint64_t> after_steps);
  // Whether Load would find it. A moment later it may be otherwise.
  bool Has(AdapterVersionId id) const;
  // The version is superseded: its image leaves when it is not being copied any more.
  void Retire(AdapterVersionId id);
  HostTierReport report() const;
  absl::Status Validate() const;

 private:
  // An image in host memory for as long as somebody reads it.
  struct Source {
    AdapterStaging* const owner;
    AdapterVersionId id = 0;                 // in the arena; 0: not there
    std::unique_ptr<kernels::Buffer> spare;  // its own, if it is not in the arena
    std::span<std::byte> memory;
    AdapterImagePtr image;  // null while it is written

    explicit Source(AdapterStaging* staging) : owner(staging) {}
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;
    ~Source() { owner->Release(this); }
  };
  struct Kept {
    AdapterImagePtr image;
    std::shared_ptr<AdapterActivity> activity;
  };

  AdapterStaging(Parts parts, uint32_t blocks) : parts_(std::move(parts)), tier_(blocks) {}
  std::shared_ptr<Source> Find(const AdapterVersion& version);  // null: it is not here
  absl::StatusOr<std::shared_ptr<Source>> Read(const AdapterVersion& version);
  // Room for an image that is to be written.
  absl::StatusOr<std::shared_ptr<Source>> Reserve(const AdapterVersion& version);
  absl::StatusOr<std::unique_ptr<kernels::Buffer>> SpareBuffer(size_t bytes);
  void Keep(const AdapterVersion& version, const Source& source, double seconds);
  std::span<std::byte> PartOf(const Source& source, const AdapterImage& image, size_t rank) const;
  void Release(Source* source);
  std::span<std::byte> Blocks(uint32_t first, uint32_t blocks) const;
  uint32_t BlocksOf(const AdapterVersion& version) const;
  size_t block_bytes() const { return parts_.ranks[0].slab.page_bytes; }
  // REQUIRES of these: mutex_ is held.
  HostTierReport Report() const;
  void Changed();  // tells what left, and how it is now

  const Parts parts_;
  std::unique_ptr<kernels::Buffer> arena_;  // null: of no blocks
  mutable std::mutex mutex_;
  HostTier tier_;                                        // guarded by mutex_
  absl::flat_hash_map<AdapterVersionId, Kept> kept_;     // guarded by mutex_: what is in the tier
  std::vector<std::unique_ptr<kernels::Buffer>> spare_;  // guarded by mutex_
};

}  // namespace lorad
