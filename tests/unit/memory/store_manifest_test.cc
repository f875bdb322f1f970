#include "memory/store_manifest.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace lorad {
namespace {

using ::testing::HasSubstr;

Manifest Example() {
  Manifest manifest;
  manifest.version = {
      .id = "acme-7",
      .version = 3,
      .origin_version = 1,
      .config = {.bytes = 10, .sha256 = std::string(64, 'a')},
      .weights = {.bytes = int64_t{5} << 32, .sha256 = std::string(64, 'b')},
      .create_time = std::chrono::system_clock::time_point(std::chrono::seconds(1'700'000'000)),
      .facts = "{\"rank\": 8}"};
  manifest.settings = "caf\xc3\xa9 \"quoted\"\n";
  manifest.revision = 7;
  return manifest;
}

TEST(Manifest, ComesBackAsItWas) {
  const Manifest in = Example();
  const absl::StatusOr<Manifest> out = ParseManifest(ToManifest(in), "acme-7", 3);
  ASSERT_EQ(out.status(), absl::OkStatus());
  EXPECT_EQ(out->version.id, in.version.id);
  EXPECT_EQ(out->version.version, in.version.version);
  EXPECT_EQ(out->version.origin_version, in.version.origin_version);
  EXPECT_EQ(out->version.config.bytes, in.version.config.bytes);
  EXPECT_EQ(out->version.config.sha256, in.version.config.sha256);
  EXPECT_EQ(out->version.weights.bytes, in.version.weights.bytes);
  EXPECT_EQ(out->version.weights.sha256, in.version.weights.sha256);
  EXPECT_EQ(out->version.create_time, in.version.create_time);
  EXPECT_EQ(out->version.facts, in.version.facts);
  EXPECT_EQ(out->version.bytes(), in.version.config.bytes + in.version.weights.bytes);
  EXPECT_EQ(out->settings, in.settings);
  EXPECT_EQ(out->revision, in.revision);
}

TEST(Manifest, OfATenantAndWithTheLongestTextsComesBack) {
  Manifest in = Example();
  in.version.id = "acme/foo";
  in.version.facts = std::string(kMaxFactsBytes, '\0');  // each is six characters of JSON
  in.settings = std::string(kMaxSettingsBytes, '\x1f');
  const std::string text = ToManifest(in);
  EXPECT_LE(text.size(), kMaxManifestBytes);
  const absl::StatusOr<Manifest> out = ParseManifest(text, "acme/foo", 3);
  ASSERT_EQ(out.status(), absl::OkStatus());
  EXPECT_EQ(out->version.facts, in.version.facts);
  EXPECT_EQ(out->settings, in.settings);
  in.version.facts += 'x';
  EXPECT_TRUE(absl::IsDataLoss(ParseManifest(ToManifest(in), "acme/foo", 3).status()));
}

// As format 1 wrote it.
constexpr char kFormat1[] = R"({"create_time_ns": 1700000000000000000, "files": {
  "adapter_config.json": {"bytes": 10, "sha256":
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
  "adapter_model.safetensors": {"bytes": 20, "sha256":
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}},
  "id": "acme-7", "version": 3})";

TEST(Manifest, OfFormat1HasNoFactsAndNoSettings) {
  const absl::StatusOr<Manifest> out = ParseManifest(kFormat1, "acme-7", 3);
  ASSERT_EQ(out.status(), absl::OkStatus());
  EXPECT_EQ(out->version.weights.bytes, 20);
  EXPECT_EQ(out->version.facts, "");
  EXPECT_EQ(out->version.origin_version, 0);
  EXPECT_EQ(out->settings, "");
  EXPECT_EQ(out->revision, 1);
}

// `text` with what stands behind the member `name` replaced.
std::string With(std::string text, std::string_view name, std::string_view value) {
  const size_t at = text.find(fmt::format("\"{}\": ", name)) + name.size() + 4;
  return text.replace(at, text.find_first_of(",\n}", at) - at, value);
}

TEST(Manifest, EveryMemberIsChecked) {
  const std::string good = ToManifest(Example());
  ASSERT_TRUE(ParseManifest(good, "acme-7", 3).ok());
  const std::vector<std::pair<std::string_view, std::vector<std::string_view>>> cases = {
      {"id", {"3", "null", "\"acme-8\"", "\"acme-7/x\"", "[\"acme-7\"]"}},
      {"version", {"3.0", "\"3\"", "-3", "4", "18446744073709551619", "true"}},
      {"origin_version", {"3", "-1", "1.5", "\"1\"", "null", "9223372036854775808"}},
      {"revision", {"0", "-7", "7.0", "null", "1000000000000001", "1e3", "\"7\""}},
      {"create_time_ns", {"1.5", "null", "9223372036854775808", "\"1\""}},
      {"bytes", {"0", "-1", "1.0", "null", "9223372036854775807", "18446744073709551615"}},
      {"sha256",
       {"\"\"", "\"../../../../etc/passwd\"", "3", "null",
        "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""}},
      {"facts", {"3", "null", "{}", "[]"}},
      {"settings", {"3", "null", "{}", "[]"}}};
  for (const auto& [name, values] : cases) {
    for (const std::string_view value : values) {
      const std::string text = With(good, name, value);
      ASSERT_NE(text, good);
      EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text, "acme-7", 3).status())) << text;
    }
  }
}

