#include "server/adapter_settings.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "memory/base/error_detail.h"
#include "memory/stored_version.h"

namespace lorad {
namespace {

AdapterSettings Full() {
  return {.labels = {{"team", "ops"}, {"a/b.c_d-1", "\xC3\xA4 \"quoted\" \\ \n"}},
          .description = "Answers like a pirate.",
          .pinned = true,
          .aliases = {"pirate", "jack"}};
}

std::string FieldOf(const std::function<void(AdapterSettings*)>& spoil) {
  AdapterSettings settings = Full();
  spoil(&settings);
  const absl::Status status = ValidateSettings(settings);
  EXPECT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
  return status.ok() ? "" : GetErrorDetail(status).field;
}

TEST(ValidateSettingsTest, TheLimitsThemselvesAreFine) {
  AdapterSettings settings;
  for (int i = 0; i < 64; ++i) settings.labels[fmt::format("key-{}", i)] = "";
  settings.labels["key-0"] = std::string(256, 'x');
  std::string umlauts;
  for (int i = 0; i < 256; ++i) umlauts += "\xC3\xA4";  // characters, not bytes
  settings.labels["key-1"] = umlauts;
  settings.labels.erase("key-2");
  settings.labels[std::string(63, 'k')] = "x";
  settings.description = std::string(1024, 'd');
  for (int i = 0; i < 16; ++i) settings.aliases.push_back(fmt::format("alias-{}", i));
  EXPECT_TRUE(ValidateSettings(settings).ok()) << ValidateSettings(settings);
  EXPECT_TRUE(ValidateSettings({}).ok());
}

TEST(ValidateSettingsTest, WhatIsBeyondThemIsNamed) {
  using S = AdapterSettings;
  EXPECT_EQ(FieldOf([](S*) {}), "");
  EXPECT_EQ(FieldOf([](S* s) {
              for (int i = 0; i < 64; ++i) s->labels[fmt::format("key-{}", i)] = "";
            }),
            "settings.labels");
  for (const char* key : {"", "Upper", "-a", "a-", "/a", "a b", "a\xC3\xA4z", "_"}) {
    EXPECT_EQ(FieldOf([key](S* s) { s->labels[key] = "x"; }), "settings.labels") << key;
  }
  EXPECT_EQ(FieldOf([](S* s) { s->labels[std::string(64, 'k')] = "x"; }), "settings.labels");
  EXPECT_EQ(FieldOf([](S* s) { s->labels["team"] = std::string(257, 'x'); }),
            "settings.labels[team]");
  EXPECT_EQ(FieldOf([](S* s) { s->labels["team"] = "\xff"; }), "settings.labels[team]");
  EXPECT_EQ(FieldOf([](S* s) { s->description = std::string(1025, 'x'); }), "settings.description");
  EXPECT_EQ(FieldOf([](S* s) { s->description = "\xC3"; }), "settings.description");
  EXPECT_EQ(FieldOf([](S* s) {
              for (int i = 0; i < 15; ++i) s->aliases.push_back(fmt::format("alias-{}", i));
            }),
            "settings.aliases");
  for (const std::string alias :
       {"", "acme/foo", "adapters/foo", "Foo", "foo@1", "-", ".x", "a..b"}) {
    EXPECT_EQ(FieldOf([&](S* s) { s->aliases[1] = alias; }), "settings.aliases[1]") << alias;
  }
  EXPECT_EQ(FieldOf([](S* s) { s->aliases[1] = s->aliases[0]; }), "settings.aliases[1]");
}

TEST(SettingsTextTest, ComesBackAsItWas) {
  const auto text = SettingsToText({.settings = Full(), .sequence = 77});
  ASSERT_TRUE(text.ok()) << text.status();
  const auto back = SettingsFromText(*text);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->settings, Full());
  EXPECT_EQ(back->sequence, 77);
  const auto none = SettingsFromText("");
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->settings, AdapterSettings());
  EXPECT_EQ(none->sequence, 0);
}

