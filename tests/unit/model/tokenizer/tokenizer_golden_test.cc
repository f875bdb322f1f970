// Every kind of tokenizer against what Hugging Face's code answered
// (tests/golden/tokenizer/make_goldens.py).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "memory/base/check.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

std::filesystem::path GoldenDir() {
  const char* source = std::getenv("LORAD_SOURCE_DIR");
  LORAD_CHECK(source != nullptr);
  return std::filesystem::path(source) / "tests" / "golden" / "tokenizer";
}

class GoldenReader {
 public:
  explicit GoldenReader(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    LORAD_CHECK(!bytes_.empty());
  }

  uint64_t Number() {
    uint64_t number = 0;
    for (int shift = 0;; shift += 7) {
      LORAD_CHECK(at_ < bytes_.size());
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      number |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return number;
    }
  }
  std::string Blob() {
    const size_t size = Number();
    LORAD_CHECK(at_ + size <= bytes_.size());
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  std::vector<TokenId> Ids() {
    std::vector<TokenId> ids(Number());
    for (TokenId& id : ids) id = static_cast<TokenId>(Number());
    return ids;
  }
  std::string Text(const std::string& input, const std::string& decoded) {
    switch (Number()) {
      case 0:
        return input;
      case 1:
        return Blob();
      default:
        return Blob() + decoded;
    }
  }
  bool AtEnd() const { return at_ == bytes_.size(); }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

std::vector<std::string> ReadStrings() {
  GoldenReader reader(GoldenDir() / "strings.bin");
  std::vector<std::string> strings(reader.Number());
  for (std::string& text : strings) text = reader.Blob();
  LORAD_CHECK(reader.AtEnd());
  return strings;
}

struct GoldenCase {
  std::string input;
  std::vector<TokenId> ids, plain_ids;
  std::string decoded, decoded_full;
};

struct Golden {
  std::vector<GoldenCase> strings;
  std::vector<GoldenCase> sequences;  // random ids, no input
};

Golden ReadGolden(const std::string& kind) {
  const std::vector<std::string> strings = ReadStrings();
  GoldenReader reader(GoldenDir() / kind / "golden.bin");
  Golden golden;
  const size_t stride = reader.Number();
  for (size_t i = 0; i < strings.size(); i += stride) {
    GoldenCase& item = golden.strings.emplace_back();
    item.input = strings[i];
    item.ids = reader.Ids();
    item.plain_ids = reader.Number() == 0 ? item.ids : reader.Ids();
    item.decoded = reader.Text(item.input, "");
    item.decoded_full = reader.Text(item.input, item.decoded);
  }
  golden.sequences.resize(reader.Number());
  for (GoldenCase& item : golden.sequences) {
    item.ids = reader.Ids();
    item.decoded = reader.Blob();
    item.decoded_full = reader.Blob();
  }
  LORAD_CHECK(reader.AtEnd());
  return golden;
}

class TokenizerGolden : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::Load(GoldenDir() / GetParam());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    golden_ = ReadGolden(GetParam());
    const bool is_variant = std::string_view(GetParam()).starts_with("variant");
    ASSERT_GE(golden_.strings.size(), is_variant ? 1000u : 5000u);
  }

  std::string DecodeStepwise(const std::vector<TokenId>& ids, bool skip_special_tokens) const {
    const auto detokenizer = tokenizer_->NewDetokenizer(skip_special_tokens);
    std::string text;
    for (TokenId id : ids) {
      const std::string delta = detokenizer->Push(id);
      EXPECT_TRUE(IsValidUtf8(delta)) << testing::PrintToString(delta);
      text += delta;
    }
    return text + detokenizer->Flush();
  }

  void ExpectDecoded(const GoldenCase& item) const {
    EXPECT_EQ(tokenizer_->Decode(item.ids, true), item.decoded);
    EXPECT_EQ(tokenizer_->Decode(item.ids, false), item.decoded_full);
    EXPECT_EQ(DecodeStepwise(item.ids, true), item.decoded);
    EXPECT_EQ(DecodeStepwise(item.ids, false), item.decoded_full);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  Golden golden_;
};

TEST_P(TokenizerGolden, EncodesAsHuggingFace) {
  for (const GoldenCase& item : golden_.strings) {
    SCOPED_TRACE(testing::PrintToString(item.input));
    const auto ids = tokenizer_->Encode(item.input);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, item.ids);
    const auto plain_ids = tokenizer_->Encode(item.input, {.parse_special = false});
    ASSERT_TRUE(plain_ids.ok()) << plain_ids.status();
    EXPECT_EQ(*plain_ids, item.plain_ids);
  }
}

TEST_P(TokenizerGolden, DecodesAsHuggingFace) {
  for (const GoldenCase& item : golden_.strings) {
    SCOPED_TRACE(testing::PrintToString(item.input));
    ExpectDecoded(item);
  }
  ASSERT_GE(golden_.sequences.size(), 100u);
  for (const GoldenCase& item : golden_.sequences) {
    SCOPED_TRACE(testing::PrintToString(item.ids));
    ExpectDecoded(item);
  }
}

TEST_P(TokenizerGolden, IsThreadSafe) {
  const auto encode_all = [this] {
    for (size_t i = 0; i < golden_.strings.size(); i += 7) {
      const auto ids = tokenizer_->Encode(golden_.strings[i].input);
      LORAD_CHECK(ids.ok() && *ids == golden_.strings[i].ids);
    }
  };
  std::thread other(encode_all);
  encode_all();
  other.join();
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerGolden,
                         testing::Values("gpt2", "llama3", "qwen2", "llama2", "mistral", "spm",
                                         "variant_metaspace", "variant_prefix", "variant_deepseek",
                                         "variant_split", "variant_whitespace"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace lorad
