#include "server/adapter_facts.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "memory/stored_version.h"
#include "tests/unit/server/catalog_fixture.h"

namespace lorad {
namespace {

AdapterFacts Facts() {
  return {.image_bytes = 12345,
          .pages = 7,
          .max_rank = 16,
          .ranks = {4, 16},
          .target_modules = {"k_proj", "q_proj"},
          .base_model = "acme/base \"7B\"",
          .alpha = 0.1};
}

TEST(FactsTextTest, ComesBackAsItWas) {
  const auto back = FactsFromText(FactsToText(Facts(), "here"), "here");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, Facts());
}

TEST(FactsTextTest, AnotherFingerprintMeansLookAgain) {
  const std::string text = FactsToText(Facts(), "here");
  EXPECT_TRUE(absl::IsFailedPrecondition(FactsFromText(text, "there").status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(FactsFromText("", "here").status()));
}

TEST(FactsTextTest, IsBoundedWhateverTheConfigSays) {
  AdapterFacts facts = Facts();
  facts.base_model.clear();
  for (int i = 0; i < 100000; ++i) facts.base_model += "\xC3\xA4";
  for (int rank = 1; rank <= 256; ++rank) facts.ranks.push_back(rank);
  facts.max_rank = 256;
  const std::string text = FactsToText(facts, "here");
  EXPECT_LE(text.size(), kMaxFactsBytes);
  const auto back = FactsFromText(text, "here");
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(facts.base_model.starts_with(back->base_model));
  EXPECT_EQ(back->base_model.size(), 512u);
  facts.base_model = std::string(100000, '\x01');  // six bytes each, as JSON
  EXPECT_LE(FactsToText(facts, "here").size(), kMaxFactsBytes);
}

TEST(FactsTextTest, DamagedTextIsAnErrorAndNothingWorse) {
  const std::string good = FactsToText(Facts(), "here");
  const std::pair<const char*, const char*> damages[] = {
      {"{", "["},
      {"\"pages\":7", "\"pages\":0"},
      {"\"pages\":7", "\"pages\":4294967296"},
      {"\"pages\":7", "\"pages\":-7"},
      {"\"image_bytes\":12345", "\"image_bytes\":\"x\""},
      {"\"rank\":16", "\"rank\":0"},
      {"\"ranks\":[4,16]", "\"ranks\":[4,17]"},
      {"\"ranks\":[4,16]", "\"ranks\":[0]"},
      {"\"ranks\":[4,16]", "\"ranks\":4"},
      {"[\"k_proj\",\"q_proj\"]", "[1]"},
      {"[\"k_proj\",\"q_proj\"]", "null"},
      {"\"alpha\":0.1", "\"alpha\":1e999"},
      {"\"alpha\":0.1", "\"alpha\":0.1,\"more\":1"}};
  for (const auto& [from, to] : damages) {
    std::string text = good;
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    text.replace(at, std::string(from).size(), to);
    EXPECT_TRUE(absl::IsDataLoss(FactsFromText(text, "here").status())) << text;
  }
  for (size_t end = 1; end < good.size(); ++end) {
    EXPECT_FALSE(FactsFromText(good.substr(0, end), "here").ok()) << end;
  }
}

TEST(FactsFingerprintTest, ChangesWithEverythingThatALayoutDependsOn) {
  const ModelConfig model = CatalogModel();
  const std::string same = FactsFingerprint(model, "cpu/avx2", 4096);
  EXPECT_EQ(FactsFingerprint(model, "cpu/avx2", 4096), same);
  EXPECT_NE(FactsFingerprint(model, "cpu/amx", 4096), same);
  EXPECT_NE(FactsFingerprint(model, "cpu/avx2", 8192), same);
  const std::function<void(ModelConfig*)> changes[] = {
      [](ModelConfig* m) { m->vocab_size += 1; }, [](ModelConfig* m) { m->hidden_size += 1; },
      [](ModelConfig* m) { m->layers += 1; },     [](ModelConfig* m) { m->heads += 1; },
      [](ModelConfig* m) { m->kv_heads += 1; },   [](ModelConfig* m) { m->head_dim += 1; },
      [](ModelConfig* m) { m->ffn_size += 1; }};
  for (const auto& change : changes) {
    ModelConfig other = model;
    change(&other);
    EXPECT_NE(FactsFingerprint(other, "cpu/avx2", 4096), same);
  }
}

TEST(FactsTableTest, EqualTextsAreOneObject) {
  FactsTable table("here");
  const std::string text = FactsToText(Facts(), "here");
  const AdapterFactsPtr first = *table.FromText(text);
  EXPECT_EQ(*table.FromText(text), first);
  EXPECT_EQ(*first, Facts());
  AdapterFacts other = Facts();
  other.pages = 8;
  EXPECT_NE(*table.FromText(FactsToText(other, "here")), first);
  EXPECT_FALSE(table.FromText(FactsToText(other, "there")).ok());
}

TEST(FactsTableTest, ForgetsWhatNobodyUses) {
  FactsTable table("here");
  AdapterFacts facts = Facts();
  const AdapterFactsPtr used = *table.FromText(FactsToText(facts, "here"));
  for (uint32_t i = 0; i < 1000; ++i) {
    facts.pages = 100 + i;
    ASSERT_TRUE(table.FromText(FactsToText(facts, "here")).ok());
  }
  EXPECT_LT(table.size(), 100u);
  EXPECT_EQ(*table.FromText(FactsToText(Facts(), "here")), used);
}

}  // namespace
}  // namespace lorad
