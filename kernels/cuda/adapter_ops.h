// Adapter ops: heterogeneous-rank batched LoRA on the GPU. Shrink computes v = A x of every segment
// and module of one site into fp32 scratch, expand adds weight * scale * B v to what the base layer
// produced. Both are persistent kernels over work lists in device memory: exactly the ranks, rows
// and modules that are there, each weight read once for up to 16 rows (decode) or 64 (prefill).
//
// An image (docs: kernels/cuda/adapter_index.h) begins with a directory of its modules by site, so
// a work list says which segment, which module and which part of it, but not the layer: sites whose
// segments have equal modules share one list.
//
// Numbers: v is summed over spans of 1024 inputs (four quarters of 256 inputs, added in order), the
// spans in order, and rounded to bf16 after weight and scale; nothing depends on the batch, the
// grid, how lists are cut or which of the kernels ran. B v is summed in fp32 over pairs of rank
// tiles in order. Expand adds the sum to y in fp32 and rounds to y's type, once. ExpandSwiGlu has
// the same roundings in the same places, of gate + dgate and up + dup to bf16 before the activation
// and of its result after it, so that it does not show which of the two a step took; where a row
// has no module nothing is added or rounded.
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
// Rows of one segment that are worked on together: at most 16 (few) or 64 (many).
struct SegmentEntry {
  int32_t first_row = 0;
  int32_t rows = 0;
  int32_t first_page = 0;  // index of the image's page 0 in AdapterWork::pages()
  float weight = 1.0f;
};
// v of all modules of an entry's site, [spans][rows][site_tiles * 8] partial sums, fp32: here some
// of the ranks and spans.
struct alignas(16) ShrinkItem {
  int32_t segment = 0;       // an entry
  int32_t first_page = 0;    // the entry's
  int32_t site_modules = 0;  // AdapterLayout::site_modules
  int32_t site_tiles = 0;    // tiles of 8 ranks of the site
  int32_t tile_begin = 0;    // rank tiles [tile_begin, tile_end), at most 6
  int32_t tile_end = 0;
  int32_t k_tiles = 0;     // tiles of 64 inputs
  int32_t span_begin = 0;  // spans of 1024 inputs
  int32_t span_end = 0;
  int32_t scratch = 0;  // where the entry's v starts, in floats
  int32_t reserved[2] = {};
};
struct alignas(16) ExpandItem {
  int32_t segment = 0;       // an entry
  int32_t first_page = 0;    // the entry's
  int32_t site_modules = 0;  // AdapterLayout::site_modules
  int32_t module = 0;        // of the segment's adapter at this site
  int32_t group_begin = 0;   // groups of 32 of the module's outputs
  int32_t group_end = 0;
  int32_t rank_tiles = 0;  // of the module
  int32_t spans = 0;
  int32_t rank_stride = 0;  // site_tiles * 8
  int32_t scratch = 0;      // where the module's v starts, in floats
  int32_t reserved[2] = {};
};
// Some columns of a feed-forward layer's activation, for rows of an entry or rows without an
// adapter.
struct alignas(16) SwiGluItem {
  int32_t segment = -1;  // an entry; -1: rows without an adapter
  int32_t first_row = 0;
  int32_t rows = 0;
  int32_t first_page = 0;    // the entry's
  int32_t site_modules = 0;  // AdapterLayout::site_modules
  int32_t group_begin = 0;   // groups of 32 ffn columns
  int32_t group_end = 0;
  int32_t spans = 0;
  int32_t rank_stride = 0;
  int32_t gate_module = 0;  // of the segment's adapter at this site
  int32_t up_module = 0;
  int32_t gate_tiles = 0;  // rank tiles of the module, 0: there is none
  int32_t up_tiles = 0;
  int32_t gate_scratch = 0;  // where the module's v starts, in floats
  int32_t up_scratch = 0;
  int32_t reserved = 0;
};
// The greatest ranks that SwiGluItems of at most 16 rows, and of more, may have.
inline constexpr int kSwiGluFewRanks = 256;
inline constexpr int kSwiGluManyRanks = 128;
struct SwiGluWork {
  std::vector<SwiGluItem> few;
  std::vector<SwiGluItem> many;
};
struct SiteWork {
  std::vector<ShrinkItem> shrink_few;   // entries of at most 16 rows
  std::vector<ShrinkItem> shrink_many;  // the others
  std::vector<ExpandItem> expand_few;
  std::vector<ExpandItem> expand_many;
};
// What all sites of a step share. Built once a step, without allocation once warm. Layouts must be
// PlanAdapterImage's and live until the next Begin.
class AdapterWork {
 public:
  // `segments` by row, as given to Backend::Linear.
  void Begin(std::span<const AdapterSegment> segments, const DeviceFacts& device);
  const std::vector<SegmentEntry>& entries() const { return entries_; }
  const std::vector<uint32_t>& pages() const { return pages_; }
  // The work of `site`. The reference, and its address, are the same for sites of equal shapes
  // until the next Begin.
  const SiteWork& At(uint32_t site);
  // In place of At(site)'s expand lists and the activation of rows [0, rows) that follows. Null if
  // it must be left to those: some adapter has a module at the site that is not all of gate, [0,
  // ffn), or all of up, [ffn, 2 ffn), or whose rank is too great for its rows; ffn is not a
  // multiple of 8; or rows or ffn are others than in the first such call for sites of equal shapes.
  // The pointer stays as At's reference does.
  const SwiGluWork* SwiGlu(uint32_t site, int rows, int ffn);
  size_t scratch_floats() const { return scratch_floats_; }  // the most that any At() so far needs

