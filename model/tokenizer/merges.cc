#include "model/tokenizer/merges.h"

#include <algorithm>
#include <functional>

namespace lorad {
namespace {

// Up to here it is cheaper to look at all pairs again for each merge than to keep a heap.
constexpr size_t kShortWord = 32;

}  // namespace

void MergeTable::Add(TokenId left, TokenId right, uint32_t rank, TokenId merged,
                     bool merged_is_special) {
  results_[Key(left, right)] = {rank, merged, merged_is_special};
  makes_special_ |= merged_is_special;
}

void MergeTable::Rate(Symbol* left, const Symbol& right, bool allow_special) const {
  const auto found = results_.find(Key(left->id, right.id));
  if (found == results_.end() || (found->second.special && !allow_special)) {
    left->rank = kNoMerge;
  } else {
    left->rank = found->second.rank;
    left->merged = found->second.merged;
  }
}

void MergeTable::Merge(std::span<Symbol> symbols, bool allow_special, Scratch* scratch,
                       std::vector<TokenId>* out) const {
  if (symbols.size() <= kShortWord) {
    MergeShort(symbols, allow_special, out);
  } else {
    MergeLong(symbols, allow_special, scratch, out);
  }
}

void MergeTable::MergeShort(std::span<Symbol> symbols, bool allow_special,
                            std::vector<TokenId>* out) const {
  const auto rate = [&](size_t i) {
    if (i + 1 < symbols.size()) {
      Rate(&symbols[i], symbols[i + 1], allow_special);
    } else {
      symbols[i].rank = kNoMerge;
    }
  };
  for (size_t i = 0; i < symbols.size(); ++i) rate(i);
  while (symbols.size() > 1) {
    const auto best = std::min_element(  // the leftmost of the lowest
        symbols.begin(), symbols.end(),
        [](const Symbol& a, const Symbol& b) { return a.rank < b.rank; });
    if (best->rank == kNoMerge) break;
    best->id = best->merged;
    std::move(best + 2, symbols.end(), best + 1);
    symbols = symbols.first(symbols.size() - 1);
    const size_t at = best - symbols.begin();
    rate(at);
    if (at > 0) rate(at - 1);
  }
  for (const Symbol& symbol : symbols) out->push_back(symbol.id);
}

void MergeTable::MergeLong(std::span<Symbol> symbols, bool allow_special, Scratch* heap,
                           std::vector<TokenId>* out) const {
  const auto rate = [&](int32_t at) {
    Symbol& left = symbols[at];
    left.rank = kNoMerge;
    if (left.next >= 0) Rate(&left, symbols[left.next], allow_special);
    if (left.rank == kNoMerge) return false;
    heap->push_back(uint64_t{left.rank} << 32 | static_cast<uint32_t>(at));
    return true;
  };
  const auto push = [&](int32_t at) {
    if (rate(at)) std::push_heap(heap->begin(), heap->end(), std::greater<>());
  };
  heap->clear();
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i].prev = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : -1;
    rate(i);
  }
  std::make_heap(heap->begin(), heap->end(), std::greater<>());
  while (!heap->empty()) {
    const uint64_t top = heap->front();
    std::pop_heap(heap->begin(), heap->end(), std::greater<>());
    heap->pop_back();
    const auto at = static_cast<int32_t>(top & 0xFFFFFFFF);
    Symbol& left = symbols[at];
    if (left.rank != top >> 32) continue;  // one of the two has been merged otherwise since
    Symbol& right = symbols[left.next];
    left.id = left.merged;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].prev = at;
    right.rank = kNoMerge;
    push(at);
    if (left.prev >= 0) push(left.prev);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].next) out->push_back(symbols[i].id);
}

}  // namespace lorad
