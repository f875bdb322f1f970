// The pool's report and what fits in it.
#include "server/pool_reply.h"

#include <gtest/gtest.h>

#include "server/pool_fit.h"

namespace lorad {
namespace {

EngineSnapshot Snapshot() {
  EngineSnapshot snapshot;
  snapshot.gauges = {.pages_total = 100,
                     .pages_free = 40,
                     .pages_kv = 20,
                     .pages_kv_cached = 10,
                     .pages_adapter = 25,
                     .pages_loading = 5,
                     .pages_adapter_idle = 15,
                     .pages_adapter_pinned = 8};
  snapshot.adapters = {{.id = 1,
                        .name = "foo",
                        .version = 3,
                        .state = AdapterState::kResident,
                        .pinned = true,
                        .pages = 4,
                        .image_bytes = 4 * 4096 - 100,
                        .kv_pages = 6,
                        .kv_cached_pages = 2,
                        .running = 2,
                        .idle = std::chrono::seconds(5)},
                       {.id = 2,
                        .name = "acme/bar",
                        .version = 1,
                        .state = AdapterState::kLoading,
                        .pages = 5,
                        .image_bytes = 4 * 4096 + 1,
                        .idle = std::chrono::seconds(1)}};
  snapshot.tenants = {{.name = "", .kv_pages = 15, .kv_cached_pages = 4, .adapter_pages = 25},
                      {.name = "acme", .kv_pages = 5, .kv_cached_pages = 6, .adapter_pages = 5}};
  snapshot.gauges.waste_kv_bytes = 30 * 4096 / 16;
  snapshot.gauges.waste_adapter_bytes = 100 + 4095;
  snapshot.seconds_per_token = 0.25;
  snapshot.seconds_per_adapter_page = 0.5;
  return snapshot;
}

v1::Pool Filled(int rows) {
  v1::Pool pool;
  FillPool(Snapshot(), {.page_bytes = 4096, .page_tokens = 16}, rows,
           std::chrono::system_clock::from_time_t(1000), &pool);
  return pool;
}

TEST(PoolReplyTest, HostTier) {
  v1::Pool pool;
  FillHostTier({.bytes = 1, .capacity_bytes = 2, .adapters = 3, .hits = 4, .misses = 5}, &pool);
  EXPECT_EQ(pool.host_bytes(), 1);
  EXPECT_EQ(pool.host_capacity_bytes(), 2);
  EXPECT_EQ(pool.host_adapters(), 3);
  EXPECT_EQ(pool.host_hits_total(), 4);
  EXPECT_EQ(pool.host_misses_total(), 5);
}

TEST(PoolReplyTest, PagesAddUp) {
  const v1::Pool pool = Filled(10);
  EXPECT_EQ(pool.total_pages(), 100);
  EXPECT_EQ(pool.free_pages(), 40);
  EXPECT_EQ(pool.kv_pages(), 20);
  EXPECT_EQ(pool.kv_cached_pages(), 10);
  EXPECT_EQ(pool.adapter_pages(), 30) << "those that are being loaded included";
  EXPECT_EQ(pool.total_pages(),
            pool.free_pages() + pool.kv_pages() + pool.kv_cached_pages() + pool.adapter_pages());
  EXPECT_EQ(pool.adapter_loading_pages(), 5);
  EXPECT_EQ(pool.adapter_idle_pages(), 15);
  EXPECT_EQ(pool.adapter_pinned_pages(), 8);
  EXPECT_EQ(pool.page_bytes(), 4096);
  EXPECT_EQ(pool.page_tokens(), 16);
  EXPECT_EQ(pool.seconds_per_prompt_token(), 0.25);
  EXPECT_EQ(pool.seconds_per_adapter_page(), 0.5);
}

TEST(PoolReplyTest, WasteIsWhatPagesDoNotHold) {
  const v1::Pool pool = Filled(10);
  EXPECT_EQ(pool.kv_waste_bytes(), 30 * 4096 / 16);
  EXPECT_EQ(pool.adapter_waste_bytes(), 100 + 4095);
}

TEST(PoolReplyTest, AdaptersComeMostRecentlyUsedFirst) {
  const v1::Pool pool = Filled(10);
  ASSERT_EQ(pool.adapters_size(), 2);
  const v1::PoolAdapter& loading = pool.adapters(0);
  EXPECT_EQ(loading.name(), "adapters/acme/bar");
  EXPECT_EQ(loading.tenant(), "acme");
  EXPECT_TRUE(loading.loading());
  EXPECT_FALSE(loading.pinned());
  EXPECT_EQ(loading.waste_bytes(), 4095);
  EXPECT_EQ(loading.last_use_time().seconds(), 999);
  const v1::PoolAdapter& foo = pool.adapters(1);
  EXPECT_EQ(foo.name(), "adapters/foo");
  EXPECT_EQ(foo.tenant(), "");
  EXPECT_EQ(foo.version(), 3);
  EXPECT_TRUE(foo.pinned());
  EXPECT_FALSE(foo.loading());
  EXPECT_EQ(foo.pages(), 4);
  EXPECT_EQ(foo.kv_pages(), 6);
  EXPECT_EQ(foo.kv_cached_pages(), 2);
  EXPECT_EQ(foo.running_requests(), 2);
}

TEST(PoolReplyTest, RowsAreBounded) {
  const v1::Pool pool = Filled(1);
  EXPECT_EQ(pool.adapters_size(), 1);
  EXPECT_EQ(pool.adapter_count(), 2);
  ASSERT_EQ(pool.tenants_size(), 1);
  EXPECT_EQ(pool.tenants(0).tenant(), "");
  EXPECT_EQ(pool.tenants(0).kv_pages(), 15);
  EXPECT_EQ(pool.tenants(0).kv_cached_pages(), 4);
  EXPECT_EQ(pool.tenants(0).adapter_pages(), 25);
  EXPECT_EQ(Filled(10).tenants(1).tenant(), "acme");
}

TEST(PoolFitTest, CountsByWhatCanBeHad) {
  const GaugeReport pool = Snapshot().gauges;
  EXPECT_EQ(FitOf(10, pool), (PoolFit{.in_free_pages = 4, .in_available_pages = 6, .in_pool = 10}));
  EXPECT_EQ(FitOf(41, pool), (PoolFit{.in_free_pages = 0, .in_available_pages = 1, .in_pool = 2}));
  EXPECT_EQ(FitOf(101, pool), PoolFit());
  EXPECT_EQ(FitOf(0, pool), PoolFit());
}

}  // namespace
}  // namespace lorad
