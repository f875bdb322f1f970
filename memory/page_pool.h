// PagePool: one allocation cut into equal pages that KV cache and adapter images share. It hands
// out page numbers and keeps the books; the bytes belong to the backend's buffer and are touched by
// kernels only.
//
// Thread: the engine's only.
//
// Books. Every page is in exactly one state:
//   free        reference count 0, on the free list once, use kFree
//   used        reference count >= 1, not on the free list, use kKv or kAdapter
// and the sum of all PageLists' entries for a page equals its reference count. Validate() proves
// the first part and, given every live list, the second. Pages are freed only by a PageList, so a
// leak or a double free does not compile. The use of a page is that of the list that took it; it
// does not change until the page is free again.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace lorad {

enum class PageUse : uint8_t { kFree = 0, kKv = 1, kAdapter = 2 };
inline constexpr int kPageUses = 3;

class PagePool;

// An ordered list of pages that its owner holds a reference to: a sequence's page table or an
// adapter's image. Move-only; releases its references when destroyed. A list that was moved from is
// empty and may be used again. One that was made without a pool stays empty.  REQUIRES: the pool
// outlives it.
class PageList {
 public:
  PageList() = default;
  PageList(PagePool* pool, PageUse use) : pool_(pool), use_(use) {}
  PageList(PageList&& other) noexcept;
  PageList& operator=(PageList&& other) noexcept;
  PageList(const PageList&) = delete;
  PageList& operator=(const PageList&) = delete;
  ~PageList() { Clear(); }

  // Adds `n` fresh pages, all or none. False: fewer than n are free; nothing changed.
  [[nodiscard]] bool Grow(uint32_t n);
  // Appends pages [first, first + n) of `other` as shared references. REQUIRES: same pool and use,
  // first + n <= other.size().
  void Share(const PageList& other, uint32_t first, uint32_t n);
  // Entry `i` becomes a shared reference to entry `j` of `other`; the page that it was is given up.
  // REQUIRES: same pool and use, i < size(), j < other.size().
  void Replace(uint32_t i, const PageList& other, uint32_t j);
  // Keeps the first `n` pages and gives the others up, last one first. REQUIRES: n <= size().
  void Truncate(uint32_t n);
  void Clear() { Truncate(0); }

  std::span<const uint32_t> ids() const { return ids_; }
  uint32_t size() const { return static_cast<uint32_t>(ids_.size()); }
  PageUse use() const { return use_; }

 private:
  friend class PagePool;  // Validate

  PagePool* pool_ = nullptr;
  PageUse use_ = PageUse::kFree;
  std::vector<uint32_t> ids_;
};

class PagePool {
 public:
  PagePool(uint32_t pages, size_t page_bytes);
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;
  ~PagePool();  // REQUIRES: every list is gone or empty

  uint32_t total_pages() const { return static_cast<uint32_t>(references_.size()); }
  uint32_t free_pages() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t pages_in_use(PageUse use) const { return in_use_[static_cast<size_t>(use)]; }
  size_t page_bytes() const { return page_bytes_; }
  uint32_t references(uint32_t page) const { return references_[page]; }

  // From now on pages that become free are noted, for TakeFreed.
  void NoteFreed() { notes_freed_ = true; }
  // Pages that became free since the last call and are free still, ascending.
  std::vector<uint32_t> TakeFreed();

  // Internal error naming the first broken rule of the books. O(pages).
  absl::Status Validate() const;
  // Also proves that `lists` are all the references there are.
  absl::Status Validate(std::span<const PageList* const> lists) const;

 private:
  friend class PageList;
  bool Take(uint32_t n, PageUse use, std::vector<uint32_t>* out);
  void AddReference(uint32_t page);
  void DropReference(uint32_t page);

  const size_t page_bytes_;
  std::vector<uint32_t> references_;  // [pages]
  std::vector<PageUse> use_;          // [pages]
  std::vector<uint32_t> free_;  // stack: the page freed last is given out first (warm in cache)
  std::array<uint32_t, kPageUses> in_use_{};  // pages by use; [kFree] is free_.size()
  bool notes_freed_ = false;
  std::vector<uint32_t> freed_;  // since the last TakeFreed, taken again or not
};

}  // namespace lorad
