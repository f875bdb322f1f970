#include "model/tokenizer/tokenizer.h"

#include <fmt/format.h>

#include "memory/base/status_macros.h"
#include "model/tokenizer/hugging_face.h"
#include "model/tokenizer/json.h"
#include "model/tokenizer/sentencepiece.h"
#include "model/tokenizer/tokenizer_config.h"

namespace lorad {
namespace {

using Parse = absl::StatusOr<std::unique_ptr<Tokenizer>> (*)(std::string_view,
                                                             const TokenizerConfig&);

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseFile(const std::filesystem::path& path,
                                                     const TokenizerConfig& config, Parse parse) {
  LORAD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  auto tokenizer = parse(bytes, config);
  if (tokenizer.ok()) return tokenizer;
  return absl::Status(
      tokenizer.status().code(),
      fmt::format("{}: {}", path.filename().string(), std::string(tokenizer.status().message())));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& model_dir) {
  LORAD_ASSIGN_OR_RETURN(const TokenizerConfig config, ReadTokenizerConfig(model_dir));
  std::error_code error;
  if (std::filesystem::exists(model_dir / "tokenizer.json", error)) {
    return ParseFile(model_dir / "tokenizer.json", config, &ParseTokenizerJson);
  }
  if (!std::filesystem::exists(model_dir / "tokenizer.model", error)) {
    return absl::NotFoundError(
        fmt::format("{}: neither tokenizer.json nor tokenizer.model", model_dir.string()));
  }
  if (config.added_tokens.empty() &&
      std::filesystem::exists(model_dir / "added_tokens.json", error)) {
    return absl::UnimplementedError(
        "added_tokens.json: not supported; tokenizer_config.json must have added_tokens_decoder");
  }
  return ParseFile(model_dir / "tokenizer.model", config, &ParseSentencePieceModel);
}

}  // namespace lorad
