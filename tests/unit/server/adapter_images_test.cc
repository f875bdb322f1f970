// Adapters' images planned from shapes alone, and facts that stand in for files.
#include "server/adapter_images.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/base/error_detail.h"
#include "model/sites.h"
#include "tests/unit/server/catalog_fixture.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;

class AdapterImagesTest : public CatalogTest {
 protected:
  void SetUp() override { Open(); }

  kernels::AdapterLayout Plan(int rank, const std::vector<std::string>& modules) {
    auto image = images_->PlanFor(rank, modules);
    EXPECT_TRUE(image.ok()) << image.status();
    return image.ok() ? image->layouts.at(0) : kernels::AdapterLayout();
  }
  std::string FieldOf(int rank, const std::vector<std::string>& modules) {
    return GetErrorDetail(images_->PlanFor(rank, modules).status()).field;
  }
};

// A plan is of every layer; an adapter of one layer out of two takes half the image.
TEST_F(AdapterImagesTest, APlanIsWhatAnAdapterOfThatShapeTakes) {
  model_.layers = 1;
  Open();
  const AdapterVersionPtr real = Put("foo", {.rank = 16}).version;
  const kernels::AdapterLayout plan = Plan(16, {"q_proj"});
  EXPECT_EQ(plan.image_bytes, real->image_bytes);
  EXPECT_EQ(plan.pages, real->pages);
}

TEST_F(AdapterImagesTest, NoModulesMeansAllOfThem) {
  const std::vector<std::string> all = {"q_proj",    "k_proj",  "v_proj",    "o_proj",
                                        "gate_proj", "up_proj", "down_proj", "lm_head"};
  EXPECT_EQ(Plan(4, {}).image_bytes, Plan(4, all).image_bytes);
  EXPECT_EQ(Plan(4, {}).modules.size(), 7u * static_cast<size_t>(model_.layers) + 1);
  EXPECT_EQ(Plan(4, {"q_proj", "q_proj"}).image_bytes, Plan(4, {"q_proj"}).image_bytes);
  EXPECT_EQ(Plan(4, {"lm_head"}).modules.size(), 1u);
  EXPECT_LT(Plan(4, {"q_proj"}).image_bytes, Plan(8, {"q_proj"}).image_bytes);
}

TEST_F(AdapterImagesTest, WhatNoAdapterHasIsNamed) {
  EXPECT_EQ(FieldOf(0, {}), "rank");
  EXPECT_EQ(FieldOf(-1, {}), "rank");
  EXPECT_EQ(FieldOf(257, {}), "rank");
  EXPECT_EQ(FieldOf(4, {"q_proj", "embed_tokens"}), "target_modules[1]");
  EXPECT_EQ(FieldOf(4, {""}), "target_modules[0]");
}

TEST_F(AdapterImagesTest, RecalledFactsAreHeldAgainstTheLimits) {
  const auto facts = images_->Check(WriteFolder({.rank = 16}), AdapterCheck::kWhole);
  ASSERT_TRUE(facts.ok()) << facts.status();
  const std::string text = images_->FactsText(**facts);
  EXPECT_EQ(*images_->Recall(text), *facts);
  EXPECT_TRUE(absl::IsFailedPrecondition(images_->Recall("").status()));
  AdapterImages::Parts parts{.model = &model_,
                             .ranks = {backend_.get()},
                             .limits = {.max_rank = 8},
                             .page_bytes = page_bytes_,
                             .pool_pages = pool_pages_};
  EXPECT_EQ(GetErrorDetail(AdapterImages(parts).Recall(text).status()).field, "r");
  parts.limits.max_rank = 16;
  parts.pool_pages = (*facts)->pages;  // not a page for a token would be left
  EXPECT_EQ(ReasonOf(AdapterImages(parts).Recall(text).status()), "LARGER_THAN_POOL");
  parts.pool_pages = (*facts)->pages + 1;
  EXPECT_TRUE(AdapterImages(parts).Recall(text).ok());
}

// Each rank has its share in as many pages as the largest share takes.
TEST_F(AdapterImagesTest, OfSeveralRanksEachHasItsLayout) {
  model_.vocab_size = 3;  // of four ranks the last one has no tokens
  model_.heads = model_.kv_heads = 4;
  const auto other = kernels::NewReferenceBackend();
  const std::vector<const kernels::Backend*> ranks(4, other.get());
  AdapterImages::Parts parts{.model = &model_,
                             .ranks = ranks,
                             .limits = {},
                             .page_bytes = page_bytes_,
                             .pool_pages = pool_pages_};
  AdapterImages split(parts);
  const auto plan = split.PlanFor(8, {});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->layouts.size(), 4u);
  EXPECT_EQ(plan->layouts[0].modules.size(), plan->layouts[3].modules.size() + 1);
  EXPECT_EQ(plan->bytes(), plan->layouts[0].image_bytes);
  EXPECT_GT(plan->bytes(), plan->layouts[3].image_bytes);
  EXPECT_EQ(plan->pages(), plan->layouts[0].pages);
  EXPECT_LT(plan->bytes(), Plan(8, {}).image_bytes);

  const auto folder = WriteFolder({.rank = 16});
  const auto whole = images_->Check(folder, AdapterCheck::kWhole);
  const auto shares = split.Check(folder, AdapterCheck::kWhole);
  ASSERT_TRUE(whole.ok() && shares.ok()) << whole.status() << shares.status();
  EXPECT_LT((*shares)->image_bytes, (*whole)->image_bytes);
  // What was noted for one number of ranks does not hold for another.
  EXPECT_TRUE(absl::IsFailedPrecondition(split.Recall(images_->FactsText(**whole)).status()));
  EXPECT_TRUE(split.Recall(split.FactsText(**shares)).ok());

  int written = 0;
  const auto image = split.Load(
      folder, **shares, [&](const AdapterImage& planned, std::span<const ShardedFactors> each) {
        ASSERT_EQ(each.size(), planned.layouts.size());
        for (size_t rank = 0; rank < each.size(); ++rank) {
          EXPECT_EQ(each[rank].factors().size(), planned.layouts[rank].modules.size());
          EXPECT_EQ(each[rank].factors()[0].b.rows, model_.q_size() / 4);
        }
        ++written;
      });
  EXPECT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(written, 1);
}

TEST_F(AdapterImagesTest, ChecksSayWhatIsWrongWithTheFiles) {
  model_.hidden_size = 32;  // the folder's adapter is for another width
  const auto folder = WriteFolder({});
  model_.hidden_size = 64;
  const absl::Status wrong = images_->Check(folder, AdapterCheck::kWhole).status();
  EXPECT_EQ(ReasonOf(wrong), "ADAPTER_WRONG_BASE") << wrong;
}

}  // namespace
}  // namespace lorad
