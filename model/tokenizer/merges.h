// The merge table of a BPE model: which neighbours become one symbol, and which do so first.
// Immutable once built; thread-safe, with a scratch for each thread.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "model/tokenizer/tokenizer.h"

namespace lorad {

inline constexpr uint32_t kNoMerge = std::numeric_limits<uint32_t>::max();

struct Symbol {
  TokenId id;
  uint32_t offset;  // where its text begins in the word
  // While merging: its neighbours, and what it becomes together with the next one (kNoMerge:
  // nothing).
  int32_t prev = -1, next = -1;
  uint32_t rank = 0;
  TokenId merged = -1;
};

class MergeTable {
 public:
  // Memory that merging works in, kept from word to word: a heap of rank and place, the one above
  // the other.
  using Scratch = std::vector<uint64_t>;

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
  // Sets what `left` becomes with `right`.
  void Rate(Symbol* left, const Symbol& right, bool allow_special) const;
  void MergeShort(std::span<Symbol> symbols, bool allow_special, std::vector<TokenId>* out) const;
  void MergeLong(std::span<Symbol> symbols, bool allow_special, Scratch* heap,
                 std::vector<TokenId>* out) const;

  absl::flat_hash_map<uint64_t, Result> results_;
  absl::flat_hash_set<uint64_t> seams_;
  bool makes_special_ = false;
};

}  // namespace lorad
