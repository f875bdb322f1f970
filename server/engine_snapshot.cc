// The engine's report of who holds what. Engine thread only.
#include "server/engine_snapshot.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "memory/stored_version.h"
#include "server/engine.h"

namespace lorad {
GaugeReport Engine::Gauges() const {
  const AdapterCache::Stats stats = pool_.adapters().stats();
  const UnifiedPool::States pages = pool_.states();
  const size_t page_bytes = pool_.pages().page_bytes();
  const auto page_tokens = static_cast<uint64_t>(options_.policy.page_tokens);
  uint64_t unused_tokens = 0;
  for (const auto& s : running_) {
    unused_tokens += s->pages.size() * page_tokens - static_cast<uint64_t>(s->computed_ahead());
  }
  return {.running = static_cast<int>(running_.size()),
          .waiting = static_cast<int>(waiting_.size()),
          .parked = static_cast<int>(parked_.size()),
          .pages_total = pages.total,
          .pages_free = pages.free,
          .pages_kv = pages.kv,
          .pages_kv_cached = pages.kv_cached,
          .pages_adapter = pages.adapter,
          .pages_loading = pages.loading,
          .pages_adapter_idle = pool_.adapters().evictable_pages(),
          .pages_adapter_pinned = stats.pinned_pages,
          .waste_kv_bytes = unused_tokens * (page_bytes / page_tokens),
          .waste_adapter_bytes = (pages.adapter + pages.loading) * page_bytes - image_bytes_,
          .tenant_spread = ledger_.spread(),
          .pinned_requests = plan_.pinned,
          .adapter_drains = plan_.draining != 0,
          .budget = plan_.budget,
          .adapters_loading = stats.loading,
          .adapters_resident = stats.resident,
          .adapters_in_use = stats.leased,
          .adapters_pinned = stats.pinned};
}

EngineSnapshot Engine::TakeSnapshot() const {
  EngineSnapshot snapshot;
  snapshot.gauges = Gauges();
  snapshot.draining = draining();
  snapshot.seconds_per_token = pool_.prefixes().seconds_per_token();
  snapshot.seconds_per_adapter_page = pool_.adapters().seconds_per_page();

  absl::flat_hash_map<AdapterVersionId, EngineSnapshot::Adapter> adapters;
  std::map<std::string, EngineSnapshot::Tenant, std::less<>> tenants;
  const TimePoint now = parts_.clock->Now();
  for (const auto& [id, held] : held_) {
    const bool resident = pool_.adapters().IsResident(id);
    if (!resident && !pool_.adapters().IsLoading(id)) continue;
    const uint32_t pages = pool_.adapters().pages_of(id);
    adapters[id] = {.id = id,
                    .name = held.name,
                    .version = held.version,
                    .state = resident ? AdapterState::kResident : AdapterState::kLoading,
                    .pinned = pinned_.contains(id),
                    .pages = pages,
                    .image_bytes = held.image_bytes,
                    .idle = now - pool_.adapters().last_use(id)};
    tenants[std::string(OwnerOf(held.name))].adapter_pages += pages;
  }
  for (const auto& s : running_) {
    tenants[s->request->tenant].kv_pages += s->pages.size();
    if (s->adapter() == nullptr) continue;
    EngineSnapshot::Adapter& row = adapters[s->adapter()->id];  // leased: it is there
    ++row.running;
    row.kv_pages += s->pages.size();
  }
  for (const auto& [id, s] : waiting_) {
    if (s->adapter() == nullptr) continue;
    const auto row = adapters.find(s->adapter()->id);
    if (row != adapters.end()) ++row->second.waiting;
  }
  for (const PrefixCache::ScopePages& scope : pool_.prefixes().scopes()) {
    tenants[scope.scope->tenant].kv_cached_pages += scope.unreferenced;
    const auto row = adapters.find(scope.scope->adapter);
    if (row != adapters.end()) row->second.kv_cached_pages += scope.unreferenced;
  }

  for (auto& [id, row] : adapters) snapshot.adapters.push_back(std::move(row));
  for (auto& [name, row] : tenants) {
    if (row.kv_pages + row.kv_cached_pages + row.adapter_pages == 0) continue;
    row.name = name;
    snapshot.tenants.push_back(std::move(row));
  }
  std::stable_sort(snapshot.tenants.begin(), snapshot.tenants.end(),
                   [](const auto& a, const auto& b) {
                     return a.kv_pages + a.kv_cached_pages + a.adapter_pages >
                            b.kv_pages + b.kv_cached_pages + b.adapter_pages;
                   });
  return snapshot;
}

}  // namespace lorad
