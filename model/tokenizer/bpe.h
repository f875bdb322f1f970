// The BPE model of a tokenizer.json or tokenizer.model: from one word to token ids. Immutable once
// made and thread-safe.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/merges.h"
#include "model/tokenizer/tokenizer.h"

namespace lorad {

inline constexpr TokenId kNoToken = -1;
inline constexpr TokenId kMaxTokenId = (1 << 22) - 1;

// The byte that "<0xE2>" stands for.
std::optional<unsigned char> ByteOfToken(std::string_view token);

struct BpeMerge {
  TokenId left, right, merged;
  uint32_t rank;
};

struct BpeSpec {
  std::vector<std::pair<std::string, TokenId>>
      vocab;                     // distinct tokens and ids, ids within kMaxTokenId
  std::vector<BpeMerge> merges;  // merged spells left and right in a row, none of them empty
  std::vector<bool> special;     // [vocab's greatest id + 1]
  TokenId unk_id = kNoToken;
  bool fuse_unk = false;       // a row of unknown characters is one token
  bool byte_fallback = false;  // an unknown character becomes its bytes, where all have a token
  bool ignore_merges = false;  // a word that is a token is not taken apart
  bool byte_level = false;     // the vocabulary spells bytes as ByteLevel's letters
};

class Bpe {
 public:
  // Memory that encoding works in, kept from word to word.
  struct Scratch {
    std::vector<Symbol> symbols;
    MergeTable::Scratch merges;
  };

  // REQUIRES: `spec` is as its comments say.
  explicit Bpe(const BpeSpec& spec);

  // Appends the tokens of `word`. `allow_special` false: no word or merge yields a special token.
  // REQUIRES: `word` is well-formed UTF-8 of less than 2^31 bytes.
  void Encode(std::string_view word, bool allow_special, Scratch* scratch,
              std::vector<TokenId>* out) const;

 private:
  struct Entry {
    TokenId id;
    bool whole;  // its text encodes to it alone
  };
  // What a byte (byte level) or character begins as.
  struct Initial {
    TokenId id = kNoToken;
    std::vector<TokenId> bytes;  // fallback where there is no id
  };

  const Entry* Find(std::string_view word) const;
  bool IsSpecial(TokenId id) const {
    return static_cast<size_t>(id) < special_.size() && special_[id];
  }
  void AddMerges(const BpeSpec& spec);
  Initial MakeInitial(std::string_view character) const;
  void AppendSymbols(std::string_view word, std::vector<Symbol>* symbols) const;
  void MergeRuns(std::string_view word, bool allow_special, Scratch* scratch,
                 std::vector<TokenId>* out) const;
  bool AppendWhole(std::string_view word, bool allow_special, std::vector<TokenId>* out) const;
  void MarkWhole();

  absl::flat_hash_map<std::string, Entry> vocab_;  // byte level: by the bytes themselves
  std::array<TokenId, 256> byte_tokens_;           // "<0x00>"...
  std::array<Initial, 256> initials_;  // of a byte (byte level) or of an ASCII character
  std::vector<bool> special_;
  MergeTable merges_;
  size_t max_token_bytes_ = 0;
  TokenId unk_id_;
  bool fuse_unk_, byte_fallback_, ignore_merges_, byte_level_;
  bool has_seams_ = false;  // the merge table knows where no merge reaches across
};

}  // namespace lorad
