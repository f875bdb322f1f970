#include "server/output_text.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace lorad {
namespace {

// Tokens are bytes: token 65 is "A". A character of several bytes comes out with its last one.
class ByteTokenizer final : public Tokenizer {
 public:
  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text,
                                              const EncodeOptions&) const override {
    return std::vector<TokenId>(text.begin(), text.end());
  }
  std::string Decode(std::span<const TokenId> tokens, bool) const override {
    return std::string(tokens.begin(), tokens.end());
  }
  std::unique_ptr<IncrementalDetokenizer> NewDetokenizer(bool) const override {
    return std::make_unique<Detokenizer>();
  }
  int vocab_size() const override { return 256; }
  std::optional<TokenId> bos_id() const override { return std::nullopt; }
  std::optional<TokenId> eos_id() const override { return std::nullopt; }
  bool is_special(TokenId) const override { return false; }
  const std::string& IdToToken(TokenId) const override { return empty_; }
  std::string TokenBytes(TokenId id) const override {
    return std::string(1, static_cast<char>(id));
  }
  std::optional<TokenId> TokenToId(std::string_view) const override { return std::nullopt; }

 private:
  class Detokenizer final : public IncrementalDetokenizer {
   public:
    std::string Push(TokenId token) override {
      held_ += static_cast<char>(token);
      const auto byte = static_cast<unsigned char>(token);
      if (byte >= 0xC0) wanted_ = byte >= 0xE0 ? 3 : 2;
      if (held_.size() < wanted_) return {};
      wanted_ = 1;
      return std::exchange(held_, {});
    }
    std::string Flush() override { return held_.empty() ? "" : "?"; }

   private:
    std::string held_;
    size_t wanted_ = 1;
  };
  std::string empty_;
};

struct Result {
  std::vector<std::string> deltas;
  std::string text, matched;
};

Result Feed(std::string_view output, std::vector<std::string> stops, bool include_stop = false,
            size_t allow_from = 0) {
  ByteTokenizer tokenizer;
  OutputText text(&tokenizer, std::move(stops), include_stop);
  Result result;
  for (size_t i = 0; i < output.size(); ++i) {
    result.deltas.push_back(text.Push(static_cast<unsigned char>(output[i]), i + 1 >= allow_from));
    if (!text.matched_stop().empty()) break;
  }
  if (text.matched_stop().empty()) result.deltas.push_back(text.Flush());
  for (const std::string& delta : result.deltas) result.text += delta;
  result.matched = text.matched_stop();
  return result;
}

TEST(OutputTextTest, WithoutStopsEachTokenComesAtOnce) {
  const Result r = Feed("abc", {});
  EXPECT_EQ(r.deltas, (std::vector<std::string>{"a", "b", "c", ""}));
}

TEST(OutputTextTest, NothingOfAStopStringIsEverSent) {
  const Result r = Feed("hello END more", {"END"});
  EXPECT_EQ(r.text, "hello ");
  EXPECT_EQ(r.matched, "END");
}

TEST(OutputTextTest, HeldBackTextComesOnceItIsNoStop) {
  const Result r = Feed("aENx", {"END"});
  EXPECT_EQ(r.deltas, (std::vector<std::string>{"a", "", "", "ENx", ""}));
}

TEST(OutputTextTest, HeldBackTextComesAtTheEnd) { EXPECT_EQ(Feed("abEN", {"END"}).text, "abEN"); }

TEST(OutputTextTest, OverlappingStartsAreFound) {
  EXPECT_EQ(Feed("xaaab!", {"aab"}).text, "xa");
  EXPECT_EQ(Feed("ababac", {"abac"}).text, "ab");
}

TEST(OutputTextTest, TheEarliestOfSeveralStopsWins) {
  const Result r = Feed("one two three", {"three", "two"});
  EXPECT_EQ(r.text, "one ");
  EXPECT_EQ(r.matched, "two");
}

TEST(OutputTextTest, StopStringIsIncludedOnRequest) {
  EXPECT_EQ(Feed("one two three", {"two"}, /*include_stop=*/true).text, "one two");
}

TEST(OutputTextTest, StopsBeforeMinTokensAreText) {
  EXPECT_EQ(Feed("ab.cd.ef", {"."}, false, /*allow_from=*/5).text, "ab.cd");
}

TEST(OutputTextTest, CharactersAreNeverCut) {
  const Result r = Feed("\xE2\x82\xAC!", {});
  EXPECT_EQ(r.deltas, (std::vector<std::string>{"", "", "\xE2\x82\xAC", "!", ""}));
  EXPECT_EQ(Feed("a\xE2\x82", {}).text, "a?");
}

TEST(OutputTextTest, WithoutATokenizerThereIsNoText) {
  OutputText text(nullptr, {}, false);
  EXPECT_EQ(text.Push(65, true), "");
  EXPECT_EQ(text.Flush(), "");
}

}  // namespace
}  // namespace lorad
