#include "model/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "memory/base/check.h"
#include "model/tokenizer/json.h"
#include "model/tokenizer/sentencepiece.h"
#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

using testing::HasSubstr;

std::filesystem::path Golden(const char* kind) {
  const char* source = std::getenv("LORAD_SOURCE_DIR");
  LORAD_CHECK(source != nullptr);
  return std::filesystem::path(source) / "tests" / "golden" / "tokenizer" / kind;
}

class TokenizerLoad : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::path(testing::TempDir()) /
           testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void Write(const char* name, std::string_view text) { std::ofstream(dir_ / name) << text; }
  absl::Status LoadStatus() const { return Tokenizer::Load(dir_).status(); }

  std::filesystem::path dir_;
};

TEST_F(TokenizerLoad, NeedsOneOfTheFiles) {
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kNotFound);
  std::filesystem::copy(Golden("spm") / "tokenizer.model", dir_ / "tokenizer.model");
  EXPECT_TRUE(LoadStatus().ok()) << LoadStatus();
}

TEST_F(TokenizerLoad, PrefersTokenizerJsonAndDoesNotFallBack) {
  std::filesystem::copy(Golden("spm") / "tokenizer.model", dir_ / "tokenizer.model");
  Write("tokenizer.json", "{");
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(LoadStatus().message()), HasSubstr("tokenizer.json: "));
}

TEST_F(TokenizerLoad, RefusesABrokenConfig) {
  std::filesystem::copy(Golden("gpt2") / "tokenizer.json", dir_ / "tokenizer.json");
  Write("tokenizer_config.json", "[]");
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(TokenizerLoad, RefusesAddedTokensThatItWouldMiss) {
  std::filesystem::copy(Golden("spm") / "tokenizer.model", dir_ / "tokenizer.model");
  Write("added_tokens.json", R"({"<x>": 2000})");
  EXPECT_EQ(LoadStatus().code(), absl::StatusCode::kUnimplemented);
  Write("tokenizer_config.json", R"({"added_tokens_decoder": {"2000": {"content": "<x>"}}})");
  EXPECT_TRUE(LoadStatus().ok()) << LoadStatus();
}

TEST(TokenizerTest, ReadsBosAndEosFromTheConfig) {
  auto tokenizer = Tokenizer::Load(Golden("llama3"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), (*tokenizer)->TokenToId("<|begin_of_text|>"));
  EXPECT_EQ((*tokenizer)->eos_id(), (*tokenizer)->TokenToId("<|eot_id|>"));
  ASSERT_TRUE((*tokenizer)->bos_id().has_value());
  EXPECT_TRUE((*tokenizer)->is_special(*(*tokenizer)->bos_id()));
}

TEST(TokenizerTest, LongRunsAreEncodedWhole) {
  for (const char* kind : {"gpt2", "llama3", "qwen2", "llama2"}) {
    auto tokenizer = Tokenizer::Load(Golden(kind));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (std::string_view unit :
         {"a", " ", "\n", "!", "1", "\u3000", "'", " \t", "\u0301\u0316", "<s"}) {
      std::string text;
      while (text.size() < 70'000) text += unit;
      const auto ids = (*tokenizer)->Encode(text, {.add_special_tokens = false});
      ASSERT_TRUE(ids.ok()) << ids.status() << unit;
      const auto normalized = Normalize(NormalForm::kNfc, text);
      ASSERT_TRUE(normalized.ok());
      const bool is_normalized = std::string_view(kind) == "qwen2";
      EXPECT_EQ((*tokenizer)->Decode(*ids, false) == (is_normalized ? *normalized : text), true)
          << kind << unit;
    }
  }
}

TEST(TokenizerTest, AnyTokensStreamAsTheyDecode) {
  std::mt19937 random(5);
  for (const char* kind : {"gpt2", "llama2", "spm", "variant_metaspace", "variant_whitespace"}) {
    auto tokenizer = Tokenizer::Load(Golden(kind));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (int round = 0; round < 500; ++round) {
      std::vector<TokenId> ids;
      for (size_t i = 0; i < 1 + random() % 20; ++i)
        ids.push_back(static_cast<TokenId>(random() % 300) - 1);
      for (bool skip : {false, true}) {
        const auto stream = (*tokenizer)->NewDetokenizer(skip);
        std::string text;
        for (TokenId id : ids) {
          const std::string delta = stream->Push(id);
          ASSERT_TRUE(IsValidUtf8(delta));
          text += delta;
        }
        text += stream->Flush();
        EXPECT_EQ(text, (*tokenizer)->Decode(ids, skip)) << testing::PrintToString(ids);
      }
    }
  }
}

TEST(TokenizerTest, ADamagedRealModelIsRefusedOrWorks) {
  const auto bytes = ReadFile(Golden("spm") / "tokenizer.model");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  std::mt19937 random(3);
  int refused = 0;
  for (int round = 0; round < 200; ++round) {
    std::string damaged = *bytes;
    for (int i = 0; i < 3; ++i)
      damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 8);
    if (round % 4 == 0) damaged.resize(random() % damaged.size());
    auto tokenizer = ParseSentencePieceModel(damaged, {});
    if (!tokenizer.ok()) {
      ++refused;
      continue;
    }
    auto ids = (*tokenizer)->Encode("The quick <s> brown été 🙂");
    ASSERT_TRUE(ids.ok()) << ids.status();
    (*tokenizer)->Decode(*ids, true);
  }
  EXPECT_GT(refused, 50);
}

}  // namespace
}  // namespace lorad
