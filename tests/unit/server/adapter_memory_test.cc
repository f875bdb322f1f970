// What the server keeps in memory for an adapter that nobody uses, in store and catalog together:
// counts all that this process allocates.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "memory/store_layout.h"
#include "memory/store_manifest.h"
#include "tests/unit/memory/heap_count.h"
#include "tests/unit/server/catalog_fixture.h"

namespace lorad {
namespace {

class AdapterMemoryTest : public CatalogTest {
 protected:
  static constexpr int kAdapters = 2000;

  // An adapter as a large model's would be noted, with files of a few bytes that nobody reads.
  void WriteAdapter(int i, const std::string& facts, const std::string& settings) {
    const auto file = [](const std::string& content) {
      Sha256 hash;
      hash.Update(content);
      return StoredFile{.bytes = static_cast<int64_t>(content.size()), .sha256 = hash.Finish()};
    };
    const std::string config = fmt::format("config {}", i), weights = fmt::format("weights {}", i);
    Manifest manifest;
    manifest.version = {.id = fmt::format("tenant-number-{}/adapter-number-{}", i % 50, i),
                        .version = 1,
                        .config = file(config),
                        .weights = file(weights),
                        .facts = facts};
    manifest.settings = settings;
    const std::string directory =
        fmt::format("state/adapters/{}/1", DirectoryName(manifest.version.id));
    std::filesystem::create_directories(folder_.path() / directory);
    folder_.Write(fmt::format("{}/{}", directory, kAdapterConfigFile), config);
    folder_.Write(fmt::format("{}/{}", directory, kAdapterWeightsFile), weights);
    folder_.Write(fmt::format("{}/{}", directory, kManifestFile), ToManifest(manifest));
  }

  // Bytes that each of kAdapters adapters with these texts takes.
  int64_t Measure(const std::function<std::string(int)>& settings) {
    Open();
    Close();
    const AdapterFacts facts{.image_bytes = 167772160,
                             .pages = 80,
                             .max_rank = 64,
                             .ranks = {16, 64},
                             .target_modules = {"down_proj", "gate_proj", "k_proj", "o_proj",
                                                "q_proj", "up_proj", "v_proj"},
                             .base_model = "meta-llama/Llama-3.1-8B-Instruct",
                             .alpha = 128};
    pool_pages_ = 1000;
    const std::string text =
        FactsToText(facts, FactsFingerprint(model_, backend_->name(), page_bytes_));
    for (int i = 0; i < kAdapters; ++i) WriteAdapter(i, text, settings(i));
    const int64_t before = LiveHeapBytes();
    Open();
    const int64_t each = (LiveHeapBytes() - before) / kAdapters;
    EXPECT_EQ(report_.size(), 0u) << report_[0];
    EXPECT_EQ(catalog_->Count(""), kAdapters);
    EXPECT_EQ(*catalog_->Get("", "tenant-number-7/adapter-number-7")->version->facts, facts);
    RecordProperty("bytes_each", std::to_string(each));
    EXPECT_GT(each, static_cast<int64_t>(text.size()) + 4 * 64) << "something was not counted";
    return each;
  }
};

TEST_F(AdapterMemoryTest, AnIdleAdapterTakesAtMostFourKibibytes) {
  EXPECT_LE(Measure([](int) { return ""; }), 4096);
}

TEST_F(AdapterMemoryTest, AlsoWithSettings) {
  EXPECT_LE(Measure([](int i) {
              return *SettingsToText(
                  {.settings = {.labels = {{"team", "support"}, {"stage", "production"}},
                                .description = "Answers questions about invoices.",
                                .aliases = {fmt::format("alias-number-{}", i)}},
                   .sequence = i});
            }),
            4096);
}

}  // namespace
}  // namespace lorad
