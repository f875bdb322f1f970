#include "memory/unified_pool.h"

#include <fmt/format.h>

#include <vector>

namespace lorad {

UnifiedPool::UnifiedPool(uint32_t pages, size_t page_bytes, Options options)
    : pages_(pages, page_bytes),
      queue_(&pages_),
      adapters_(&pages_, &queue_, options.initial_seconds_per_page),
      prefixes_(&pages_, &queue_, options.page_tokens, options.prefix_cache) {}

uint32_t UnifiedPool::available_pages() const {
  return pages_.free_pages() + adapters_.evictable_pages() + prefixes_.unreferenced_pages();
}

UnifiedPool::States UnifiedPool::states() const {
  return {.total = pages_.total_pages(),
          .free = pages_.free_pages(),
          .kv = pages_.pages_in_use(PageUse::kKv) - prefixes_.unreferenced_pages(),
          .kv_cached = prefixes_.unreferenced_pages(),
          .adapter = pages_.pages_in_use(PageUse::kAdapter) - adapters_.loading_pages(),
          .loading = adapters_.loading_pages()};
}

absl::Status UnifiedPool::Validate(std::span<const PageList* const> sequences) const {
  for (const absl::Status& status :
       {queue_.Validate(), adapters_.Validate(), prefixes_.Validate()}) {
    if (!status.ok()) return status;
  }
  std::vector<const PageList*> lists(sequences.begin(), sequences.end());
  for (const std::vector<const PageList*>& held :
       {adapters_.page_lists(), prefixes_.page_lists()}) {
    lists.insert(lists.end(), held.begin(), held.end());
  }
  if (absl::Status status = pages_.Validate(lists); !status.ok()) return status;
  const States s = states();
  if (s.free + s.kv + s.kv_cached + s.adapter + s.loading != s.total) {
    return absl::InternalError(
        fmt::format("pool: {} free, {} kv, {} kv cached, {} adapter and {} loading pages are not "
                    "all {}",
                    s.free, s.kv, s.kv_cached, s.adapter, s.loading, s.total));
  }
  return absl::OkStatus();
}

}  // namespace lorad
