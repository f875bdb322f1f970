#include "model/tokenizer/merges.h"

#include <algorithm>
#include <limits>

namespace lorad {
namespace {

// Up to here it is cheaper to look at all pairs again for each merge than to keep a heap.
constexpr size_t kShortWord = 32;
constexpr uint32_t kNoMerge = std::numeric_limits<uint32_t>::max();

// A heap's top is its greatest: the lowest rank, then the leftmost.
bool MergesLater(const MergeTable::Scratch::Candidate& a, const MergeTable::Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
}

}  // namespace

void MergeTable::Add(TokenId left, TokenId right, uint32_t rank, TokenId merged,
                     bool merged_is_special) {
  results_[Key(left, right)] = {rank, merged, merged_is_special};
  makes_special_ |= merged_is_special;
}

const MergeTable::Result* MergeTable::Find(TokenId left, TokenId right, bool allow_special) const {
  const auto found = results_.find(Key(left, right));
  if (found == results_.end() || (found->second.special && !allow_special)) return nullptr;
  return &found->second;
}

void MergeTable::Merge(std::span<Symbol> symbols, bool allow_special, Scratch* scratch,
                       std::vector<TokenId>* out) const {
  if (symbols.size() <= kShortWord) {
    MergeShort(symbols, allow_special, scratch, out);
  } else {
    MergeLong(symbols, allow_special, scratch, out);
  }
}

void MergeTable::MergeShort(std::span<Symbol> symbols, bool allow_special, Scratch* scratch,
                            std::vector<TokenId>* out) const {
  size_t count = symbols.size();
  std::vector<uint32_t>& ranks = scratch->ranks;  // [count], of each symbol with the one after it
  const auto rank_at = [&](size_t i) {
    if (i + 1 >= count) return kNoMerge;
    const Result* result = Find(symbols[i].id, symbols[i + 1].id, allow_special);
    return result == nullptr ? kNoMerge : result->rank;
  };
  ranks.resize(count);
  for (size_t i = 0; i < count; ++i) ranks[i] = rank_at(i);
  while (count > 1) {
    const auto best = std::min_element(ranks.begin(), ranks.begin() + count);  // the leftmost
    if (*best == kNoMerge) break;
    const size_t at = best - ranks.begin();
    symbols[at].id = Find(symbols[at].id, symbols[at + 1].id, allow_special)->merged;
    std::move(symbols.begin() + at + 2, symbols.begin() + count, symbols.begin() + at + 1);
    std::move(ranks.begin() + at + 2, ranks.begin() + count, ranks.begin() + at + 1);
    --count;
    ranks[at] = rank_at(at);
    if (at > 0) ranks[at - 1] = rank_at(at - 1);
  }
  for (size_t i = 0; i < count; ++i) out->push_back(symbols[i].id);
}

void MergeTable::MergeLong(std::span<Symbol> symbols, bool allow_special, Scratch* scratch,
                           std::vector<TokenId>* out) const {
  constexpr TokenId kGone = -1;
  std::vector<Scratch::Candidate>& heap = scratch->heap;
  heap.clear();
  const auto find = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return false;
    const Result* result = Find(symbols[left].id, symbols[right].id, allow_special);
    if (result == nullptr) return false;
    heap.push_back({result->rank, static_cast<uint32_t>(left), symbols[left].id, symbols[right].id,
                    result->merged});
    return true;
  };
  const auto push = [&](int32_t left, int32_t right) {
    if (find(left, right)) std::push_heap(heap.begin(), heap.end(), MergesLater);
  };
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i].prev = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : -1;
    find(i, symbols[i].next);
  }
  std::make_heap(heap.begin(), heap.end(), MergesLater);
  while (!heap.empty()) {
    const Scratch::Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), MergesLater);
    heap.pop_back();
    Symbol& left = symbols[top.at];
    if (left.id != top.left || left.next < 0 || symbols[left.next].id != top.right) {
      continue;  // one of them has been merged otherwise since
    }
    Symbol& right = symbols[left.next];
    left.id = top.merged;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].prev = static_cast<int32_t>(top.at);
    right.id = kGone;
    push(left.prev, static_cast<int32_t>(top.at));
    push(static_cast<int32_t>(top.at), left.next);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) out->push_back(symbols[i].id);
}

}  // namespace lorad
