#include "client/loractl/pool_views.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/client/run_loractl.h"

namespace lorad::loractl {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

v1::Pool OneOfEach() {
  v1::Pool pool;
  pool.set_total_pages(100);
  pool.set_page_bytes(1 << 20);
  pool.set_page_tokens(16);
  pool.set_kv_pages(30);
  pool.set_kv_cached_pages(20);
  pool.set_adapter_pages(40);  // 5 loading, 10 pinned, 15 idle: 10 in use
  pool.set_adapter_loading_pages(5);
  pool.set_adapter_pinned_pages(10);
  pool.set_adapter_idle_pages(15);
  pool.set_free_pages(10);
  return pool;
}

// What is between the brackets.
std::string BarOf(const v1::Pool& pool, int width) {
  const std::string picture = PoolPicture(pool, Terminal(nullptr, nullptr, false, width));
  const size_t begin = picture.find('[');
  return picture.substr(begin + 1, picture.find(']') - begin - 1);
}

TEST(PoolPictureTest, ALetterAState) {
  EXPECT_EQ(BarOf(OneOfEach(), 102), std::string(30, '#') + std::string(20, '+') +
                                         std::string(10, 'A') + std::string(15, 'a') +
                                         std::string(10, 'P') + std::string(5, 'L') +
                                         std::string(10, '.'));
}

TEST(PoolPictureTest, TheBarIsAsWideAsTheTerminalAndShowsEveryState) {
  v1::Pool tiny = OneOfEach();
  tiny.set_total_pages(1000000);
  tiny.set_free_pages(1000000 - 90);
  for (const v1::Pool& pool : {OneOfEach(), tiny}) {
    for (const int width : {20, 21, 37, 80, 133, 250}) {
      const std::string bar = BarOf(pool, width);
      EXPECT_EQ(bar.size(), static_cast<size_t>(width - 2));
      for (const char state : {'#', '+', 'A', 'a', 'P', 'L', '.'}) {
        EXPECT_NE(bar.find(state), std::string::npos) << state << " at " << width << ": " << bar;
      }
    }
  }
  EXPECT_EQ(BarOf(v1::Pool(), 80), "");
}

TEST(PoolPictureTest, TheLegendHasPagesBytesAndPercent) {
  const std::string picture = PoolPicture(OneOfEach(), Terminal(nullptr, nullptr, false, 80));
  for (const char* line : {"100 pages of 1.0 MiB = 100.0 MiB; 16 tokens a page\n",
                           "  # keys and values         30 pages    30.0 MiB  30.0 %\n",
                           "  P pinned adapters         10 pages    10.0 MiB  10.0 %\n",
                           "  A adapters in use         10 pages    10.0 MiB  10.0 %\n"}) {
    EXPECT_THAT(picture, HasSubstr(line));
  }
  EXPECT_THAT(picture, Not(HasSubstr("\x1b")));
  EXPECT_THAT(PoolPicture(OneOfEach(), Terminal(nullptr, nullptr, true, 80)),
              HasSubstr("\x1b[36m"));
}

// A server may count a page in two of them; the picture still counts each once.
TEST(PoolPictureTest, OverlappingCountsStillAddUp) {
  v1::Pool pool = OneOfEach();
  pool.set_adapter_pages(12);
  pool.set_free_pages(38);
  const std::string bar = BarOf(pool, 102);
  EXPECT_EQ(bar.size(), 100u);
  EXPECT_EQ(std::count(bar.begin(), bar.end(), 'L'), 5);
  EXPECT_EQ(std::count(bar.begin(), bar.end(), 'P'), 7);
  EXPECT_EQ(std::count(bar.begin(), bar.end(), 'A'), 0);
}

TEST(PoolFactsTest, WasteAndWhatWasLearned) {
  EXPECT_EQ(PoolFacts(v1::Pool()), "");
  v1::Pool pool = OneOfEach();
  pool.set_kv_waste_bytes(3 << 20);
  pool.set_adapter_waste_bytes(1 << 20);
  pool.set_seconds_per_prompt_token(0.00125);
  pool.set_seconds_per_adapter_page(0.002);
  pool.set_host_capacity_bytes(1 << 30);
  pool.set_host_bytes(300 << 20);
  pool.set_host_adapters(12);
  pool.set_host_hits_total(3);
  pool.set_host_misses_total(1);
  EXPECT_EQ(PoolFacts(pool),
            "  wasted: 4.0 MiB (4.0 % of the pool): keys and values 3.0 MiB, adapters 1.0 MiB\n"
            "  host memory: 300.0 MiB of 1.0 GiB, 12 adapters; 75 % of 4 loads found theirs\n"
            "  learned: 1.25 ms to compute a prompt token again, 2 ms to load an adapter page\n");
}

class PoolCommandTest : public LoractlTest {};

TEST_F(PoolCommandTest, TablesOfTenantsAndAdapters) {
  server_.admin.pool = OneOfEach();
  v1::PoolTenant* acme = server_.admin.pool.add_tenants();
  acme->set_tenant("acme");
  acme->set_kv_pages(20);
  acme->set_kv_cached_pages(3);
  acme->set_adapter_pages(2);
  server_.admin.pool.add_tenants()->set_adapter_pages(7);
  v1::PoolAdapter* adapter = server_.admin.pool.add_adapters();
  adapter->set_name("adapters/acme/pirate");
  adapter->set_version(4);
  adapter->set_pages(2);
  adapter->set_kv_pages(9);
  adapter->set_kv_cached_pages(8);
  adapter->set_waste_bytes(512);
  adapter->set_pinned(true);
  adapter->set_running_requests(1);
  server_.admin.pool.set_adapter_count(3);
  const Outcome r = Run({"pool"});
  ASSERT_EQ(r.code, kOk) << r.err;
  EXPECT_THAT(r.out, HasSubstr("TENANT  KV  CACHED  ADAPTERS  PAGES      SIZE   SHARE\n"
                               "acme    20       3         2     25  25.0 MiB  25.0 %\n"
                               "-        0       0         7      7   7.0 MiB   7.0 %\n"));
  EXPECT_THAT(
      r.out,
      HasSubstr("ADAPTER        PAGES  WASTE  KV  CACHED  PINNED  RUNNING  LAST USE\n"
                "acme/pirate@4      2  512 B   9       8     yes        1  never     AAAAAAAA\n"
                "... and 2 more\n"));
  EXPECT_THAT(Run({"pool", "--json"}).out, HasSubstr(R"("adapter_pinned_pages":10)"));
}

TEST_F(PoolCommandTest, Fit) {
  v1::Fit& fit = server_.admin.fit;
  fit.set_adapter_pages(12);
  fit.set_adapter_image_bytes(11 << 20);
  fit.set_adapters_in_free_pages(1);
  fit.set_adapters_in_available_pages(22);
  fit.set_adapters_in_pool(333);
  fit.set_sequence_pages(128);
  fit.set_sequences_in_free_pages(4);
  fit.set_sequences_in_available_pages(55);
  fit.set_sequences_in_pool(666);
  const Outcome r =
      Run({"pool", "fit", "--rank", "16", "--module", "q_proj", "v_proj", "--tokens", "2048"});
  ASSERT_EQ(r.code, kOk) << r.err;
  EXPECT_EQ(r.out,
            "an adapter of rank 16 on q_proj, v_proj: 12 pages, image 11.0 MiB\n"
            "a sequence of 2048 tokens: 128 pages\n"
            "\n"
            "SO MANY FIT IN   ADAPTERS  SEQUENCES\n"
            "free pages              1          4\n"
            "available pages        22         55\n"
            "an empty pool         333        666\n");
  EXPECT_EQ(server_.admin.fit_asked.rank(), 16);
  EXPECT_EQ(server_.admin.fit_asked.sequence_tokens(), 2048);
  EXPECT_THAT(server_.admin.fit_asked.target_modules(), ElementsAre("q_proj", "v_proj"));
  const Outcome sequences = Run({"pool", "fit"});
  EXPECT_THAT(sequences.out,
              AllOf(HasSubstr("the longest sequence: 128 pages"), Not(HasSubstr("ADAPTERS"))));
  EXPECT_THAT(Run({"pool", "fit", "--json"}).out, HasSubstr(R"("adapters_in_pool":333)"));
  EXPECT_EQ(Run({"pool", "fit", "--rank", "0"}).code, kUsage);
}

TEST_F(PoolCommandTest, Tenants) {
  EXPECT_THAT(Run({"tenants"}).err, HasSubstr("no tenants"));
  v1::Tenant* acme = server_.admin.tenants.add_tenants();
  acme->set_name("acme");
  acme->set_adapters(3);
  acme->set_max_adapters(10);
  acme->set_stored_bytes(5 << 20);
  acme->set_default_adapter("adapters/acme/foo");
  acme->set_weight(2.5);
  v1::Tenant* umbrella = server_.admin.tenants.add_tenants();
  umbrella->set_name("umbrella");
  umbrella->set_weight(1);
  EXPECT_EQ(Run({"tenants"}).out,
            "TENANT    WEIGHT  ADAPTERS   STORED  DEFAULT ADAPTER\n"
            "acme         2.5   3 of 10  5.0 MiB  acme/foo\n"
            "umbrella       1         0      0 B  -\n");
  EXPECT_THAT(Run({"tenants", "--json"}).out, HasSubstr(R"("max_adapters":10)"));
}

}  // namespace
}  // namespace lorad::loractl
