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
                             .backend = backend_.get(),
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

TEST_F(AdapterImagesTest, ChecksSayWhatIsWrongWithTheFiles) {
  model_.hidden_size = 32;  // the folder's adapter is for another width
  const auto folder = WriteFolder({});
  model_.hidden_size = 64;
  const absl::Status wrong = images_->Check(folder, AdapterCheck::kWhole).status();
  EXPECT_EQ(ReasonOf(wrong), "ADAPTER_WRONG_BASE") << wrong;
}

}  // namespace
}  // namespace lorad
