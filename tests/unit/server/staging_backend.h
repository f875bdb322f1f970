// A backend of which only staging works. StageAdapter fills an image with the low byte of
// layout.image_bytes (with another if the factors are not those of the layout); a transfer copies
// when it is waited for, so memory that was let go too early shows.
#pragma once

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/unit/kernels/forwarding_backend.h"

namespace lorad {

class StagingBackend final : public kernels::ForwardingBackend {
 public:
  bool StagesAdapters() const override { return true; }

  absl::StatusOr<std::unique_ptr<kernels::Buffer>> AllocateStaging(size_t bytes) override {
    if (!allocate_status.ok()) return allocate_status;
    ++allocations;
    return std::make_unique<HostBuffer>(bytes, &buffers);
  }

  void StageAdapter(const kernels::AdapterLayout& layout,
                    std::span<const kernels::LowRankFactors> factors,
                    std::span<std::byte> image) const override {
    const uint64_t content = layout.image_bytes + (factors.size() != layout.modules.size());
    std::memset(image.data(), static_cast<int>(content & 0xff), image.size());
  }

  std::unique_ptr<kernels::AdapterTransfer> StartTransfer(const kernels::AdapterLayout& layout,
                                                          std::span<const std::byte> image,
                                                          const kernels::PageSlab& slab,
                                                          std::span<const uint32_t> pages,
                                                          uint64_t after_step) override {
    ++transfers;
    last_after_step = after_step;
    return std::make_unique<Transfer>(this, layout, image, slab, pages);
  }

  absl::Status allocate_status;
  std::atomic<int> allocations = 0, buffers = 0, transfers = 0;
  std::atomic<int> unread = 0;  // transfers whose image was not what was staged
  std::atomic<uint64_t> last_after_step = 0;

 private:
  class HostBuffer final : public kernels::Buffer {
   public:
    HostBuffer(size_t bytes, std::atomic<int>* count) : memory_(bytes), count_(count) { ++*count; }
    ~HostBuffer() override { --*count_; }
    std::byte* data() override { return memory_.data(); }
    size_t bytes() const override { return memory_.size(); }

   private:
    std::vector<std::byte> memory_;
    std::atomic<int>* const count_;
  };

  class Transfer final : public kernels::AdapterTransfer {
   public:
    Transfer(StagingBackend* backend, const kernels::AdapterLayout& layout,
             std::span<const std::byte> image, const kernels::PageSlab& slab,
             std::span<const uint32_t> pages)
        : backend_(backend),
          content_(static_cast<std::byte>(layout.image_bytes & 0xff)),
          image_(image),
          slab_(slab),
          pages_(pages.begin(), pages.begin() + layout.pages) {}

    bool Done() const override { return done_; }
    absl::Status Wait() override {
      if (done_) return absl::OkStatus();
      for (const std::byte byte : image_) {
        if (byte == content_) continue;
        ++backend_->unread;
        break;
      }
      for (size_t i = 0; i < pages_.size(); ++i) {
        std::memcpy(slab_.Page(pages_[i]), image_.data() + i * slab_.page_bytes, slab_.page_bytes);
      }
      done_ = true;
      return absl::OkStatus();
    }

   private:
    StagingBackend* const backend_;
    const std::byte content_;
    const std::span<const std::byte> image_;
    const kernels::PageSlab slab_;
    const std::vector<uint32_t> pages_;
    std::atomic<bool> done_ = false;
  };
};

}  // namespace lorad
