#include "client/loractl/sync_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorad::loractl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SyncSettingsTest, EveryKeyIsTaken) {
  const auto settings = ParseSettings(
      R"({"labels": {"team": "sea"}, "description": "Talks so", "pinned": true, "aliases": ["a"]})");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->labels().at("team"), "sea");
  EXPECT_EQ(settings->description(), "Talks so");
  EXPECT_TRUE(settings->pinned());
  EXPECT_THAT(settings->aliases(), ElementsAre("a"));
}

TEST(SyncSettingsTest, WhatIsNotThereIsEmpty) {
  const auto settings = ParseSettings("{}");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_TRUE(SameSettings(*settings, v1::AdapterSettings()));
}

TEST(SyncSettingsTest, AnythingElseIsRefusedByName) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"label": {}})", "\"label\""},
      {R"({"labels": []})", "labels: not an object"},
      {R"({"labels": {"a": 1}})", "labels.a: not a string"},
      {R"({"labels": {"lorad.dev/managed-by": "me"}})", "--source"},
      {R"({"description": 3})", "description"},
      {R"({"description": null})", "description"},
      {R"({"pinned": "yes"})", "pinned"},
      {R"({"pinned": 1})", "pinned"},
      {R"({"aliases": "a"})", "aliases: not an array"},
      {R"({"aliases": [1]})", "aliases"},
      {R"({"pinned": true, "pinned": false})", "\"pinned\" is there twice"},
      {R"({"labels": {"a": "1", "a": "2"}})", "\"a\" is there twice"},
      {"[]", "not an object"},
      {"", "not JSON"},
      {R"({"pinned": true} x)", "not JSON"},
  };
  for (const auto& [json, problem] : cases) {
    const auto settings = ParseSettings(json);
    EXPECT_EQ(settings.status().code(), absl::StatusCode::kInvalidArgument) << json;
    EXPECT_THAT(std::string(settings.status().message()), HasSubstr(problem)) << json;
  }
}

TEST(SyncSettingsTest, AKeyMayBeThereOnceInEachObject) {
  EXPECT_TRUE(ParseSettings(R"({"labels": {"pinned": "1"}, "pinned": true})").ok());
}

TEST(SyncSettingsTest, SameSettingsComparesEachPartAndIgnoresTheOrderOfAliases) {
  const v1::AdapterSettings a = *ParseSettings(R"({"labels": {"x": "1"}, "aliases": ["a", "b"]})");
  EXPECT_TRUE(SameSettings(a, *ParseSettings(R"({"labels": {"x": "1"}, "aliases": ["b", "a"]})")));
  v1::AdapterSettings b = a;
  b.set_pinned(true);
  EXPECT_FALSE(SameSettings(a, b));
  b = a;
  b.set_description("d");
  EXPECT_FALSE(SameSettings(a, b));
  b = a;
  (*b.mutable_labels())["x"] = "2";
  EXPECT_FALSE(SameSettings(a, b));
  b = a;
  b.add_aliases("c");
  EXPECT_FALSE(SameSettings(a, b));
}

}  // namespace
}  // namespace lorad::loractl
