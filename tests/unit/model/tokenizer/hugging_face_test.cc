#include "model/tokenizer/hugging_face.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "model/tokenizer/json.h"

namespace lorad {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Llama-2-like, with two added tokens.
constexpr char kFile[] = R"({
  "version": "1.0", "truncation": null, "padding": null,
  "added_tokens": [
    {"id": 0, "content": "<unk>", "special": true, "normalized": false, "single_word": false, "lstrip": false,
     "rstrip": false},
    {"id": 1, "content": "<s>", "special": true, "normalized": false},
    {"id": 9, "content": "<tool>", "special": false, "normalized": false}],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
  "pre_tokenizer": null,
  "post_processor": {"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
  "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
    "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false, "ignore_merges": false,
    "vocab": {"<unk>": 0, "<s>": 1, "▁": 2, "h": 3, "i": 4, "hi": 5, "▁hi": 6, "<": 7, "s>": 8},
    "merges": [["h", "i"], "▁ hi"]}})";

Json File() { return *ParseJson(kFile); }

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const Json& file) {
  return ParseTokenizerJson(file.dump(), {.bos_token = "<s>", .eos_token = "</s>"});
}

// The file with one value replaced.
Json With(const char* pointer, std::string_view value) {
  Json file = File();
  file[Json::json_pointer(pointer)] = *ParseJson(value);
  return file;
}

TEST(TokenizerJson, EncodesAndDecodes) {
  auto tokenizer = Load(File());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Tokenizer& t = **tokenizer;
  EXPECT_THAT(*t.Encode("hi hi"), ElementsAre(1, 6, 6));
  EXPECT_THAT(*t.Encode("hi", {.add_special_tokens = false}), ElementsAre(6));
  EXPECT_THAT(*t.Encode(""), ElementsAre(1));
  EXPECT_THAT(*t.Encode("h<tool>i<s>"), ElementsAre(1, 2, 3, 9, 2, 4, 1));
  EXPECT_EQ(t.Decode(std::vector<TokenId>{1, 6, 9, 6}, false), "<s> hi<tool> hi");
  EXPECT_EQ(t.Decode(std::vector<TokenId>{1, 6, 9, 6}, true), "hi<tool> hi");
  EXPECT_EQ(t.vocab_size(), 10);
  EXPECT_EQ(t.bos_id(), 1);
  EXPECT_EQ(t.eos_id(), std::nullopt);
  EXPECT_TRUE(t.is_special(1));
  EXPECT_FALSE(t.is_special(9));
  EXPECT_FALSE(t.is_special(-1));
  EXPECT_FALSE(t.is_special(1 << 30));
  EXPECT_EQ(t.IdToToken(6), "▁hi");
  EXPECT_EQ(t.IdToToken(-5), "");
  EXPECT_EQ(t.IdToToken(10), "");
  EXPECT_EQ(t.TokenToId("<tool>"), 9);
  EXPECT_EQ(t.TokenToId("nothing"), std::nullopt);
  EXPECT_EQ(t.TokenBytes(6), " hi");
}

