#include "model/tokenizer/tokenizer_config.h"

#include <gtest/gtest.h>

namespace lorad {
namespace {

TEST(TokenizerConfigTest, ReadsTokensAsStringsOrObjects) {
  auto config = ParseTokenizerConfig(
      R"({"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"}, "add_bos_token": false,
          "add_eos_token": true, "legacy": false, "model_max_length": 4096, "chat_template": "{{ x }}",
          "added_tokens_decoder": {"7": {"content": "<x>", "special": true, "lstrip": true}}})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->bos_token, "<s>");
  EXPECT_EQ(config->eos_token, "</s>");
  EXPECT_FALSE(config->add_bos_token);
  EXPECT_TRUE(config->add_eos_token);
  EXPECT_FALSE(config->legacy);
  ASSERT_EQ(config->added_tokens.size(), 1u);
  EXPECT_EQ(config->added_tokens[0].id, 7);
  EXPECT_TRUE(config->added_tokens[0].special);
  EXPECT_TRUE(config->added_tokens[0].lstrip);
  EXPECT_FALSE(config->added_tokens[0].normalized);
}

TEST(TokenizerConfigTest, HasDefaults) {
  auto config = ParseTokenizerConfig(R"({"bos_token": null})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->bos_token.empty());
  EXPECT_TRUE(config->add_bos_token);
  EXPECT_TRUE(config->legacy);
}

TEST(TokenizerConfigTest, RefusesWrongTypes) {
  for (const char* text :
       {"[]", "{", R"({"bos_token": 1})", R"({"eos_token": {}})", R"({"legacy": "no"})",
        R"({"added_tokens_decoder": []})", R"({"added_tokens_decoder": {"x": {"content": "a"}}})",
        R"({"added_tokens_decoder": {"99999999999": {"content": "a"}}})",
        R"({"added_tokens_decoder": {"1": {"special": true}}})"}) {
    EXPECT_EQ(ParseTokenizerConfig(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

}  // namespace
}  // namespace lorad
