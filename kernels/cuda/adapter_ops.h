// Adapter ops: heterogeneous-rank batched LoRA on the GPU. Shrink computes v = A x of every segment
// and module of one site into fp32 scratch, expand adds weight * scale * B v to what the base layer
// produced. Both are persistent kernels over work lists in device memory: exactly the ranks, rows
// and modules that are there, each weight read once for up to 16 rows (decode) or 64 (prefill).
//
// An image (docs: kernels/cuda/adapter_image.h) begins with a directory of its modules by site, so
// a work list says which segment, which module and which part of it, but not the layer: sites whose
// segments have equal shapes share one list.
//
// Numbers: v is summed over chunks of 256 inputs (four warps of 64 inputs each, added in order),
// the chunks in order; nothing depends on the batch, the grid or which of the kernels ran.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/views.h"
#include "kernels/types.h"

namespace lorad::kernels::cuda {

// --- Images, on the host; pure, any thread ---
AdapterLayout PlanAdapterImage(std::span<const LowRankFactors> factors, uint32_t sites,
                               size_t page_bytes);
// Into host memory [layout.pages * page_bytes]; bytes that no tile uses are zero.
void PackAdapterImage(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                      size_t page_bytes, std::span<std::byte> image);

// --- Work lists, on the host ---
// At most 64 rows of one segment; a segment with more is cut.
struct SegmentEntry {
  int32_t first_row = 0;
  int32_t rows = 0;
  int32_t first_page = 0;  // index of the image's page 0 in AdapterLists::pages
  float weight = 1.0f;
};
struct ShrinkItem {
  int32_t segment = 0;
  int32_t module = 0;      // of the segment's adapter at this site
  int32_t rank_begin = 0;  // ranks [rank_begin, rank_end) of that module
  int32_t rank_end = 0;
  int32_t chunk_begin = 0;  // chunks of 256 inputs
  int32_t chunk_end = 0;
  int32_t scratch = 0;  // where the module's v of this segment starts, in floats
  int32_t reserved = 0;
};
struct ExpandItem {
  int32_t segment = 0;
  int32_t module = 0;
  int32_t column_begin = 0;  // of the module's outputs
  int32_t column_end = 0;
  int32_t scratch = 0;
  int32_t reserved[3] = {};
};
struct SiteWork {
  std::vector<ShrinkItem> shrink_few;   // segments of at most 16 rows
  std::vector<ShrinkItem> shrink_many;  // the others
  std::vector<ExpandItem> expand_few;
  std::vector<ExpandItem> expand_many;
};
// What all sites of a step share. Built once a step, without allocation once warm.
class AdapterWork {
 public:
  // `segments` by row, as given to Backend::Linear.
  void Begin(std::span<const AdapterSegment> segments, const DeviceFacts& device);
  const std::vector<SegmentEntry>& entries() const { return entries_; }
  const std::vector<uint32_t>& pages() const { return pages_; }
  // The work of `site`. The reference, and its address, are the same for sites of equal shapes
  // until the next Begin.
  const SiteWork& At(uint32_t site);
  size_t scratch_floats() const { return scratch_floats_; }  // the most that any At() so far needs

 private:
  struct KnownSite {
    std::vector<uint64_t> shapes;
    SiteWork work;
  };
  std::span<const AdapterSegment> segments_;
  std::vector<int32_t> segment_of_entry_;
  std::vector<SegmentEntry> entries_;
  std::vector<uint32_t> pages_;
  std::vector<std::unique_ptr<KnownSite>> known_;
  size_t used_ = 0;  // of known_
  size_t scratch_floats_ = 0;
  int multiprocessors_ = 1;
};
// The most scratch that any step may need.
size_t MaxScratchFloats(int max_rows, int max_total_rank, int max_inputs);

// --- Launches ---
struct AdapterParams {
  uint32_t site = 0;
  const std::byte* slab = nullptr;
  size_t page_bytes = 0;
  const SegmentEntry* entries = nullptr;
  const uint32_t* pages = nullptr;
  float* scratch = nullptr;
};
// How many blocks a list of at most `capacity` items gets.
void LaunchShrink(Launcher& launch, const DeviceFacts& device, const AdapterParams& params,
                  const TensorView& x, ListView<ShrinkItem> items, int capacity, bool many_rows);
// y: bf16 or fp32.
void LaunchExpand(Launcher& launch, const DeviceFacts& device, const AdapterParams& params,
                  const TensorView& y, ListView<ExpandItem> items, int capacity, bool many_rows);

std::vector<KernelRef> AdapterKernels();

}  // namespace lorad::kernels::cuda
