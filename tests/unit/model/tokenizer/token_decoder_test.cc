#include "model/tokenizer/token_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kLlama[] = R"({"type": "Sequence", "decoders": [
  {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
  {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";
constexpr char kByteLevel[] =
    R"({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true})";

absl::StatusOr<TokenDecoder> Parse(std::string_view text) {
  auto json = ParseJson(text);
  EXPECT_TRUE(json.ok()) << json.status();
  return TokenDecoder::FromJson(&*json);
}

// What each token lets out, and last what is left.
std::vector<std::string> Deltas(std::string_view json, const std::vector<std::string>& tokens) {
  auto decoder = Parse(json);
  EXPECT_TRUE(decoder.ok()) << decoder.status();
  if (!decoder.ok()) return {};
  DecodeStream stream(*decoder);
  std::vector<std::string> deltas;
  for (const std::string& token : tokens) stream.Push(token, &deltas.emplace_back());
  stream.Flush(&deltas.emplace_back());
  for (const std::string& delta : deltas) EXPECT_TRUE(IsValidUtf8(delta));
  return deltas;
}

TEST(TokenDecoderTest, ByteFallbackWaitsForWholeCharacters) {
  EXPECT_THAT(Deltas(kLlama, {"▁Hi", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "▁a"}),
              ElementsAre("Hi", "", "", "", "🙂", " a", ""));
}

TEST(TokenDecoderTest, ByteFallbackReplacesIllFormedBytesOneByOne) {
  EXPECT_THAT(Deltas(kLlama, {"<0xE4>", "<0xBD>", "x"}), ElementsAre("", "", "��x", ""));
  EXPECT_THAT(Deltas(kLlama, {"<0xE4>", "<0xBD>"}), ElementsAre("", "", "��"));
  EXPECT_THAT(Deltas(kLlama, {"<0xE4>", "<0x41>"}), ElementsAre("", "�A", ""));
  EXPECT_THAT(Deltas(kLlama, {"<0xFF>", "<0xC3>", "<0xA9>"}), ElementsAre("�", "", "é", ""));
}

TEST(TokenDecoderTest, StripTakesOneSpaceAtTheVeryStart) {
  EXPECT_THAT(Deltas(kLlama, {"▁▁a", "▁"}), ElementsAre(" a", " ", ""));
  EXPECT_THAT(Deltas(kLlama, {"▁", "▁", "b"}), ElementsAre("", " ", "b", ""));
  EXPECT_THAT(Deltas(kLlama, {"<0x20>", "<0x20>"}), ElementsAre("", " ", ""));
  EXPECT_THAT(Deltas(kLlama, {"<s>", "▁a"}), ElementsAre("<s>", " a", ""));
}

TEST(TokenDecoderTest, ByteLevelReplacesTheMaximalIllFormedPart) {
  EXPECT_THAT(Deltas(kByteLevel, {"Ġa", "ðŁ", "ĻĤ"}), ElementsAre(" a", "", "🙂", ""));
  EXPECT_THAT(Deltas(kByteLevel, {"ðŁĻ", "Ġ"}), ElementsAre("", "� ", ""));
  EXPECT_THAT(Deltas(kByteLevel, {"ðŁĻ"}), ElementsAre("", "�"));
  EXPECT_THAT(Deltas(kByteLevel, {"í", "ł", "Ģ"}), ElementsAre("", "��", "�", ""));  // a surrogate
  EXPECT_THAT(Deltas(kByteLevel, {"<|日|>", "é"}), ElementsAre("<|日|>", "", "�"));
}

TEST(TokenDecoderTest, MetaspaceTreatsTheFirstTokenApart) {
  EXPECT_THAT(Deltas(R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"})",
                     {"▁a▁", "▁b"}),
              ElementsAre("a", " b", ""));
  EXPECT_THAT(Deltas(R"({"type": "Metaspace", "replacement": "▁", "add_prefix_space": false})",
                     {"▁a", "▁b"}),
              ElementsAre(" a", " b", ""));
}

TEST(TokenDecoderTest, BytesOfATokenNeedNotBeCharacters) {
  EXPECT_EQ(Parse(kLlama)->BytesOf("<0xF0>"), "\xF0");
  EXPECT_EQ(Parse(kLlama)->BytesOf("▁a"), " a");
  EXPECT_EQ(Parse(kByteLevel)->BytesOf("Ġð"), " \xF0");
}

TEST(TokenDecoderTest, RefusesWhatCannotBeStreamedOrIsUnknown) {
  EXPECT_EQ(TokenDecoder::FromJson(nullptr).status().code(), absl::StatusCode::kUnimplemented);
  for (const char* json : {
           R"({"type": "WordPiece", "prefix": "##"})",
           R"({"type": "Strip", "content": " ", "start": 0, "stop": 1})",
           R"({"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"})",
           R"({"type": "Fuse", "more": 1})",
           R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})",
           R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"},
               {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})",
           R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"},
               {"type": "Replace", "pattern": {"String": "ab"}, "content": ""}]})",
       }) {
    EXPECT_EQ(Parse(json).status().code(), absl::StatusCode::kUnimplemented) << json;
  }
  for (const char* json : {
           R"([])",
           R"({})",
           R"({"type": 1})",
           R"({"type": "Sequence"})",
           R"({"type": "Strip", "content": "ab", "start": 1, "stop": 0})",
           R"({"type": "Strip", "content": " ", "start": -1, "stop": 0})",
           R"({"type": "Replace", "pattern": {"String": ""}, "content": "b"})",
           R"({"type": "Metaspace", "replacement": ""})",
       }) {
    EXPECT_EQ(Parse(json).status().code(), absl::StatusCode::kInvalidArgument) << json;
  }
  EXPECT_THAT(std::string(Parse(R"({"type": "CTC"})").status().message()),
              HasSubstr("decoder.type: 'CTC'"));
}

}  // namespace
}  // namespace lorad
