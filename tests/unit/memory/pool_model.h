// PoolModel: what a UnifiedPool must be like, told in a way that is too simple to be wrong. Tokens
// are letters. A node is the text from the beginning to its end, a lease is the text of its node,
// and everything else is counted from those whenever it is asked for. What a page holds is written
// down when it is written and read where it is shared, so a wrong, freed or overwritten page shows.
//
// It does not know the order of eviction: it is told what is left, and says whether that may be.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "memory/unified_pool.h"

namespace lorad {

class PoolModel {
 public:
  struct Adapter {
    uint32_t pages = 0;
    bool loading = true, retired = false, pinned = false;
    int leases = 0;
    bool idle() const { return !loading && leases == 0; }
    bool evictable() const { return idle() && !pinned; }
  };
  using Lease = std::pair<int, std::string>;  // scope and text

  PoolModel(const UnifiedPool* pool, int page_tokens)
      : pool_(*pool),
        page_tokens_(static_cast<size_t>(page_tokens)),
        held_(pool->pages().total_pages()) {}

  // Contents. A scope is a number; an adapter's page is written as scope -id and its index.
  void Write(uint32_t page, int scope, std::string text);
  void Append(uint32_t page, char token);
  // The page of `text`'s last token holds just this text, or at least this.
  void ExpectHolds(uint32_t page, int scope, std::string_view text) const;
  void ExpectBeginsWith(uint32_t page, int scope, std::string_view text) const;
  // Copies what leads to the first `size` tokens of a text and those.
  void Copy(uint32_t from, uint32_t to, size_t size);

  // Prefixes.
  size_t Findable(int scope, std::string_view text) const;  // tokens
  uint32_t IdleOnPath(int scope, std::string_view text) const;
  bool IsIdle(int scope, std::string_view node) const { return Users(scope, node) == 0; }
  std::string NodeWith(int scope, uint32_t page) const;  // REQUIRES: a node's page
  std::vector<std::string> NodesOf(int scope) const;
  void AddLease(Lease lease) { leases_.insert(std::move(lease)); }
  void DropLease(const Lease& lease);
  // As PrefixCache::Insert; `pages` is what the sequence holds after it, `before` what it held.
  // False: the scope is retired, nothing is kept.
  bool Insert(int scope, std::string_view text, bool tail, std::span<const uint32_t> before,
              std::span<const uint32_t> pages);
  void RetireScope(int scope);

  // Adapters.
  std::map<AdapterVersionId, Adapter>& adapters() { return adapters_; }

  // After something that may evict: takes over what has gone, if it might go. Returns its pages.
  uint32_t TakeEvicted(const std::vector<AdapterVersionId>& adapters_left);
  // Every count of the pool against the model's.
  void Check(std::span<const PageList* const> sequences) const;
  uint32_t Available() const;
  uint32_t nodes() const;

 private:
  struct Held {
    int scope = 0;
    std::string text;
  };
  using Nodes = std::map<std::string, uint32_t, std::less<>>;  // text -> page

  int Users(int scope, std::string_view text) const;
  uint32_t IdleNodes() const;
  void DropIdleOfRetired(int scope);
  void RemoveSuperseded(int scope, std::string_view text);
  size_t PageStart(std::string_view text) const {  // of its last token
    return (text.size() - 1) / page_tokens_ * page_tokens_;
  }

  const UnifiedPool& pool_;
  const size_t page_tokens_;
  std::vector<Held> held_;      // [pages]
  std::map<int, Nodes> nodes_;  // by scope; none is empty
  std::set<int> retired_;       // scopes
  std::multiset<Lease> leases_;
  std::map<AdapterVersionId, Adapter> adapters_;
  uint64_t evicted_nodes_ = 0;
};

}  // namespace lorad
