#include "model/tokenizer/tokenizer_config.h"

#include <fmt/format.h>

#include <charconv>

#include "memory/base/status_macros.h"

namespace lorad {
namespace {

// A token is written as a string or as an object with its content; null is none.
absl::StatusOr<std::string> TokenText(const JsonObject& object, std::string_view key) {
  const Json* value = object.Find(key);
  if (value == nullptr || !value->is_object()) return object.String(key, "");
  LORAD_ASSIGN_OR_RETURN(const JsonObject token, object.Object(key));
  return token.String("content");
}

absl::StatusOr<std::vector<AddedToken>> AddedTokensDecoder(const JsonObject& config) {
  constexpr std::string_view kKey = "added_tokens_decoder";
  std::vector<AddedToken> tokens;
  const Json* entries = config.Find(kKey);
  if (entries == nullptr) return tokens;
  if (!entries->is_object()) return config.Invalid(kKey, "must be an object");
  for (const auto& [key, value] : entries->items()) {
    LORAD_ASSIGN_OR_RETURN(const JsonObject object,
                           JsonObject::Make(value, fmt::format("{}.{}", kKey, key)));
    LORAD_ASSIGN_OR_RETURN(AddedToken token, ParseAddedToken(object));
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size()) {
      return config.Invalid(kKey, fmt::format("'{}' is no token id", key));
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

absl::StatusOr<AddedToken> ParseAddedToken(const JsonObject& object) {
  LORAD_RETURN_IF_ERROR(object.RefuseOthers(
      {"id", "content", "special", "single_word", "lstrip", "rstrip", "normalized", "__type"}));
  AddedToken token;
  LORAD_ASSIGN_OR_RETURN(token.content, object.String("content"));
  LORAD_ASSIGN_OR_RETURN(token.special, object.Bool("special", false));
  LORAD_ASSIGN_OR_RETURN(token.single_word, object.Bool("single_word", false));
  LORAD_ASSIGN_OR_RETURN(token.lstrip, object.Bool("lstrip", false));
  LORAD_ASSIGN_OR_RETURN(token.rstrip, object.Bool("rstrip", false));
  LORAD_ASSIGN_OR_RETURN(token.normalized, object.Bool("normalized", !token.special));
  return token;
}

absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view text) {
  LORAD_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  LORAD_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Make(json, "tokenizer_config"));
  TokenizerConfig config;
  LORAD_ASSIGN_OR_RETURN(config.bos_token, TokenText(object, "bos_token"));
  LORAD_ASSIGN_OR_RETURN(config.eos_token, TokenText(object, "eos_token"));
  LORAD_ASSIGN_OR_RETURN(config.add_bos_token, object.Bool("add_bos_token", true));
  LORAD_ASSIGN_OR_RETURN(config.add_eos_token, object.Bool("add_eos_token", false));
  LORAD_ASSIGN_OR_RETURN(config.legacy, object.Bool("legacy", true));
  LORAD_ASSIGN_OR_RETURN(config.added_tokens, AddedTokensDecoder(object));
  return config;
}

absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::filesystem::path& model_dir) {
  absl::StatusOr<std::string> text = ReadFile(model_dir / "tokenizer_config.json");
  if (absl::IsNotFound(text.status())) return TokenizerConfig{};
  LORAD_RETURN_IF_ERROR(text.status());
  return ParseTokenizerConfig(*text);
}

}  // namespace lorad
