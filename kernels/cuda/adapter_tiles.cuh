// An adapter image as a kernel reads it: granules by way of the segment's page table, and records
// of its directory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/adapter_index.h"
#include "kernels/cuda/adapter_ops.h"
#include "kernels/cuda/gpu.h"

namespace lorad::kernels::cuda {

struct PagedImages {
  const std::byte* slab;
  const uint32_t* pages;
  PageSplit split;
};

inline PagedImages ImagesOf(const AdapterParams& params) {
  return {params.slab, params.pages, SplitPages(params.page_bytes)};
}

// Where granule `granule` of the image at `first_page` lies. The slab is below 2 TiB, so that its
// granules have numbers of 32 bits.
LORAD_DEVICE const std::byte* GranuleAt(const PagedImages& images, uint32_t first_page,
                                        uint32_t granule) {
  const uint32_t page = images.split.Page(granule);
  const uint32_t of_slab =
      granule + (images.pages[first_page + page] - page) * images.split.granules;
  return images.slab + size_t{of_slab} * kGranule;
}

LORAD_DEVICE ModuleRecord LoadRecord(const PagedImages& images, uint32_t first_page, uint32_t site,
                                     uint32_t site_modules, uint32_t module) {
  const uint64_t offset = RecordOffset(site, site_modules, module);
  const std::byte* at =
      GranuleAt(images, first_page, static_cast<uint32_t>(offset / kGranule)) + offset % kGranule;
  const Vec4 low = Load16(at);
  const Vec4 high = Load16(at + 16);
  ModuleRecord record;
  record.a = low.x;
  record.b = low.y;
  record.out_begin = low.z;
  record.out_cols = low.w;
  record.scale = BitsToFloat(high.x);
  record.rank = high.y;
  record.first_tile = high.z;
  record.site_tiles = high.w;
  return record;
}

// The kernels of adapter_shrink.cu and adapter_swiglu.cu; AdapterKernels has them all.
void AppendShrinkKernels(std::vector<KernelRef>& kernels);
void AppendSwiGluKernels(std::vector<KernelRef>& kernels);

}  // namespace lorad::kernels::cuda
