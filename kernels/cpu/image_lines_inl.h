// Reading an adapter's image in the page pool: lines of 64 bytes, which never straddle a page.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace lorad::kernels::cpu {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int kLineElements = 32;

// `lines` consecutive lines of an image, as far as they lie in the page of the first.
struct Run {
  const uint16_t* data;
  int64_t lines;
};
LORAD_SIMD_INLINE Run RunAt(const PagedImage& image, uint64_t offset, int64_t lines) {
  const uint64_t page = offset / image.page_bytes;
  const uint64_t in_page = offset - page * image.page_bytes;
  const auto left = static_cast<int64_t>((image.page_bytes - in_page) / kLineBytes);
  return {reinterpret_cast<const uint16_t*>(image.slab + image.pages[page] * image.page_bytes +
                                            in_page),
          left < lines ? left : lines};
}

// `lines` lines from `offset` on, which may lie in two pages.
LORAD_SIMD_INLINE void CopyLines(const PagedImage& image, uint64_t offset, int lines,
                                 uint16_t* out) {
  const Run head = RunAt(image, offset, lines);
  __builtin_memcpy(out, head.data, static_cast<size_t>(head.lines * kLineBytes));
  if (head.lines == lines) return;
  const Run rest =
      RunAt(image, offset + static_cast<uint64_t>(head.lines * kLineBytes), lines - head.lines);
  __builtin_memcpy(out + head.lines * kLineElements, rest.data,
                   static_cast<size_t>(rest.lines * kLineBytes));
}

}  // namespace
}  // namespace lorad::kernels::cpu
