// What lorad reads of tokenizer_config.json. Pure functions.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/json.h"

namespace lorad {

struct TokenizerConfig {
  std::string bos_token, eos_token;  // empty: none
  // Of use with a tokenizer.model only; a tokenizer.json says all this itself.
  bool add_bos_token = true;
  bool add_eos_token = false;
  bool legacy =
      true;  // each part between special tokens gets a dummy prefix, not the first one only
  std::vector<AddedToken> added_tokens;
};

// The defaults if the directory has no such file.
absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::filesystem::path& model_dir);
absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view text);

// An entry of "added_tokens" or "added_tokens_decoder", without its id.
absl::StatusOr<AddedToken> ParseAddedToken(const JsonObject& object);

}  // namespace lorad
