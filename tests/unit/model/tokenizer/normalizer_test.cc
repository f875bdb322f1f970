#include "model/tokenizer/normalizer.h"

#include <gtest/gtest.h>

namespace lorad {
namespace {

absl::StatusOr<Normalizer> Parse(std::string_view text) {
  auto json = ParseJson(text);
  EXPECT_TRUE(json.ok()) << json.status();
  return Normalizer::FromJson(&*json);
}

std::string Apply(const Normalizer& normalizer, std::string_view text, bool at_start = true) {
  auto result = normalizer.Run(text, at_start, SearchDeadline(std::chrono::hours(1)));
  return result.ok() ? *result : result.status().ToString();
}

TEST(NormalizerTest, NullChangesNothing) {
  auto normalizer = Normalizer::FromJson(nullptr);
  ASSERT_TRUE(normalizer.ok());
  EXPECT_TRUE(normalizer->empty());
  EXPECT_EQ(Apply(*normalizer, "E\u0301 "), "E\u0301 ");
}

TEST(NormalizerTest, RunsItsStepsInOrder) {
  auto normalizer =
      Parse(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"},
      {"type": "Strip", "strip_left": true, "strip_right": true}, {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
      {"type": "Replace", "pattern": {"Regex": "\\d+"}, "content": "#"}]})");
  ASSERT_TRUE(normalizer.ok()) << normalizer.status();
  EXPECT_EQ(Apply(*normalizer, "\u3000E\u0301 12 X\n"), "▁é▁#▁x");
  EXPECT_EQ(Apply(*normalizer, " \n"), "");
}

TEST(NormalizerTest, PrependCanBeForTheStartOnly) {
  const Normalizer normalizer({Normalizer::Prepend{.prefix = "_", .only_at_start = true}});
  EXPECT_EQ(Apply(normalizer, "a", true), "_a");
  EXPECT_EQ(Apply(normalizer, "a", false), "a");
}

TEST(NormalizerTest, CollapsesSpaces) {
  const Normalizer normalizer({Normalizer::CollapseSpaces{}});
  EXPECT_EQ(Apply(normalizer, "  a   b \n c  "), "a b \n c");
  EXPECT_EQ(Apply(normalizer, "   "), "");
}

TEST(NormalizerTest, RefusesToBlowUpAText) {
  std::string text = R"({"type": "Sequence", "normalizers": [{"type": "NFC"})";
  for (int i = 0; i < 8; ++i) {
    text += R"(, {"type": "Replace", "pattern": {"String": "a"}, "content": ")" +
            std::string(200, 'a') + R"("})";
  }
  auto normalizer = Parse(text + "]}");
  ASSERT_TRUE(normalizer.ok()) << normalizer.status();
  const auto result = normalizer->Run("aaaa", true, SearchDeadline(std::chrono::hours(1)));
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(NormalizerTest, RefusesWhatItDoesNotKnow) {
  for (const char* json : {R"({"type": "Precompiled", "precompiled_charsmap": "AA=="})",
                           R"({"type": "BertNormalizer"})", R"({"type": "NFC", "version": 2})"}) {
    EXPECT_EQ(Parse(json).status().code(), absl::StatusCode::kUnimplemented) << json;
  }
  for (const char* json :
       {R"("NFC")", R"({"type": "Prepend"})", R"({"type": "Replace", "content": "a"})",
        R"({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})",
        R"({"type": "Strip", "strip_left": 1})", R"({"type": "Sequence", "normalizers": [1]})"}) {
    EXPECT_EQ(Parse(json).status().code(), absl::StatusCode::kInvalidArgument) << json;
  }
}

}  // namespace
}  // namespace lorad
