// The merge table of a BPE model: which neighbours become one symbol, and which do so first.
// Immutable once built; thread-safe, with a scratch for each thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "model/tokenizer/tokenizer.h"

namespace lorad {

struct Symbol {
  TokenId id;
  uint32_t offset;    // where its text begins in the word
  int32_t prev = -1;  // only used while merging
  int32_t next = -1;
};

class MergeTable {
 public:
  // Memory that merging works in, kept from word to word.
  struct Scratch {
    struct Candidate {
      uint32_t rank;
      uint32_t at;
      TokenId left, right, merged;
    };
    std::vector<Candidate> heap;
    std::vector<uint32_t> ranks;
  };

  // Lower ranks merge first, equal ones from left to right. A pair that is added again takes the
  // later rank.
  void Add(TokenId left, TokenId right, uint32_t rank, TokenId merged, bool merged_is_special);

  // The pair of symbols that a merge joins at its seam. Once they are told for every merge, no
  // merge reaches across two neighbours of another kind.
  void AddSeam(TokenId left_end, TokenId right_begin) { seams_.insert(Key(left_end, right_begin)); }
  bool MayJoin(TokenId left, TokenId right) const { return seams_.contains(Key(left, right)); }

  // True if a merge makes a special token.
  bool makes_special() const { return makes_special_; }

  // Merges `symbols` as far as it goes and appends the ids that are left. `symbols` is used up. O(n
  // log n).
  void Merge(std::span<Symbol> symbols, bool allow_special, Scratch* scratch,
             std::vector<TokenId>* out) const;

 private:
  struct Result {
    uint32_t rank;
    TokenId merged;
    bool special;
  };
  static uint64_t Key(TokenId left, TokenId right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  const Result* Find(TokenId left, TokenId right, bool allow_special) const;
  void MergeShort(std::span<Symbol> symbols, bool allow_special, Scratch* scratch,
                  std::vector<TokenId>* out) const;
  void MergeLong(std::span<Symbol> symbols, bool allow_special, Scratch* scratch,
                 std::vector<TokenId>* out) const;

  absl::flat_hash_map<uint64_t, Result> results_;
  absl::flat_hash_set<uint64_t> seams_;
  bool makes_special_ = false;
};

}  // namespace lorad
