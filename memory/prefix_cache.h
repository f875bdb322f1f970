// PrefixCache: pages of keys and values kept after the sequences that computed them, so that a
// later prompt that begins alike need not compute them again. A radix tree of pages for each scope
// (memory/prefix_tree.h). Tokens are compared, never only their hashes.
//
// Two sequences share a page only if their whole scope is equal: tenant, salt, adapter version and
// weight (old and new version of an adapter never mix: ids of versions are not used again). The
// caller empties `tenant` where the prefix is public.
//
// A node holds `page_tokens` tokens, or fewer if it is a *tail*: the unfinished last page of a
// sequence. Tails are leaves. No page of a node is ever written: whoever goes on from a tail (or
// from the middle of a whole page) takes a copy of the page (copy on write).
//
// Leases. A running sequence leases the deepest node of its path: that node and all above it stay.
// All others are unreferenced; the leaves among them stand in the eviction queue, so a branch goes
// from its end.
//
// Books. Every node holds one reference to its page, an unreferenced node the only one. For every
// node: leases below or at it = `users`, so the users of its children add up to no more than its
// own. A leaf without users, and no other node, is in the eviction queue. `unreferenced_pages_`
// counts the nodes without users; a scope without nodes is forgotten. Validate() proves all of it.
//
// Thread: the engine's only. It does NOT know page contents or what is worth keeping.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "memory/adapter_cache.h"
#include "memory/eviction_queue.h"
#include "memory/page_pool.h"

namespace lorad {

class PrefixTree;
struct PrefixNode;

struct PrefixScope {
  std::string tenant;
  std::string salt;
  AdapterVersionId adapter = 0;  // 0: the base model
  float weight = 1;              // the request's factor of the adapter

  friend bool operator==(const PrefixScope&, const PrefixScope&) = default;
};

class PrefixCache final : public EvictionQueue::Owner {
 public:
  // Keeps a path from eviction. Move-only, releases when destroyed. It goes together with the pages
  // that the sequence shares with the path: those are given up first, or right after.  REQUIRES:
  // the cache outlives it.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept;
    Lease& operator=(Lease&& other) noexcept;
    ~Lease() { Release(); }
    void Release();
    uint32_t pages() const;  // nodes on the path; the sequence's first pages() pages are theirs
    uint32_t sole_pages() const;  // of them, those that nobody else leases. O(sole pages)

   private:
    friend class PrefixCache;
    PrefixCache* cache_ = nullptr;
    PrefixNode* node_ = nullptr;  // null: empty
  };

  // How much of a prompt is here.
  struct Found {
    uint32_t pages = 0;   // whole pages from the first on, to be shared
    int copy_tokens = 0;  // and so many tokens more at the beginning of another page, to be copied
    uint32_t idle_pages = 0;  // of all these pages (the copied one too) those unreferenced now
    uint32_t sole_pages = 0;  // of the shared ones: with one lease
    int tokens = 0;           // in all
  };
  struct Hit {
    Lease lease;  // of the shared pages
    int tokens = 0;
    // The page to copy from, if copy_tokens > 0; it stays until copy_lease is released.
    int copy_tokens = 0;
    uint32_t copy_page = 0;
    Lease copy_lease;
  };
  struct Stats {
    uint64_t lookups = 0;         // Acquire calls
    uint64_t queried_tokens = 0;  // that they could have found
    uint64_t hit_tokens = 0;
    uint64_t evicted_pages = 0;  // to make room; not those of retired adapters
  };
  struct ScopePages {
    const PrefixScope* scope;
    uint32_t pages;         // nodes
    uint32_t unreferenced;  // of them
  };

  // `enabled` false: finds nothing, keeps nothing.  REQUIRES: page_tokens >= 1; pool and queue
  // outlive the cache.
  PrefixCache(PagePool* pool, EvictionQueue* queue, int page_tokens, bool enabled);
  ~PrefixCache() override;  // REQUIRES: every lease is released

