// The decoder of a tokenizer: what text the tokens make, in a form that can be run token by token.
// Immutable and thread-safe; a DecodeStream belongs to one sequence of tokens.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/json.h"

namespace lorad {

class TokenDecoder {
 public:
  // Steps on one token's text.
  struct Replace {
    std::string pattern, content;
  };
  struct Metaspace {
    std::string replacement;
    bool strip_first;
  };
  struct StripLeft {
    std::string character;
    int count;
  };
  using TokenStep = std::variant<Replace, Metaspace, StripLeft>;

  // How tokens make bytes.
  enum class Bytes {
    kNone,      // they are text
    kFallback,  // "<0xE2>" is a byte
    kLevel,     // ByteLevel's letters are bytes
  };

  // Steps on the text as it flows. A pattern is one character, so that no delta can cut it.
  using TextStep = std::variant<Replace, StripLeft>;

  // The value of "decoder". Unimplemented for null, and where the order of steps leaves nothing to
  // stream.
  static absl::StatusOr<TokenDecoder> FromJson(const Json* value);

  // The bytes that a token in the middle of a text stands for. They need not be whole characters.
  std::string BytesOf(std::string_view token) const;

  // The one of Llama's SentencePiece models.
  static TokenDecoder ForSentencePiece(bool strip_first_space);

 private:
  friend class DecodeStream;
  std::string ApplyTokenSteps(std::string_view token, bool first) const;
  absl::Status AppendSteps(const JsonObject& object);
  absl::Status AppendReplace(const JsonObject& object);
  absl::Status AppendStrip(const JsonObject& object);

  std::vector<TokenStep> token_steps_;
  std::vector<TextStep> text_steps_;
  Bytes bytes_ = Bytes::kNone;
  bool fused_ = false;  // the steps to come see one text, not tokens
};

class DecodeStream {
 public:
  // REQUIRES: `decoder` outlives the stream.
  explicit DecodeStream(const TokenDecoder& decoder);

  // Appends the text that `token` (as the vocabulary spells it, well-formed UTF-8) completes.
  void Push(std::string_view token, std::string* out);
  // Appends what is left, U+FFFD for an incomplete character.
  void Flush(std::string* out);

 private:
  void EmitPending(bool at_end, std::string* out);
  void Emit(std::string_view text, std::string* out);

  const TokenDecoder& decoder_;
  bool first_ = true;
  std::string pending_;        // bytes that are no whole character yet
  std::vector<int> to_strip_;  // [text_steps_], characters that a StripLeft still takes
};

}  // namespace lorad
