#include "model/tokenizer/sentencepiece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <string>
#include <vector>

#include "model/tokenizer/sentencepiece_model.h"

namespace lorad {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Model = SentencePieceModel;

// Writes the protobuf wire format.
std::string Varint(uint64_t value) {
  std::string out;
  for (; value > 127; value >>= 7) out.push_back(static_cast<char>((value & 127) | 128));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string NumberField(int field, uint64_t value) { return Varint(field << 3) + Varint(value); }
std::string BytesField(int field, std::string_view bytes) {
  return Varint(field << 3 | 2) + Varint(bytes.size()) + std::string(bytes);
}
std::string FloatField(int field, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  std::string out = Varint(field << 3 | 5);
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(bits >> shift));
  return out;
}
std::string Piece(std::string_view text, float score, int type) {
  return BytesField(1, BytesField(1, text) + FloatField(2, score) + NumberField(3, type));
}

std::string Trainer(int model_type = Model::kBpe, bool byte_fallback = false) {
  return BytesField(2, NumberField(3, model_type) + NumberField(35, byte_fallback));
}
std::string NormalizerSpec(bool remove_extra_whitespaces = false, bool add_dummy_prefix = true) {
  return BytesField(3, BytesField(1, "identity") + NumberField(3, add_dummy_prefix) +
                           NumberField(4, remove_extra_whitespaces) + NumberField(5, 1));
}
std::string Basics() {
  return Piece("<unk>", 0, Model::kUnknown) + Piece("<s>", 0, Model::kControl) +
         Piece("</s>", 0, Model::kControl);
}
std::string Small() {
  return Basics() + Piece("▁a", -1, Model::kNormal) + Piece("ab", 0, Model::kNormal) +
         Piece("[X]", 0, Model::kUserDefined) + Piece("▁", -10, Model::kNormal) +
         Piece("a", -11, Model::kNormal) + Piece("b", -12, Model::kNormal) + Trainer();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(std::string_view bytes,
                                                const TokenizerConfig& config = {}) {
  return ParseSentencePieceModel(bytes, config);
}

TEST(SentencePiece, MergesByScore) {
  auto tokenizer = Load(Small() + NormalizerSpec());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Tokenizer& t = **tokenizer;
  EXPECT_THAT(*t.Encode("a"), ElementsAre(1, 3));
  EXPECT_THAT(*t.Encode("ab"), ElementsAre(1, 6, 4));  // "ab" scores higher than "▁a"
  EXPECT_THAT(*t.Encode("  b"), ElementsAre(1, 6, 6, 6, 8));
  EXPECT_THAT(*t.Encode("a[X]b"), ElementsAre(1, 3, 5, 8));
  EXPECT_THAT(*t.Encode("a<s>a"), ElementsAre(1, 3, 1, 3));
  EXPECT_THAT(*t.Encode("éxa"), ElementsAre(1, 6, 0, 7));
  EXPECT_EQ(t.bos_id(), 1);
  EXPECT_EQ(t.eos_id(), 2);
  EXPECT_TRUE(t.is_special(0));
  EXPECT_FALSE(t.is_special(5));
  EXPECT_EQ(t.Decode(std::vector<TokenId>{1, 3, 6, 4}, true), "a ab");
}

TEST(SentencePiece, FollowsItsNormalizerSpec) {
  auto tokenizer = Load(Small() + NormalizerSpec(/*remove_extra_whitespaces=*/true));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(*(*tokenizer)->Encode("  b   a "), ElementsAre(1, 6, 8, 3));
  EXPECT_THAT(*(*tokenizer)->Encode("   "), ElementsAre(1));
  tokenizer = Load(Small() + NormalizerSpec(false, /*add_dummy_prefix=*/false));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(*(*tokenizer)->Encode("a"), ElementsAre(1, 7));
  EXPECT_EQ((*tokenizer)->Decode(std::vector<TokenId>{3}, true), " a");
}

TEST(SentencePiece, FollowsTokenizerConfig) {
  TokenizerConfig config{.bos_token = "</s>",
                         .eos_token = "<end>",
                         .add_bos_token = false,
                         .add_eos_token = false,
                         .legacy = false,
                         .added_tokens = {{.id = 9, .content = "<end>", .special = true}}};
  auto tokenizer = Load(Small() + NormalizerSpec(), config);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(*(*tokenizer)->Encode("a<s>a<end>"), ElementsAre(3, 1, 7, 9));
  EXPECT_EQ((*tokenizer)->bos_id(), 2);
  EXPECT_EQ((*tokenizer)->eos_id(), 9);
  EXPECT_EQ((*tokenizer)->vocab_size(), 10);
}

TEST(SentencePiece, AddsTheEndTokenThatTheConfigAdds) {
  TokenizerConfig config{.add_eos_token = true,
                         .added_tokens = {{.id = 9, .content = "<end>", .special = true}}};
  config.eos_token = "<end>";
  auto tokenizer = Load(Small() + NormalizerSpec(), config);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(*(*tokenizer)->Encode("a"), ElementsAre(1, 3, 9));
}

TEST(SentencePiece, RefusesWhatItDoesNotKnowByName) {
  const std::pair<std::string, const char*> cases[] = {
      {Basics() + Trainer(Model::kUnigram), "model_type"},
      {Basics(), "model_type"},  // Unigram by default
      {Small() + BytesField(3, BytesField(2, "map")), "precompiled_charsmap"},
      {Small() + BytesField(5, BytesField(2, "map")), "precompiled_charsmap"},
      {Small() + BytesField(3, NumberField(5, 0)), "escape_whitespaces"},
      {Small() + BytesField(2, NumberField(24, 1)), "treat_whitespace_as_suffix"},
      {Small() + Piece("b", 0, Model::kUnused), "UNUSED"},
      {Small() + Piece("bc", 0, Model::kNormal), "no piece"},
  };
  for (const auto& [bytes, message] : cases) {
    const absl::Status status = Load(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << message << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(SentencePiece, RefusesBrokenModels) {
  const std::string cases[] = {
      "",
      "not a protobuf",
      Trainer(),                                              // no pieces
      Piece("a", 0, Model::kNormal) + Trainer(),              // no unknown piece
      Basics() + Piece("?", 0, Model::kUnknown) + Trainer(),  // two of them
      Basics() + Piece("", 0, Model::kNormal) + Trainer(),
      Basics() + Piece("\xFF", 0, Model::kNormal) + Trainer(),
      Basics() + Piece(std::string(513, 'a'), 0, Model::kNormal) + Trainer(),
      Basics() + Piece("a", std::numeric_limits<float>::quiet_NaN(), Model::kNormal) + Trainer(),
      Basics() + Piece("a", 0, 7) + Trainer(),
      Small() + Piece("a", 0, Model::kNormal),                  // twice
      Basics() + Piece("<0x41>", 0, Model::kByte) + Trainer(),  // one byte, no fallback
      Basics() + Piece("<0x41>", 0, Model::kByte) + Trainer(Model::kBpe, true),
      Basics() + Piece("A", 0, Model::kByte) + Trainer(Model::kBpe, true),
      Small() + NumberField(1, 5),                          // a piece that is a number
      Small() + BytesField(2, BytesField(3, "x")),          // a type that is a string
      Small() + Varint(3 << 3 | 3),                         // a group
      Small() + Varint(1 << 3 | 2) + Varint(~uint64_t{0}),  // longer than the file
      Small() + std::string(11, '\xFF'),                    // an endless number
  };
  for (const std::string& bytes : cases) {
    EXPECT_EQ(Load(bytes).status().code(), absl::StatusCode::kInvalidArgument)
        << testing::PrintToString(bytes);
  }
}

TEST(SentencePiece, SurvivesEveryTruncationAndBitFlip) {
  const std::string bytes = NormalizerSpec() + Small();
  for (size_t size = 0; size < bytes.size(); ++size) {
    auto tokenizer = Load(bytes.substr(0, size));
    EXPECT_FALSE(tokenizer.ok()) << size;  // without its last part it is no BPE model
  }
  int refused = 0;
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string flipped = bytes;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    auto tokenizer = Load(flipped);
    if (tokenizer.ok()) {
      auto ids = (*tokenizer)->Encode("a ab[X] <s>é");
      ASSERT_TRUE(ids.ok());
      (*tokenizer)->Decode(*ids, false);
    } else {
      ++refused;
    }
  }
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace lorad