  // Looks for at most `max_tokens` of `tokens`. Changes nothing.
  Found Find(const PrefixScope& scope, std::span<const int32_t> tokens, int max_tokens) const;
  // As Find, and shares what is there: appends the shared pages to `pages` (REQUIRES: empty),
  // counts a use of every node on the path and of the copied one.
  Hit Acquire(const PrefixScope& scope, std::span<const int32_t> tokens, int max_tokens,
              PageList* pages);
  // Keeps the pages of a sequence whose `tokens` are computed. Whole pages become nodes; with
  // `tail` the unfinished last one too, if nothing here begins with its tokens (then the caller
  // must not write it any more, and gives its pages up next). Where a node for the same tokens of a
  // whole page is there already, the sequence's page is exchanged for the node's; it is kept in
  // `exchanged` if that is not null. `lease` then holds the path of the whole pages.  REQUIRES:
  // pages cover tokens; what `lease` holds already is a beginning of tokens, in this scope.
  void Insert(const PrefixScope& scope, std::span<const int32_t> tokens, bool tail, PageList* pages,
              Lease* lease, PageList* exchanged = nullptr);
  // No sequence will ask for this adapter version again: its unreferenced pages go now, the others
  // when they are not leased any more. Best called when none runs on it either: what those insert
  // is kept if nothing of the scope is left, until it is evicted.
  void RetireAdapter(AdapterVersionId adapter);

  // What computing a prompt's token again takes; used for items scored from now on.
  void set_seconds_per_token(double seconds) { seconds_per_token_ = seconds; }
  double seconds_per_token() const { return seconds_per_token_; }

  // Pages that eviction could free, interior nodes included.
  uint32_t unreferenced_pages() const { return unreferenced_pages_; }
  uint32_t pages() const { return pages_; }  // nodes
  // Changes whenever Find could give something else: a node came or went, or got its first user or
  // lost its last.
  uint64_t epoch() const { return epoch_; }
  Stats stats() const { return stats_; }
  std::vector<ScopePages> scopes() const;
  std::vector<const PageList*> page_lists() const;  // for PagePool::Validate
  absl::Status Validate() const;

  void Evict(EvictionQueue::Item* item) override;  // the queue's to call

 private:
  // By adapter first, so that an adapter's scopes are neighbours; by the weight's bits, so that
  // even a weight that is no number has its place.
  struct ScopeBefore {
    bool operator()(const PrefixScope& a, const PrefixScope& b) const;
  };
  using Trees = std::map<PrefixScope, std::unique_ptr<PrefixTree>, ScopeBefore>;
  struct Counted;  // by Validate

  PrefixTree* FindTree(const PrefixScope& scope) const;  // null: nothing of this scope is here
  PrefixTree* FindOrAddTree(const PrefixScope& scope);
  void ForgetIfEmpty(PrefixTree* tree);

  void Use(PrefixNode* node, double uses = 1);
  // One lease more, or less, at or below this node: for a whole path, from every node of it.
  void AddUser(PrefixNode* node);
  void DropUser(PrefixNode* node);
  Lease LeasePath(PrefixNode* node);  // empty if it is a root
  void ReleasePath(PrefixNode* node);

  PrefixNode* Add(PrefixNode* parent, std::span<const int32_t> tokens, const PageList& pages,
                  uint32_t i);
  void Remove(PrefixNode* node);  // REQUIRES: a leaf without users, not in the queue
  // Removes the tails that `tokens`, about to become a child of `parent`, begin with.
  void RemoveSuperseded(PrefixNode* parent, std::span<const int32_t> tokens);
  void InsertTail(PrefixNode* parent, std::span<const int32_t> tokens, const PageList& pages);
  void RemoveUnreferenced(PrefixTree* tree);

  absl::Status ValidateTree(const PrefixScope& scope, const PrefixTree& tree,
                            Counted* counted) const;
  absl::Status ValidateNode(const PrefixNode& node) const;

  PagePool* const pool_;
  EvictionQueue* const queue_;
  const uint32_t page_tokens_;
  const bool enabled_;
  double seconds_per_token_ = 0;
  Trees trees_;
  uint32_t pages_ = 0;
  uint32_t unreferenced_pages_ = 0;
  uint32_t leases_ = 0;  // that are not empty
  uint64_t epoch_ = 0;
  Stats stats_;
};

}  // namespace lorad
