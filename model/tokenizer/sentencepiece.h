// Reads a SentencePiece tokenizer.model of the BPE kind (Llama 2, Mistral). Pure functions. The
// bytes are hostile input, which libsentencepiece is not made for; what BPE needs of the format is
// little.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/tokenizer_config.h"

namespace lorad {

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseSentencePieceModel(std::string_view bytes,
                                                                   const TokenizerConfig& config);

}  // namespace lorad
