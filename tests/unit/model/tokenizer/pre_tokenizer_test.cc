#include "model/tokenizer/pre_tokenizer.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorad {
namespace {

using testing::ElementsAre;

absl::StatusOr<PreTokenizer> Parse(std::string_view text) {
  auto json = ParseJson(text);
  EXPECT_TRUE(json.ok()) << json.status();
  return PreTokenizer::FromJson(&*json);
}

std::vector<std::string> Words(std::string_view json, std::string_view text, bool at_start = true) {
  auto pre_tokenizer = Parse(json);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  if (!pre_tokenizer.ok()) return {};
  PreTokenizerScratch scratch;
  std::vector<Word> words;
  const absl::Status status =
      pre_tokenizer->Run(text, at_start, SearchDeadline(std::chrono::hours(1)), &scratch, &words);
  EXPECT_TRUE(status.ok()) << status;
  std::vector<std::string> out;
  for (const Word& word : words) out.emplace_back(word.text);
  return out;
}

std::string SplitBy(std::string_view behavior, bool invert = false) {
  return fmt::format(
      R"({{"type": "Split", "pattern": {{"String": "-"}}, "behavior": "{}", "invert": {}}})",
      behavior, invert);
}

TEST(PreTokenizerTest, SplitKnowsEveryBehavior) {
  constexpr char kText[] = "the-final--countdown";
  EXPECT_THAT(Words(SplitBy("Isolated"), kText),
              ElementsAre("the", "-", "final", "-", "-", "countdown"));
  EXPECT_THAT(Words(SplitBy("Removed"), kText), ElementsAre("the", "final", "countdown"));
  EXPECT_THAT(Words(SplitBy("Removed", true), kText), ElementsAre("-", "-", "-"));
  EXPECT_THAT(Words(SplitBy("MergedWithPrevious"), kText),
              ElementsAre("the-", "final-", "-", "countdown"));
  EXPECT_THAT(Words(SplitBy("MergedWithNext"), kText),
              ElementsAre("the", "-final", "-", "-countdown"));
  EXPECT_THAT(Words(SplitBy("Contiguous"), kText),
              ElementsAre("the", "-", "final", "--", "countdown"));
}

TEST(PreTokenizerTest, ByteLevelSplitsAndPrefixes) {
  EXPECT_THAT(Words(R"({"type": "ByteLevel", "add_prefix_space": true})", "it's  x1"),
              ElementsAre(" it", "'s", " ", " x", "1"));
  EXPECT_THAT(
      Words(R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": false})", " a b"),
      ElementsAre(" a b"));
}

TEST(PreTokenizerTest, MetaspacePrependsBySchemeAndSplits) {
  const auto metaspace = [](std::string_view rest) {
    return fmt::format(R"({{"type": "Metaspace", "replacement": "▁", {}}})", rest);
  };
  EXPECT_THAT(Words(metaspace(R"("prepend_scheme": "always")"), "a  b", false),
              ElementsAre("▁a", "▁", "▁b"));
  EXPECT_THAT(Words(metaspace(R"("prepend_scheme": "first", "split": false)"), "a b", true),
              ElementsAre("▁a▁b"));
  EXPECT_THAT(Words(metaspace(R"("prepend_scheme": "first", "split": false)"), "a b", false),
              ElementsAre("a▁b"));
  EXPECT_THAT(Words(metaspace(R"("add_prefix_space": false, "split": false)"), "a"),
              ElementsAre("a"));
  EXPECT_THAT(Words(metaspace(R"("add_prefix_space": true)"), " a"), ElementsAre("▁a"));
}

TEST(PreTokenizerTest, ASequenceSplitsFurther) {
  EXPECT_THAT(Words(R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"},
                        {"type": "Digits", "individual_digits": true}, {"type": "Punctuation"}]})",
                    "a12 b,,c\u3000"),
              ElementsAre("a", "1", "2", "b", ",", ",", "c"));
}

TEST(PreTokenizerTest, NoTextHasNoWords) {
  EXPECT_THAT(Words(R"({"type": "ByteLevel"})", ""), ElementsAre());
}

TEST(PreTokenizerTest, RefusesWhatItDoesNotKnow) {
  for (const char* json :
       {R"({"type": "BertPreTokenizer"})",
        R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "last"})",
        R"({"type": "ByteLevel", "bytes": 7})",
        R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "Odd"})",
        R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]})"}) {
    EXPECT_EQ(Parse(json).status().code(), absl::StatusCode::kUnimplemented) << json;
  }
  for (const char* json :
       {R"(1)", R"({"type": "Split", "behavior": "Isolated"})",
        R"({"type": "Metaspace", "replacement": "ab"})",
        R"({"type": "Split", "pattern": {"Regex": "[a"}, "behavior": "Isolated"})",
        R"({"type": "Digits", "individual_digits": "yes"})"}) {
    EXPECT_EQ(Parse(json).status().code(), absl::StatusCode::kInvalidArgument) << json;
  }
}

}  // namespace
}  // namespace lorad
