// The added tokens of a tokenizer: pieces of text that are tokens as they stand, cut out of the
// input before anything else looks at it. Immutable once made and thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "model/tokenizer/bpe.h"
#include "model/tokenizer/tokenizer.h"

namespace lorad {

struct AddedToken {
  TokenId id = kNoToken;
  std::string content;
  bool special = false;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // looked for in the normalized text
};

// A part of a text: the token `id`, or plain text if that is kNoToken.
struct TextSegment {
  std::string_view text;
  TokenId id;
};

// Finds a set of added tokens, the leftmost first and of those the longest.
class AddedTokenMatcher {
 public:
  // Looks for `pattern` (the content, normalized if need be) to find `token`. Empty patterns are
  // left out. REQUIRES: called before Split; pattern.size() <= kMaxAddedTokenBytes.
  void Add(const AddedToken& token, std::string_view pattern);

  // Appends the segments of `text`, none of them empty text. `parse_special` false: special tokens
  // stay text. REQUIRES: `text` is well-formed UTF-8.
  void Split(std::string_view text, bool parse_special, std::vector<TextSegment>* segments) const;

 private:
  struct Target {
    TokenId id;
    bool special, single_word, lstrip, rstrip;
  };
  struct Match {
    size_t end;
    const Target* target;
  };
  static constexpr uint32_t kRoot = 0;

  Match Longest(std::string_view text, size_t begin) const;

  // A trie: from a node by a byte to the next node; some nodes end a pattern.
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  std::vector<int> ends_{-1};  // [nodes], index into targets_
  std::vector<Target> targets_;
  std::array<bool, 256> begins_{};  // some pattern begins with this byte
};

inline constexpr size_t kMaxAddedTokenBytes = 512;

}  // namespace lorad
