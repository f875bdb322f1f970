// What the store keeps in memory for an adapter: counts all that this process allocates.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "memory/adapter_store.h"
#include "memory/store_manifest.h"
#include "tests/unit/memory/heap_count.h"
#include "tests/unit/memory/store_fixture.h"

namespace lorad {
namespace {

namespace fs = std::filesystem;

TEST_F(StoreTest, AnAdapterTakesLittleMemory) {
  constexpr int kAdapters = 1000, kFactsBytes = 300;
  Open();
  store_.reset();
  for (int i = 0; i < kAdapters; ++i) {
    Manifest manifest;
    const std::string config = ConfigOf(i), weights = fmt::format("weights {}", i);
    manifest.version = {
        .id = fmt::format("tenant-number-{}/adapter-number-{}", i % 50, i),
        .version = 1,
        .config = {.bytes = static_cast<int64_t>(config.size()), .sha256 = HashOf(config)},
        .weights = {.bytes = static_cast<int64_t>(weights.size()), .sha256 = HashOf(weights)},
        .facts = std::string(kFactsBytes, 'f')};
    const fs::path directory = root_ / "adapters" / DirectoryName(manifest.version.id) / "1";
    fs::create_directories(directory);
    WriteFile(directory / kAdapterConfigFile, config);
    WriteFile(directory / kAdapterWeightsFile, weights);
    WriteFile(directory / kManifestFile, ToManifest(manifest));
  }
  const int64_t before = LiveHeapBytes();
  AdapterStore& store = Open();
  const int64_t each = (LiveHeapBytes() - before) / kAdapters;
  ASSERT_EQ(store.List().size(), static_cast<size_t>(kAdapters));
  EXPECT_EQ(store.List()[7].current.facts.size(), static_cast<size_t>(kFactsBytes));
  RecordProperty("bytes_each", std::to_string(each));
  EXPECT_GT(each, kFactsBytes + 2 * 64);  // else something was not counted
  EXPECT_LE(each, 1536);
}

}  // namespace
}  // namespace lorad
