// The one Tokenizer that all supported files make: added tokens are cut out, what is between is
// normalized, split into words and merged. Immutable and thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/bpe.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/token_decoder.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/tokenizer_config.h"

namespace lorad {

struct PipelineSpec {
  BpeSpec bpe;                           // `special` is set from added_tokens
  std::vector<AddedToken> added_tokens;  // some of them in bpe.vocab too, others beyond
  bool normalize_added = true;  // "normalized" ones are looked for as the normalizer makes them
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  TokenDecoder decoder;
  std::vector<TokenId> prefix, suffix;  // around a text with add_special_tokens
  std::string bos_token, eos_token;     // empty: none
};

// InvalidArgument if tokens or ids collide or are out of range.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakePipelineTokenizer(PipelineSpec spec);

}  // namespace lorad
