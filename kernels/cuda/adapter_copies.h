// AdapterCopies: brings staged adapter images into pages, on a stream of its own, in chunks by the
// order of the image, that is of execution, with an event after each: whoever computes with a site
// waits for the last chunk that holds some of it.
//
// Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/program_runner.h"
#include "kernels/cuda/runtime.h"

namespace lorad::kernels::cuda {

// What a transfer and the steps that wait for it share.
class ImageCopies {
 public:
  // `site_ends`: see SiteEnds.
  ImageCopies(Runtime& runtime, std::vector<uint64_t> site_ends)
      : runtime_(runtime), site_ends_(std::move(site_ends)) {}

  bool Done() const;
  absl::Status Wait();
  // Recorded after the last byte of `site`. REQUIRES: all chunks are queued.
  Event SiteEvent(uint32_t site) const;

 private:
  friend class AdapterCopies;
  struct Chunk {
    uint64_t end = 0;  // in the image
    OwnedEvent copied;
  };
  Runtime& runtime_;
  const std::vector<uint64_t> site_ends_;
  std::vector<Chunk> chunks_;  // by end; not empty, unless the image is
  mutable std::atomic<bool> done_ = false;
};

class CudaTransfer final : public AdapterTransfer {
 public:
  explicit CudaTransfer(std::shared_ptr<ImageCopies> copies) : copies_(std::move(copies)) {}
  ~CudaTransfer() override { copies_->Wait().IgnoreError(); }  // its image may go then
  bool Done() const override { return copies_->Done(); }
  absl::Status Wait() override { return copies_->Wait(); }
  const std::shared_ptr<ImageCopies>& copies() const { return copies_; }

 private:
  const std::shared_ptr<ImageCopies> copies_;
};

class AdapterCopies {
 public:
  AdapterCopies(Runtime& runtime, ProgramRunner& runner);

  // See Backend::StartTransfer.
  std::unique_ptr<CudaTransfer> Start(const AdapterLayout& layout, std::span<const std::byte> image,
                                      const PageSlab& slab, std::span<const uint32_t> pages,
                                      uint64_t after_step);

 private:
  Runtime& runtime_;
  ProgramRunner& runner_;
  std::mutex mutex_;  // of the stream
  const Stream stream_;
};

// By site, where in the image what it needs ends: where the next site with modules begins.
std::vector<uint64_t> SiteEnds(const AdapterLayout& layout);

}  // namespace lorad::kernels::cuda
