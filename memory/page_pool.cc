#include "memory/page_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "memory/base/check.h"

namespace lorad {

PageList::PageList(PageList&& other) noexcept
    : pool_(other.pool_), use_(other.use_), ids_(std::exchange(other.ids_, {})) {}

PageList& PageList::operator=(PageList&& other) noexcept {
  if (this == &other) return *this;
  Clear();
  pool_ = other.pool_;
  use_ = other.use_;
  ids_ = std::exchange(other.ids_, {});
  return *this;
}

bool PageList::Grow(uint32_t n) {
  if (n == 0) return true;
  LORAD_CHECK(pool_ != nullptr);
  return pool_->Take(n, use_, &ids_);
}

void PageList::Share(const PageList& other, uint32_t first, uint32_t n) {
  LORAD_CHECK(pool_ == other.pool_ && use_ == other.use_);
  LORAD_CHECK(first <= other.size() && n <= other.size() - first);
  ids_.reserve(ids_.size() + n);  // so that `other` may be this list
  for (uint32_t i = first; i < first + n; ++i) {
    pool_->AddReference(other.ids_[i]);
    ids_.push_back(other.ids_[i]);
  }
}

void PageList::Replace(uint32_t i, const PageList& other, uint32_t j) {
  LORAD_CHECK(pool_ == other.pool_ && use_ == other.use_);
  LORAD_CHECK(i < size() && j < other.size());
  pool_->AddReference(other.ids_[j]);  // first: both may be the same page
  pool_->DropReference(std::exchange(ids_[i], other.ids_[j]));
}

void PageList::Truncate(uint32_t n) {
  LORAD_CHECK(n <= ids_.size());
  while (ids_.size() > n) {
    pool_->DropReference(ids_.back());
    ids_.pop_back();
  }
}

PagePool::PagePool(uint32_t pages, size_t page_bytes)
    : page_bytes_(page_bytes), references_(pages, 0), use_(pages, PageUse::kFree) {
  free_.reserve(pages);
  for (uint32_t page = pages; page > 0; --page) free_.push_back(page - 1);
  in_use_[static_cast<size_t>(PageUse::kFree)] = pages;
}

PagePool::~PagePool() { LORAD_CHECK(free_.size() == references_.size()); }

bool PagePool::Take(uint32_t n, PageUse use, std::vector<uint32_t>* out) {
  LORAD_CHECK(use != PageUse::kFree);
  if (n > free_.size()) return false;
  out->reserve(out->size() + n);
  for (uint32_t i = 0; i < n; ++i) {
    const uint32_t page = free_.back();
    free_.pop_back();
    LORAD_CHECK(references_[page] == 0);
    references_[page] = 1;
    use_[page] = use;
    out->push_back(page);
  }
  in_use_[static_cast<size_t>(PageUse::kFree)] -= n;
  in_use_[static_cast<size_t>(use)] += n;
  return true;
}

void PagePool::AddReference(uint32_t page) {
  LORAD_CHECK(references_[page] > 0);
  ++references_[page];
}

void PagePool::DropReference(uint32_t page) {
  LORAD_CHECK(references_[page] > 0);
  if (--references_[page] > 0) return;
  --in_use_[static_cast<size_t>(use_[page])];
  ++in_use_[static_cast<size_t>(PageUse::kFree)];
  use_[page] = PageUse::kFree;
  free_.push_back(page);
  if (notes_freed_) freed_.push_back(page);
}

std::vector<uint32_t> PagePool::TakeFreed() {
  std::vector<uint32_t> freed = std::exchange(freed_, {});
  std::erase_if(freed, [this](uint32_t page) { return use_[page] != PageUse::kFree; });
  std::sort(freed.begin(), freed.end());
  freed.erase(std::unique(freed.begin(), freed.end()), freed.end());
  return freed;
}

absl::Status PagePool::Validate() const {
  const uint32_t pages = total_pages();
  std::vector<bool> listed(pages, false);
  for (const uint32_t page : free_) {
    if (page >= pages) {
      return absl::InternalError(fmt::format("free list: page {} of {}", page, pages));
    }
    if (listed[page]) return absl::InternalError(fmt::format("page {} is twice free", page));
    listed[page] = true;
  }
  std::array<uint32_t, kPageUses> counted{};
  for (uint32_t page = 0; page < pages; ++page) {
    const bool is_free = use_[page] == PageUse::kFree;
    if (is_free != listed[page] || is_free != (references_[page] == 0)) {
      return absl::InternalError(fmt::format("page {}: use {}, {} references, {} the free list",
                                             page, static_cast<int>(use_[page]), references_[page],
                                             listed[page] ? "on" : "not on"));
    }
    ++counted[static_cast<size_t>(use_[page])];
  }
  for (size_t use = 0; use < kPageUses; ++use) {
    if (counted[use] != in_use_[use]) {
      return absl::InternalError(fmt::format("use {}: {} pages counted, {} in the books", use,
                                             counted[use], in_use_[use]));
    }
  }
  return absl::OkStatus();
}

absl::Status PagePool::Validate(std::span<const PageList* const> lists) const {
  if (absl::Status status = Validate(); !status.ok()) return status;
  std::vector<uint32_t> counted(references_.size(), 0);
  for (const PageList* list : lists) {
    if (list->size() > 0 && list->pool_ != this) {
      return absl::InternalError("a list of another pool");
    }
    for (const uint32_t page : list->ids()) {
      if (page >= counted.size()) {
        return absl::InternalError(fmt::format("a list holds page {}", page));
      }
      if (use_[page] != list->use()) {
        return absl::InternalError(fmt::format("page {} of use {} is in a list of use {}", page,
                                               static_cast<int>(use_[page]),
                                               static_cast<int>(list->use())));
      }
      ++counted[page];
    }
  }
  for (uint32_t page = 0; page < counted.size(); ++page) {
    if (counted[page] != references_[page]) {
      return absl::InternalError(fmt::format("page {}: {} references, {} list entries", page,
                                             references_[page], counted[page]));
    }
  }
  return absl::OkStatus();
}

}  // namespace lorad
