#include "server/pool_reply.h"

#include <algorithm>

#include "server/reply.h"

namespace lorad {
namespace {

void FillPages(const GaugeReport& gauges, v1::Pool* out) {
  out->set_total_pages(gauges.pages_total);
  out->set_free_pages(gauges.pages_free);
  out->set_kv_pages(gauges.pages_kv);
  out->set_kv_cached_pages(gauges.pages_kv_cached);
  out->set_adapter_pages(int64_t{gauges.pages_adapter} + gauges.pages_loading);
  out->set_adapter_idle_pages(gauges.pages_adapter_idle);
  out->set_adapter_loading_pages(gauges.pages_loading);
  out->set_adapter_pinned_pages(gauges.pages_adapter_pinned);
}

int64_t WasteOf(const EngineSnapshot::Adapter& adapter, size_t page_bytes) {
  return static_cast<int64_t>(adapter.pages * page_bytes) -
         static_cast<int64_t>(adapter.image_bytes);
}

void FillAdapterRow(const EngineSnapshot::Adapter& adapter, size_t page_bytes,
                    std::chrono::system_clock::time_point now, v1::PoolAdapter* row) {
  row->set_name("adapters/" + adapter.name);
  row->set_version(adapter.version);
  const size_t slash = adapter.name.find('/');
  if (slash != std::string::npos) row->set_tenant(adapter.name.substr(0, slash));
  row->set_pages(adapter.pages);
  row->set_loading(adapter.state == AdapterState::kLoading);
  row->set_pinned(adapter.pinned);
  row->set_running_requests(adapter.running);
  row->set_kv_pages(adapter.kv_pages);
  row->set_kv_cached_pages(adapter.kv_cached_pages);
  row->set_waste_bytes(WasteOf(adapter, page_bytes));
  SetTimestamp(now - std::chrono::duration_cast<std::chrono::milliseconds>(adapter.idle),
               row->mutable_last_use_time());
}

}  // namespace

void FillPool(EngineSnapshot snapshot, const PoolGeometry& geometry, int rows,
              std::chrono::system_clock::time_point now, v1::Pool* out) {
  FillPages(snapshot.gauges, out);
  out->set_page_bytes(static_cast<int64_t>(geometry.page_bytes));
  out->set_page_tokens(geometry.page_tokens);
  out->set_seconds_per_prompt_token(snapshot.seconds_per_token);
  out->set_seconds_per_adapter_page(snapshot.seconds_per_adapter_page);
  out->set_kv_waste_bytes(static_cast<int64_t>(snapshot.gauges.waste_kv_bytes));
  out->set_adapter_waste_bytes(static_cast<int64_t>(snapshot.gauges.waste_adapter_bytes));
  std::sort(snapshot.adapters.begin(), snapshot.adapters.end(), [](const auto& a, const auto& b) {
    return a.idle != b.idle ? a.idle < b.idle : a.id < b.id;
  });
  for (const auto& adapter : snapshot.adapters) {
    if (out->adapters_size() == rows) break;
    FillAdapterRow(adapter, geometry.page_bytes, now, out->add_adapters());
  }
  out->set_adapter_count(static_cast<int32_t>(snapshot.adapters.size()));
  for (const auto& tenant : snapshot.tenants) {
    if (out->tenants_size() == rows) break;
    v1::PoolTenant* row = out->add_tenants();
    row->set_tenant(tenant.name);
    row->set_kv_pages(tenant.kv_pages);
    row->set_kv_cached_pages(tenant.kv_cached_pages);
    row->set_adapter_pages(tenant.adapter_pages);
  }
}

void FillHostTier(const HostTierReport& report, v1::Pool* out) {
  out->set_host_bytes(static_cast<int64_t>(report.bytes));
  out->set_host_capacity_bytes(static_cast<int64_t>(report.capacity_bytes));
  out->set_host_adapters(static_cast<int32_t>(report.adapters));
  out->set_host_hits_total(static_cast<int64_t>(report.hits));
  out->set_host_misses_total(static_cast<int64_t>(report.misses));
}

}  // namespace lorad