TEST(TokenizerJson, SpecialTextCanBePlain) {
  auto tokenizer = Load(File());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(*(*tokenizer)->Encode("hi<s>", {.parse_special = false}), ElementsAre(1, 6, 7, 0));
  // Even where the merges would make the special token out of that text.
  Json file = File();
  file["model"]["vocab"] = {{"<unk>", 0}, {"<s>", 1}, {"<", 2}, {"s", 3},
                            {">", 4},     {"<s", 5},  {"▁", 6}};
  file["model"]["merges"] = Json::array({{"<", "s"}, {"<s", ">"}});
  tokenizer = Load(file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(*(*tokenizer)->Encode("<s>"), ElementsAre(1, 1));
  EXPECT_THAT(*(*tokenizer)->Encode("<s>", {.parse_special = false}), ElementsAre(1, 6, 5, 4));
}

TEST(TokenizerJson, RefusesTextThatIsNotUtf8) {
  auto tokenizer = Load(File());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const char* text : {"\xFF", "hi\xC3", "\xED\xA0\x80", "\xC0\x80"}) {
    EXPECT_EQ((*tokenizer)->Encode(text).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(TokenizerJson, RefusesTextThatIsTooLong) {
  auto tokenizer = Load(File());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::string text((16 << 20) + 1, 'h');
  EXPECT_EQ((*tokenizer)->Encode(text).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerJson, DecodeLeavesOutIdsThatAreNoTokens) {
  auto tokenizer = Load(File());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Decode(std::vector<TokenId>{-1, 6, 10, 1 << 30, 6}, false), "hi hi");
  const auto stream = (*tokenizer)->NewDetokenizer(false);
  EXPECT_EQ(stream->Push(-1) + stream->Push(1 << 30) + stream->Flush(), "");
}

TEST(TokenizerJson, AcceptsIdsWithHoles) {
  auto tokenizer = Load(With("/added_tokens/2/id", "1000"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 1001);
  EXPECT_EQ((*tokenizer)->IdToToken(500), "");
  EXPECT_THAT(*(*tokenizer)->Encode("<tool>"), ElementsAre(1, 1000));
}

struct Broken {
  const char* pointer;
  const char* value;
  const char* message;  // part of it
};

TEST(TokenizerJson, RefusesBrokenFilesByName) {
  const Broken cases[] = {
      {"/model", "null", "model"},
      {"/model", "[]", "model"},
      {"/model/vocab", "[1]", "model.vocab"},
      {"/model/vocab/hi", "-1", "model.vocab: 'hi'"},
      {"/model/vocab/hi", "1e3", "model.vocab: 'hi'"},
      {"/model/vocab/hi", "4194304", "model.vocab: 'hi'"},
      {"/model/vocab/hi", "18446744073709551615", "model.vocab: 'hi'"},
      {"/model/vocab/hi", "\"5\"", "model.vocab: 'hi'"},
      {"/model/vocab/hi", "4", "collides"},
      {"/model/merges", "{}", "model.merges"},
      {"/model/merges/0", "\"h i j\"", "model.merges: entry 0"},
      {"/model/merges/0", "\"hi\"", "model.merges: entry 0"},
      {"/model/merges/0", "[\"h\"]", "model.merges: entry 0"},
      {"/model/merges/0", "[\"h\", 1]", "model.merges: entry 0"},
      {"/model/merges/1", "[\"h\", \"x\"]", "model.merges: entry 1"},
      {"/model/merges/1", "[\"h\", \"h\"]", "model.merges: entry 1"},
      {"/model/merges/1", "\"h \"", "model.merges: entry 1"},
      {"/model/unk_token", "\"<none>\"", "model.unk_token"},
      {"/model/fuse_unk", "1", "model.fuse_unk"},
      {"/added_tokens", "{}", "added_tokens"},
      {"/added_tokens/1", "7", "added_tokens[1]"},
      {"/added_tokens/1/id", "-1", "added_tokens[1].id"},
      {"/added_tokens/1/id", "99999999", "added_tokens[1].id"},
      {"/added_tokens/1/id", "\"1\"", "added_tokens[1].id"},
      {"/added_tokens/1/id", "2", "collides"},
      {"/added_tokens/2/id", "5", "collides"},
      {"/added_tokens/1/content", "null", "added_tokens[1].content"},
      {"/added_tokens/1/special", "\"yes\"", "added_tokens[1].special"},
      {"/post_processor/single", "{}", "post_processor.single"},
      {"/post_processor/single/0", "{\"SpecialToken\": {\"id\": \"<x>\"}}",
       "post_processor.special_tokens.<x>"},
      {"/post_processor/special_tokens/<s>/ids", "[\"a\"]",
       "post_processor.special_tokens.<s>.ids"},
      {"/post_processor/special_tokens/<s>/ids", "[77]", "post_processor: no token has id 77"},
      {"/normalizer", "\"NFC\"", "normalizer"},
  };
  for (const Broken& broken : cases) {
    const absl::Status status = Load(With(broken.pointer, broken.value)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << broken.pointer << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(broken.message));
  }
}

TEST(TokenizerJson, RefusesWhatItDoesNotKnowByName) {
  const Broken cases[] = {
      {"/model/type", "\"Unigram\"", "model.type: 'Unigram'"},
      {"/model/dropout", "0.1", "model.dropout"},
      {"/model/continuing_subword_prefix", "\"##\"", "model.continuing_subword_prefix"},
      {"/model/end_of_word_suffix", "\"</w>\"", "model.end_of_word_suffix"},
      {"/model/novelty", "1", "model.novelty"},
      {"/novelty", "{}", "novelty"},
      {"/added_tokens/1/novelty", "true", "added_tokens[1].novelty"},
      {"/post_processor/type", "\"RobertaProcessing\"", "post_processor.type: 'RobertaProcessing'"},
      {"/post_processor/single", "[]", "post_processor.single"},
      {"/decoder", "null", "decoder"},
      {"/decoder/decoders/0/type", "\"CTC\"", "decoder.decoders[0].type: 'CTC'"},
      {"/pre_tokenizer", "{\"type\": \"UnicodeScripts\"}", "pre_tokenizer.type: 'UnicodeScripts'"},
      {"/normalizer/normalizers/1/type", "\"Nmt\"", "normalizer.normalizers[1].type: 'Nmt'"},
  };
  for (const Broken& unknown : cases) {
    const absl::Status status = Load(With(unknown.pointer, unknown.value)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << unknown.pointer << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(unknown.message));
  }
}

TEST(TokenizerJson, RefusesOverlongAddedTokens) {
  Json file = File();
  file["added_tokens"][2]["content"] = std::string(513, 'x');
  EXPECT_EQ(Load(file).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerJson, SurvivesEveryTruncation) {
  const std::string text = kFile;
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_EQ(ParseTokenizerJson(text.substr(0, size), {}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(TokenizerJson, SurvivesRandomDamage) {
  const std::string text = File().dump();
  std::mt19937 random(11);
  int loaded = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = text;
    for (int i = 0; i < 1 + round % 3; ++i) {
      const size_t at = random() % damaged.size();
      switch (random() % 3) {
        case 0:
          damaged[at] = static_cast<char>(random());
          break;
        case 1:
          damaged.erase(at, random() % 20);
          break;
        default:
          damaged.insert(at, damaged.substr(random() % damaged.size(), random() % 20));
      }
    }
    auto tokenizer = ParseTokenizerJson(damaged, {});
    if (!tokenizer.ok()) continue;
    ++loaded;
    auto ids = (*tokenizer)->Encode("hi <s>hi <tool> hi\n");
    if (ids.ok()) (*tokenizer)->Decode(*ids, false);
  }
  EXPECT_GT(loaded, 0);
}

}  // namespace
}  // namespace lorad
