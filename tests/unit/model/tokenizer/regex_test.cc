#include "model/tokenizer/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace lorad {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Matches(std::string_view pattern, std::string_view text) {
  auto regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  if (!regex.ok()) return {};
  std::vector<ByteSpan> spans;
  const absl::Status status = regex->FindAll(text, SearchDeadline(std::chrono::hours(1)), &spans);
  EXPECT_TRUE(status.ok()) << status;
  std::vector<std::string> matches;
  for (const ByteSpan& span : spans) {
    matches.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  return matches;
}

absl::StatusCode CompileCode(std::string_view pattern) {
  return Regex::Compile(pattern).status().code();
}

TEST(RegexTest, WhiteSpaceIsUnicodes) {
  EXPECT_THAT(Matches(R"(\s+)", "a \u0085\u2028b\u180Ec\u3000"),
              ElementsAre(" \u0085\u2028", "\u3000"));
  EXPECT_THAT(Matches(R"(\S+)", "a b\u180E\u2003c"), ElementsAre("a", "b\u180E", "c"));
  EXPECT_THAT(Matches(R"([^\S\n]+)", "a \n\t\u180E"), ElementsAre(" ", "\t"));
  EXPECT_THAT(Matches(R"([\s\d]+)", "a 1\n2b"), ElementsAre(" 1\n2"));
  EXPECT_THAT(Matches(R"(\w+)", "a_\u0301\u0663 -\u203F"), ElementsAre("a_\u0301\u0663", "\u203F"));
  EXPECT_THAT(Matches(R"(\W+)", "a - b"), ElementsAre(" - "));
}

TEST(RegexTest, MatchesAsOniguruma) {
  EXPECT_THAT(Matches("^b$", "a\nb\nc"), ElementsAre("b"));  // ^ and $ know lines
  EXPECT_THAT(Matches(R"(\v)", "\n\x0b"), ElementsAre("\x0b"));
  EXPECT_THAT(Matches(R"(\u00e9)", "e\u00e9"), ElementsAre("\u00e9"));
  EXPECT_THAT(Matches("(?i:'s)", "'S'\u017F"), ElementsAre("'S", "'\u017F"));
  EXPECT_THAT(Matches(R"(\p{Han}+)", "a\u4ECAb\u3001"), ElementsAre("\u4ECA"));
  EXPECT_THAT(Matches(R"(\p{^L}+)", "a1-b"), ElementsAre("1-"));
  EXPECT_THAT(Matches("(a)(b)", "abab"), ElementsAre("ab", "ab"));
}

TEST(RegexTest, TakesEmptyMatchesButNotAfterAMatch) {
  EXPECT_THAT(Matches("x*", "axxb"), ElementsAre("", "xx", ""));
  EXPECT_THAT(Matches("x*", "é"), ElementsAre("", ""));
  EXPECT_THAT(Matches("a|$", "ba"), ElementsAre("a"));
}

TEST(RegexTest, FindsMatchesFarFromEachOther) {
  for (size_t gap : {0, 1, 254, 255, 256, 257, 511, 512, 513, 5000}) {
    const std::string filling(gap, '.');
    EXPECT_EQ(Matches("x", filling + "x" + filling + "x" + filling).size(), 2u) << gap;
    std::string wide;
    for (size_t i = 0; i < gap; ++i) wide += "\u3042";
    EXPECT_EQ(Matches("(?<=\u3042)x", wide + "x" + wide + "x").size(), gap == 0 ? 0u : 2u) << gap;
  }
}

TEST(RegexTest, RefusesWhatTheTwoEnginesTakeDifferently) {
  for (const char* pattern :
       {R"(\h)",   R"(\b)", R"(\K)",  R"(\R)",  R"(\X)",   R"(\1)",   R"(\G)",
        R"(\Q)",   R"(\C)", "(?m:a)", "(?R)",   "(?<n>a)", "(*UTF)a", "(*LIMIT_MATCH=9)a",
        "a{1,2}+", "a{,2}", "[a[b]]", "[a&&b]", "[]a]",    R"([\W])", R"(\p{L&})",
        "(?#x)",   "(?C1)"}) {
    EXPECT_EQ(CompileCode(pattern), absl::StatusCode::kUnimplemented) << pattern;
  }
}

TEST(RegexTest, RefusesWhatIsNoPattern) {
  for (const char* pattern :
       {"(", "[a", "a**b{2,1}", "\\", R"(\u12)", R"(\p{Nonsense})", R"(\pL)", "\xFF", "(?<=a+)b"}) {
    EXPECT_EQ(CompileCode(pattern), absl::StatusCode::kInvalidArgument) << pattern;
  }
  EXPECT_EQ(CompileCode(std::string(20'000, 'a')), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CompileCode(std::string(200, '(') + std::string(200, ')')),
            absl::StatusCode::kInvalidArgument);
}

TEST(RegexTest, GivesUpOnCatastrophicBacktracking) {
  auto regex = Regex::Compile("(a+)+$");
  ASSERT_TRUE(regex.ok());
  std::vector<ByteSpan> spans;
  const absl::Status status =
      regex->FindAll(std::string(5000, 'a') + "b", SearchDeadline(std::chrono::hours(1)), &spans);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
}

TEST(RegexTest, GivesUpWhenTimeIsOver) {
  // Every place costs as much as the text is long, and no single match takes many steps.
  auto regex = Regex::Compile("x(?=.*y)|z");
  ASSERT_TRUE(regex.ok());
  std::vector<ByteSpan> spans;
  const absl::Status status = regex->FindAll(std::string(100'000, 'x') + "y",
                                             SearchDeadline(std::chrono::nanoseconds(0)), &spans);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("too long"));
}

}  // namespace
}  // namespace lorad