TEST(Manifest, DeepNestingIsDataLoss) {
  for (const char open : {'[', '{'}) {
    std::string text;
    while (text.size() < 200'000) text += open == '[' ? "[" : "{\"a\":";
    EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text, "acme-7", 3).status()));
    EXPECT_TRUE(absl::IsDataLoss(ParseSettingsFile(text).status()));
  }
  const std::string closed = std::string(100'000, '[') + std::string(100'000, ']');
  EXPECT_TRUE(absl::IsDataLoss(ParseManifest(closed, "acme-7", 3).status()));
}

TEST(Manifest, OfAnotherAdapterOrVersionIsDataLoss) {
  const std::string text = ToManifest(Example());
  EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text, "acme-8", 3).status()));
  EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text, "acme-7", 4).status()));
}

TEST(Manifest, EveryPrefixIsDataLoss) {
  const std::string text = ToManifest(Example());
  const size_t whole = text.rfind('}') + 1;
  for (size_t n = 0; n < whole; ++n) {
    EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text.substr(0, n), "acme-7", 3).status())) << n;
  }
}

TEST(Manifest, WrongTypesAreDataLossAndNoException) {
  for (const char* text :
       {"[]", "3", "null", "{}", R"({"id": 3})", R"({"id": "acme-7", "version": "3"})",
        R"({"id": "acme-7", "version": 3, "create_time_ns": "x", "files": {}})",
        R"({"id": "acme-7", "version": 3, "create_time_ns": 1, "files": []})",
        R"({"id": "acme-7", "version": 3, "create_time_ns": 1, "files":
            {"adapter_config.json": 1, "adapter_model.safetensors": 2}})",
        R"({"id": "acme-7", "version": 3, "create_time_ns": 1, "files":
            {"adapter_config.json": {"bytes": "1", "sha256": ""},
             "adapter_model.safetensors": {"bytes": 1, "sha256": 3}}})"}) {
    EXPECT_TRUE(absl::IsDataLoss(ParseManifest(text, "acme-7", 3).status())) << text;
  }
  EXPECT_THAT(std::string(ParseManifest("", "acme-7", 3).status().message()),
              HasSubstr("acme-7 version 3"));
}

TEST(SettingsFile, ComesBackAsItWas) {
  const SettingsRecord in{.version = 3, .revision = 12, .settings = "{\"a\": \"\xc3\xa9\"}"};
  const absl::StatusOr<SettingsRecord> out = ParseSettingsFile(ToSettingsFile(in));
  ASSERT_EQ(out.status(), absl::OkStatus());
  EXPECT_EQ(out->version, 3);
  EXPECT_EQ(out->revision, 12);
  EXPECT_EQ(out->settings, in.settings);
}

TEST(SettingsFile, AllElseIsDataLoss) {
  const std::string good = ToSettingsFile({.version = 3, .revision = 12, .settings = "s"});
  for (size_t n = 0; n <= good.rfind('}'); ++n) {
    EXPECT_TRUE(absl::IsDataLoss(ParseSettingsFile(good.substr(0, n)).status())) << n;
  }
  for (const auto& [name, value] :
       std::vector<std::pair<std::string_view, std::string_view>>{{"version", "0"},
                                                                  {"version", "-1"},
                                                                  {"version", "\"3\""},
                                                                  {"version", "1e2"},
                                                                  {"revision", "0"},
                                                                  {"revision", "-12"},
                                                                  {"revision", "1000000000000001"},
                                                                  {"revision", "null"},
                                                                  {"settings", "3"},
                                                                  {"settings", "null"},
                                                                  {"settings", "{}"}}) {
    EXPECT_TRUE(absl::IsDataLoss(ParseSettingsFile(With(good, name, value)).status())) << value;
  }
  const std::string too_long = ToSettingsFile(
      {.version = 3, .revision = 12, .settings = std::string(kMaxSettingsBytes + 1, 'x')});
  EXPECT_TRUE(absl::IsDataLoss(ParseSettingsFile(too_long).status()));
}

TEST(IsUtf8, IsWhatCanBeWritten) {
  for (const std::string& text : {std::string(), std::string("a\0b", 3), std::string("\xc3\xa9"),
                                  std::string("\xf0\x9f\x98\x80")}) {
    EXPECT_TRUE(IsUtf8(text)) << text;
  }
  for (const char* text : {"\xff", "\xc3", "a\xc3z", "\xed\xa0\x80", "\xc0\x80"}) {
    EXPECT_FALSE(IsUtf8(text)) << text;
  }
}

}  // namespace
}  // namespace lorad
