#include "kernels/cuda/adapter_copies.h"

#include <algorithm>

#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

// Pages of one copy: few enough that the first layers need not wait for the last, many enough that
// a copy is worth its start.
constexpr size_t kChunkBytes = size_t{2} << 20;

}  // namespace

std::vector<uint64_t> SiteEnds(const AdapterLayout& layout) {
  LORAD_CHECK(!layout.site_begin.empty());
  std::vector<uint64_t> ends(layout.site_begin.size() - 1);
  uint64_t begin = layout.image_bytes;  // of the sites after this one
  for (size_t site = ends.size(); site-- > 0;) {
    ends[site] = begin;
    for (const AdapterModule& module : layout.At(static_cast<uint32_t>(site))) {
      begin = std::min({begin, module.a.offset, module.b.offset});
    }
  }
  return ends;
}

bool ImageCopies::Done() const {
  if (done_.load(std::memory_order_acquire)) return true;
  if (!chunks_.empty() && !runtime_.IsDone(chunks_.back().copied.get())) return false;
  done_.store(true, std::memory_order_release);
  return true;
}

absl::Status ImageCopies::Wait() {
  if (!Done()) {
    const absl::Status status = runtime_.Synchronize(chunks_.back().copied.get());
    if (!status.ok()) return status;
    done_.store(true, std::memory_order_release);
  }
  return runtime_.status();
}

Event ImageCopies::SiteEvent(uint32_t site) const {
  LORAD_CHECK(site < site_ends_.size());
  const auto chunk = std::ranges::lower_bound(chunks_, site_ends_[site], {}, &Chunk::end);
  LORAD_CHECK(chunk != chunks_.end());
  return chunk->copied.get();
}

AdapterCopies::AdapterCopies(Runtime& runtime, ProgramRunner& runner)
    : runtime_(runtime), runner_(runner), stream_(runtime.NewStream(/*high_priority=*/false)) {}

std::unique_ptr<CudaTransfer> AdapterCopies::Start(const AdapterLayout& layout,
                                                   std::span<const std::byte> image,
                                                   const PageSlab& slab,
                                                   std::span<const uint32_t> pages,
                                                   uint64_t after_step) {
  LORAD_CHECK(pages.size() >= layout.pages &&
              image.size() >= size_t{layout.pages} * slab.page_bytes);
  auto copies = std::make_shared<ImageCopies>(runtime_, SiteEnds(layout));
  const size_t most = std::max<size_t>(1, kChunkBytes / slab.page_bytes);
  std::lock_guard lock(mutex_);
  runner_.WaitFor(stream_, after_step);
  for (size_t first = 0; first < layout.pages;) {
    size_t count = 1;
    while (count < most && first + count < layout.pages &&
           pages[first + count] == pages[first] + count) {
      ++count;
    }
    runtime_.Copy(stream_, slab.Page(pages[first]), image.data() + first * slab.page_bytes,
                  count * slab.page_bytes);
    first += count;
    ImageCopies::Chunk& chunk = copies->chunks_.emplace_back();
    chunk.end = first * slab.page_bytes;
    chunk.copied = OwnedEvent(runtime_);
    runtime_.Record(chunk.copied.get(), stream_);
  }
  return std::make_unique<CudaTransfer>(std::move(copies));
}

}  // namespace lorad::kernels::cuda
