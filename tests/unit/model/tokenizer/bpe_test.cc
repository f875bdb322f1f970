#include "model/tokenizer/bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace lorad {
namespace {

using testing::ElementsAre;

// A vocabulary of `characters` and of `merges`, ranked in their order.
BpeSpec MakeSpec(const std::vector<std::string>& characters,
                 const std::vector<std::pair<std::string, std::string>>& merges) {
  BpeSpec spec;
  std::map<std::string, TokenId> ids;
  const auto id_of = [&](const std::string& token) {
    const auto [found, is_new] = ids.emplace(token, static_cast<TokenId>(ids.size()));
    if (is_new) spec.vocab.emplace_back(token, found->second);
    return found->second;
  };
  for (const std::string& character : characters) id_of(character);
  for (const auto& [left, right] : merges) {
    const auto rank = static_cast<uint32_t>(spec.merges.size());
    spec.merges.push_back({id_of(left), id_of(right), id_of(left + right), rank});
  }
  spec.special.assign(spec.vocab.size(), false);
  return spec;
}

std::vector<TokenId> Encode(const Bpe& bpe, std::string_view word, bool allow_special = true) {
  Bpe::Scratch scratch;
  std::vector<TokenId> ids;
  bpe.Encode(word, allow_special, &scratch, &ids);
  return ids;
}

// The definition: again and again the leftmost of the pairs with the lowest rank.
std::vector<TokenId> EncodeByDefinition(const BpeSpec& spec, std::string_view word) {
  std::map<std::string, TokenId> vocab(spec.vocab.begin(), spec.vocab.end());
  std::map<std::pair<TokenId, TokenId>, BpeMerge> merges;
  for (const BpeMerge& merge : spec.merges) merges[{merge.left, merge.right}] = merge;
  std::vector<TokenId> ids;
  for (char c : word) ids.push_back(vocab.at(std::string(1, c)));
  while (true) {
    const BpeMerge* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = merges.find({ids[i], ids[i + 1]});
      if (found == merges.end() || (best != nullptr && found->second.rank >= best->rank)) continue;
      best = &found->second;
      at = i;
    }
    if (best == nullptr) return ids;
    ids[at] = best->merged;
    ids.erase(ids.begin() + at + 1);
  }
}

TEST(BpeTest, MergesByRankThenFromTheLeft) {
  const Bpe bpe(MakeSpec({"a", "b", "c"}, {{"b", "c"}, {"a", "b"}, {"a", "a"}}));
  EXPECT_THAT(Encode(bpe, "abc"), ElementsAre(0, 3));
  EXPECT_THAT(Encode(bpe, "aaa"), ElementsAre(5, 0));
  EXPECT_THAT(Encode(bpe, ""), ElementsAre());
}

TEST(BpeTest, EqualsItsDefinitionOnRandomVocabulariesAndWords) {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    const std::vector<std::string> letters = {"a", "b", "c", "d"};
    std::vector<std::string> tokens = letters;
    std::vector<std::pair<std::string, std::string>> merges;
    for (int i = 0; i < 40; ++i) {
      const std::string left = tokens[random() % tokens.size()],
                        right = tokens[random() % tokens.size()];
      if (left.size() + right.size() > 9) continue;
      merges.emplace_back(left, right);
      tokens.push_back(left + right);
    }
    BpeSpec spec = MakeSpec(letters, merges);
    if (round % 3 == 0) {  // as in SentencePiece: some ranks are shared
      for (BpeMerge& merge : spec.merges) merge.rank /= 4;
    }
    const Bpe bpe(spec);
    for (size_t length : {1, 2, 5, 15, 16, 17, 31, 32, 33, 60, 200}) {
      std::string word;
      while (word.size() < length) word += letters[random() % (round % 2 == 0 ? 4 : 2)];
      EXPECT_EQ(Encode(bpe, word), EncodeByDefinition(spec, word)) << word;
    }
  }
}

