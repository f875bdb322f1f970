// AdapterImage: where the parts of one adapter lie in its pages. A tensor-parallel model has one
// layout a rank: each rank keeps its share of the adapter in pages of its own slab, under the same
// numbers as the others. A value; immutable once an executor sees it.
//
// ImageTransfer: that image on its way into its pages.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/types.h"

namespace lorad {

struct AdapterImage {
  std::vector<kernels::AdapterLayout> layouts;  // by rank, at least one

  // Of the rank that needs most; the pages are taken on every rank.
  uint32_t pages() const {
    uint32_t most = 0;
    for (const auto& layout : layouts) most = std::max(most, layout.pages);
    return most;
  }
  uint64_t bytes() const {
    uint64_t most = 0;
    for (const auto& layout : layouts) most = std::max(most, layout.image_bytes);
    return most;
  }
};

// Lives as long as the image is in its pages.
using AdapterImagePtr = std::shared_ptr<const AdapterImage>;

class ImageTransfer {
 public:
  // `source` is what keeps the host memory that is copied from.
  ImageTransfer(std::vector<std::unique_ptr<kernels::AdapterTransfer>> ranks,
                std::shared_ptr<const void> source)
      : source_(std::move(source)), ranks_(std::move(ranks)) {}
  ImageTransfer(const ImageTransfer&) = delete;
  ImageTransfer& operator=(const ImageTransfer&) = delete;
  ~ImageTransfer() { (void)Wait(); }  // for the source's sake

  // Any thread.
  bool Done() const {
    return std::all_of(ranks_.begin(), ranks_.end(), [](const auto& t) { return t->Done(); });
  }
  // The first error: the device is broken.
  absl::Status Wait() {
    absl::Status status;
    for (const auto& transfer : ranks_) status.Update(transfer->Wait());
    return status;
  }
  const kernels::AdapterTransfer* OfRank(int rank) const {
    return ranks_[static_cast<size_t>(rank)].get();
  }

 private:
  std::shared_ptr<const void> source_;  // outlives the copies
  std::vector<std::unique_ptr<kernels::AdapterTransfer>> ranks_;
};

struct LoadedAdapter {
  AdapterImagePtr image;
  // If the image is still on its way: it may be used, and whoever uses it names the transfer.
  std::shared_ptr<ImageTransfer> transfer;
};

}  // namespace lorad
