#include "model/tokenizer/added_tokens.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lorad {
namespace {

using testing::ElementsAre;

// Segments as "text" or "id:text".
std::vector<std::string> Split(const std::vector<AddedToken>& tokens, std::string_view text,
                               bool parse_special = true) {
  AddedTokenMatcher matcher;
  for (const AddedToken& token : tokens) matcher.Add(token, token.content);
  std::vector<TextSegment> segments;
  matcher.Split(text, parse_special, &segments);
  std::vector<std::string> out;
  for (const TextSegment& segment : segments) {
    out.push_back(segment.id == kNoToken ? std::string(segment.text)
                                         : fmt::format("{}:{}", segment.id, segment.text));
  }
  return out;
}

TEST(AddedTokens, TakesTheLeftmostThenTheLongest) {
  const std::vector<AddedToken> tokens = {
      {.id = 1, .content = "ab"}, {.id = 2, .content = "abcd"}, {.id = 3, .content = "bcdef"}};
  EXPECT_THAT(Split(tokens, "xabcdefab"), ElementsAre("x", "2:abcd", "ef", "1:ab"));
  EXPECT_THAT(Split(tokens, "abcxbcdef"), ElementsAre("1:ab", "cx", "3:bcdef"));
  EXPECT_THAT(Split(tokens, ""), ElementsAre());
}

TEST(AddedTokens, StripsWhiteSpaceOnItsSides) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "L", .lstrip = true},
                                          {.id = 2, .content = "R", .rstrip = true}};
  EXPECT_THAT(Split(tokens, "a \u3000L b"), ElementsAre("a", "1: \u3000L", " b"));
  EXPECT_THAT(Split(tokens, "a R \u3000\nb"), ElementsAre("a ", "2:R \u3000\n", "b"));
  EXPECT_THAT(Split(tokens, "R  L"), ElementsAre("2:R  ", "1:L"));
}

TEST(AddedTokens, ATokenInsideStrippedSpaceIsEmptyText) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "R", .rstrip = true},
                                          {.id = 2, .content = " "}};
  EXPECT_THAT(Split(tokens, "R  x"), ElementsAre("1:R  ", "2:", "2:", "x"));
}

TEST(AddedTokens, SingleWordsAreNotTouched) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "solo", .single_word = true}};
  EXPECT_THAT(Split(tokens, "solo.solo"), ElementsAre("1:solo", ".", "1:solo"));
  EXPECT_THAT(Split(tokens, "solos"), ElementsAre("solos"));
  EXPECT_THAT(Split(tokens, "ésolo _solo"), ElementsAre("ésolo _solo"));
}

TEST(AddedTokens, SpecialOnesStayTextUnlessAskedFor) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "<s>", .special = true},
                                          {.id = 2, .content = "<x>"}};
  EXPECT_THAT(Split(tokens, "a<s><x>"), ElementsAre("a", "1:<s>", "2:<x>"));
  EXPECT_THAT(Split(tokens, "a<s><x>", false), ElementsAre("a<s>", "2:<x>"));
}

}  // namespace
}  // namespace lorad