TEST(BpeTest, ALongRunOfOneLetterIsNoTrouble) {
  const Bpe bpe(MakeSpec({"a"}, {{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}}));
  const std::vector<TokenId> ids = Encode(bpe, std::string((1 << 18) + 1, 'a'));
  ASSERT_EQ(ids.size(), (1u << 15) + 1);
  EXPECT_EQ(ids.front(), 3);
  EXPECT_EQ(ids.back(), 0);
}

TEST(BpeTest, UnknownCharactersBecomeOneTokenOrSeveral) {
  BpeSpec spec = MakeSpec({"a", "?"}, {});
  spec.unk_id = 1;
  EXPECT_THAT(Encode(Bpe(spec), "xéa\U0001F642"), ElementsAre(1, 1, 0, 1));
  spec.fuse_unk = true;
  EXPECT_THAT(Encode(Bpe(spec), "xéa\U0001F642"), ElementsAre(1, 0, 1));
  spec.unk_id = kNoToken;
  EXPECT_THAT(Encode(Bpe(spec), "xéa\U0001F642"), ElementsAre(0));
}

TEST(BpeTest, FallsBackOnBytesOnlyIfAllAreThere) {
  BpeSpec spec = MakeSpec({"a", "?", "<0xC3>", "<0xA9>", "<0xE2>"}, {});
  spec.unk_id = 1;
  spec.byte_fallback = true;
  const Bpe bpe(spec);
  EXPECT_THAT(Encode(bpe, "aéa"), ElementsAre(0, 2, 3, 0));
  EXPECT_THAT(Encode(bpe, "\u20AC"), ElementsAre(1));
  // Hugging Face emits a waiting unknown token after the bytes that follow it.
  EXPECT_THAT(Encode(bpe, "\u20ACéa"), ElementsAre(2, 3, 1, 0));
}

TEST(BpeTest, BytesThatMergesKnowAreMergedLikeAnyToken) {
  BpeSpec spec = MakeSpec({"a", "<0xC3>", "<0xA9>"}, {{"<0xC3>", "<0xA9>"}});
  spec.byte_fallback = true;
  EXPECT_THAT(Encode(Bpe(spec), std::string(20, 'a') + "é"),
              ElementsAre(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3));
}

TEST(BpeTest, ByteLevelLooksUpBytes) {
  BpeSpec spec = MakeSpec({"a", "Ġ", "Ã", "©"}, {{"Ġ", "a"}, {"Ã", "©"}});
  spec.byte_level = true;
  EXPECT_THAT(Encode(Bpe(spec), " aé"), ElementsAre(4, 5));
}

TEST(BpeTest, IgnoreMergesTakesAWordThatIsAToken) {
  BpeSpec spec = MakeSpec({"a", "b", "ab"}, {});
  EXPECT_THAT(Encode(Bpe(spec), "ab"), ElementsAre(0, 1));
  spec.ignore_merges = true;
  EXPECT_THAT(Encode(Bpe(spec), "ab"), ElementsAre(2));
}

TEST(BpeTest, NoSpecialTokenComesOutUnlessAllowed) {
  BpeSpec spec = MakeSpec({"<", "s", ">"}, {{"<", "s"}, {"<s", ">"}});
  spec.special[4] = true;  // "<s>"
  for (bool ignore_merges : {false, true}) {
    spec.ignore_merges = ignore_merges;
    const Bpe bpe(spec);
    EXPECT_THAT(Encode(bpe, "<s>", true), ElementsAre(4));
    EXPECT_THAT(Encode(bpe, "<s>", false), ElementsAre(3, 2));
    std::string many;
    for (int i = 0; i < 40; ++i) many += "<s>";
    EXPECT_THAT(Encode(bpe, many, false), testing::Not(testing::Contains(4)));
  }
}

TEST(ByteOfTokenTest, ReadsTwoHexadecimalDigits) {
  EXPECT_EQ(ByteOfToken("<0xE2>"), 0xE2);
  EXPECT_EQ(ByteOfToken("<0x0a>"), 0x0A);
  for (const char* other : {"", "<0xE>", "<0xE22>", "<0xG2>", "<1xE2>", "0xE2", "<0xE2]"}) {
    EXPECT_EQ(ByteOfToken(other), std::nullopt) << other;
  }
}

}  // namespace
}  // namespace lorad