 private:
  struct KnownSite {
    std::vector<uint32_t> shapes;  // site_shape of each of shapes_ there
    SiteWork work;
    SwiGluWork swiglu;
    int swiglu_rows = 0;  // that it is for; 0: not asked for yet
    int swiglu_ffn = 0;
    bool swiglu_possible = false;
  };
  KnownSite& Find(uint32_t site);
  void AddEntries(const AdapterSegment& segment);
  size_t PlanScratch(uint32_t site);  // at_site_; in floats
  void Build(uint32_t site, SiteWork& work);
  void BuildShrink(bool many, std::vector<ShrinkItem>& items);
  void BuildExpand(uint32_t site, bool many, std::vector<ExpandItem>& items);
  // The entries and the runs of rows between them, without columns. False: see SwiGlu.
  bool ListSwiGluRows(uint32_t site, int rows, int ffn);
  void BuildSwiGlu(int ffn, bool many, std::vector<SwiGluItem>& items);

  std::vector<SegmentEntry> entries_;
  std::vector<uint32_t> pages_;
  std::vector<const AdapterLayout*> layouts_;  // of each entry
  // Layouts that group sites differently: two sites have equal lists if each of these says so.
  std::vector<const AdapterLayout*> shapes_;
  std::vector<std::unique_ptr<KnownSite>> known_;
  size_t used_ = 0;  // of known_
  std::vector<uint32_t> key_;
  struct EntrySite {  // of each entry at the site that is being built, see PlanScratch
    int32_t tiles = 0;
    int32_t k_tiles = 0;
    int32_t spans = 0;
    int32_t scratch = 0;
  };
  std::vector<EntrySite> at_site_;
  std::vector<SwiGluItem> swiglu_rows_;
  size_t scratch_floats_ = 0;
  int multiprocessors_ = 1;
};
// The most scratch that any step may need. `max_total_rank`: the greatest sum over a site's modules
// of one adapter, each module's rank rounded up to a multiple of 8.
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
// `capacity`: the items that the list has memory for; it decides the grid. x: bf16.
void LaunchShrink(Launcher& launch, const DeviceFacts& device, const AdapterParams& params,
                  const TensorView& x, ListView<ShrinkItem> items, int capacity, bool many_rows);
// y: bf16 or fp32.
void LaunchExpand(Launcher& launch, const DeviceFacts& device, const AdapterParams& params,
                  const TensorView& y, ListView<ExpandItem> items, int capacity, bool many_rows);
// Expand and SwiGlu in one, for all rows that the items have: the same bits as LaunchExpand on
// gate_up and LaunchSwiGlu, but gate_up stays as it is. gate_up and out: bf16,
// AdapterWork::SwiGlu's columns.
void LaunchExpandSwiGlu(Launcher& launch, const DeviceFacts& device, const AdapterParams& params,
                        const TensorView& gate_up, const TensorView& out,
                        ListView<SwiGluItem> items, int capacity, bool many_rows);

std::vector<KernelRef> AdapterKernels();

}  // namespace lorad::kernels::cuda
