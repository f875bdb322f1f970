// Text to token ids and back, as Hugging Face's tokenizers do it. A Tokenizer is immutable once
// loaded and any thread may use it; an IncrementalDetokenizer belongs to one stream and one thread.
// Model files are checked as hostile input: what they hold and this code does not know is refused
// by name, never guessed. No chat templates, no truncation, no padding, and none of transformers'
// clean_up_tokenization_spaces.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace lorad {

using TokenId = int32_t;

struct EncodeOptions {
  bool add_special_tokens = true;  // what the model wants around a text, BOS mostly
  // False: text that spells a special token is encoded as plain text, so that it cannot forge a
  // turn of a conversation. No special token comes out then but those of add_special_tokens and the
  // one for unknown characters.
  bool parse_special = true;
};

// Turns the tokens of one stream into text as they come and never emits part of a character. All
// deltas and the flush together are what Decode returns for all the tokens.
class IncrementalDetokenizer {
 public:
  virtual ~IncrementalDetokenizer() = default;

  // The text that `token` completes: well-formed UTF-8, empty if a character is still incomplete.
  // REQUIRES: Flush has not been called.
  virtual std::string Push(TokenId token) = 0;

  // What is still held back, with U+FFFD for bytes that are no character. Call once, after the last
  // token.
  virtual std::string Flush() = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads tokenizer.json, or tokenizer.model if there is none, and tokenizer_config.json in a
  // Hugging Face model directory. NotFound: there is neither; InvalidArgument: a file is broken;
  // Unimplemented: it asks for what is not supported.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& model_dir);

  // InvalidArgument if `text` is not UTF-8 or larger than 16 MiB. ResourceExhausted if the model's
  // patterns take too long on it.
  virtual absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text,
                                                      const EncodeOptions& options = {}) const = 0;

  // Well-formed UTF-8. Ids that name no token are left out. Of an ill-formed run of byte tokens the
  // whole characters are kept and each other byte becomes U+FFFD; Hugging Face replaces the whole
  // run, which no stream could follow.
  virtual std::string Decode(std::span<const TokenId> tokens, bool skip_special_tokens) const = 0;

  // REQUIRES: the tokenizer outlives what is returned.
  virtual std::unique_ptr<IncrementalDetokenizer> NewDetokenizer(
      bool skip_special_tokens) const = 0;

  virtual int vocab_size() const = 0;  // greatest id + 1; ids may have holes
  virtual std::optional<TokenId> bos_id() const = 0;
  virtual std::optional<TokenId> eos_id() const = 0;
  virtual bool is_special(TokenId token) const = 0;

  // The token as the file spells it ("Ġthe", "▁the", "<0x0A>"); empty if there is no such token.
  virtual const std::string& IdToToken(TokenId token) const = 0;
  // The bytes that the token stands for inside a text (" the", "\xE2"); not always whole
  // characters. Empty if there is no such token.
  virtual std::string TokenBytes(TokenId token) const = 0;
  virtual std::optional<TokenId> TokenToId(std::string_view token) const = 0;
};

}  // namespace lorad