TEST(SettingsTextTest, WhatTheStoreWouldNotKeepIsRefused) {
  AdapterSettings settings;
  for (int i = 0; i < 64; ++i) settings.labels[fmt::format("key-{}", i)] = std::string(256, '\x01');
  ASSERT_TRUE(ValidateSettings(settings).ok());
  const auto text = SettingsToText({.settings = settings, .sequence = 1});
  EXPECT_EQ(GetErrorDetail(text.status()).field, "settings") << text.status();
  for (auto& [key, value] : settings.labels) value = std::string(256, 'x');
  EXPECT_LE(SettingsToText({.settings = settings, .sequence = 1})->size(), kMaxSettingsBytes);
}

TEST(SettingsTextTest, DamagedTextIsAnErrorAndNothingWorse) {
  for (const char* text :
       {"x", "{", "[]", "null", "7", "{}", R"({"sequence":-1})", R"({"sequence":"1"})",
        R"({"sequence":1,"labels":[]})", R"({"sequence":1,"labels":{"a":1}})",
        R"({"sequence":1,"labels":{"A":"x"}})", R"({"sequence":1,"aliases":{}})",
        R"({"sequence":1,"aliases":["a","a"]})", R"({"sequence":1,"aliases":["../a"]})",
        R"({"sequence":1,"pinned":"yes"})", R"({"sequence":1,"sequence":2})",
        R"({"sequence":1,"description":7})", R"({"sequence":1,"more":true})",
        "{\"sequence\":1,\"description\":\"\xff\"}"}) {
    const auto read = SettingsFromText(text);
    ASSERT_FALSE(read.ok()) << text;
    EXPECT_TRUE(absl::IsDataLoss(read.status())) << read.status();
    EXPECT_EQ(GetErrorDetail(read.status()).reason, "ADAPTER_CORRUPT");
  }
  const std::string deep = R"({"sequence":1,"labels":)" + std::string(10000, '[');
  EXPECT_TRUE(absl::IsDataLoss(SettingsFromText(deep).status()));
}

// Any byte changed: an error, or settings that are within the limits.
TEST(SettingsTextTest, AnyDamageLeavesValidSettingsOrAnError) {
  const std::string text = *SettingsToText({.settings = Full(), .sequence = 3});
  std::mt19937 random(1);
  int errors = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = text;
    for (uint32_t i = 0; i <= random() % 3; ++i) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    const auto read = SettingsFromText(damaged);
    errors += !read.ok();
    if (read.ok()) {
      EXPECT_TRUE(ValidateSettings(read->settings).ok()) << damaged;
    }
  }
  EXPECT_GT(errors, 1000);
}

TEST(MergeSettingsTest, TakesWhatTheMaskNames) {
  const AdapterSettings wanted{.labels = {{"x", "y"}}, .description = "new"};
  EXPECT_EQ(MergeSettings(Full(), wanted, {}), wanted);
  AdapterSettings expected = Full();
  expected.labels = wanted.labels;
  EXPECT_EQ(MergeSettings(Full(), wanted, {true, false, false, false}), expected);
  expected = Full();
  expected.description = "new";
  EXPECT_EQ(MergeSettings(Full(), wanted, {false, true, false, false}), expected);
  expected = Full();
  expected.pinned = false;
  EXPECT_EQ(MergeSettings(Full(), wanted, {false, false, true, false}), expected);
  expected = Full();
  expected.aliases.clear();
  EXPECT_EQ(MergeSettings(Full(), wanted, {false, false, false, true}), expected);
}

TEST(SettingsTest, LabelsAreMatchedAll) {
  const AdapterSettings settings = Full();
  EXPECT_TRUE(settings.HasLabels({}));
  EXPECT_TRUE(settings.HasLabels({{"team", "ops"}}));
  EXPECT_FALSE(settings.HasLabels({{"team", "op"}}));
  EXPECT_FALSE(settings.HasLabels({{"team", "ops"}, {"other", ""}}));
}

TEST(SettingsTest, AdaptersWithoutSettingsShareThem) {
  EXPECT_EQ(ShareSettings({}), ShareSettings({}));
  EXPECT_NE(ShareSettings(Full()), ShareSettings(Full()));
  EXPECT_EQ(*ShareSettings(Full()), Full());
}

}  // namespace
}  // namespace lorad
