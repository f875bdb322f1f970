// PrefixTree: the cached pages of one scope as a radix tree. The shape and the search; the books
// (users, leases, what may go) are PrefixCache's.
//
// A node is one page, its edge the tokens in it: `page_tokens` of them, or fewer if it is a *tail*.
// Tails are leaves. The children of a node stand in the order of their tokens, so those that begin
// with the same tokens are neighbours, and the child that has most in common with a text is next to
// the place where that text would stand.
//
// Trees are as deep as prompts are long: nothing here recurses.
//
// Thread: the engine's only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "memory/eviction_queue.h"
#include "memory/page_pool.h"

namespace lorad {

struct PrefixScope;
class PrefixTree;

struct PrefixTokensBefore {
  bool operator()(std::span<const int32_t> a, std::span<const int32_t> b) const;
};

struct PrefixNode : EvictionQueue::Item {
  PrefixTree* tree = nullptr;
  PrefixNode* parent = nullptr;  // null: the root, which stands for no page
  uint32_t depth = 0;            // pages from the first one to this
  uint32_t users = 0;            // leases at it or below
  std::vector<int32_t> tokens;
  PageList page;  // one page
  // The keys are the children's own tokens.
  std::map<std::span<const int32_t>, std::unique_ptr<PrefixNode>, PrefixTokensBefore> children;

  bool is_root() const { return parent == nullptr; }
  bool is_leaf() const { return children.empty(); }
};

class PrefixTree {
 public:
  struct Match {
    PrefixNode* node = nullptr;  // the deepest whole page; the root if there is none
    PrefixNode* copy =
        nullptr;  // whose first copy_tokens tokens come next; null if copy_tokens = 0
    uint32_t copy_tokens = 0;
  };

  // `scope` is borrowed, for whoever asks whose pages these are.
  PrefixTree(PagePool* pool, const PrefixScope* scope, uint32_t page_tokens);
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;
  ~PrefixTree();

  // The longest beginning of `tokens` that is here.
  Match Find(std::span<const int32_t> tokens);
  // The child with exactly these tokens, or null.
  static PrefixNode* Child(const PrefixNode& node, std::span<const int32_t> tokens);
  // A child that begins with all of `tokens`, or null.
  static PrefixNode* ChildBeginningWith(const PrefixNode& node, std::span<const int32_t> tokens);
  // The longest tail under `node` that is shorter than `tokens` and that they begin with, or null.
  static PrefixNode* TailWithin(const PrefixNode& node, std::span<const int32_t> tokens);

  // Adds a child that shares page `i` of `from`.  REQUIRES: `parent` is no tail and has no child
  // with these tokens.
  PrefixNode* Add(PrefixNode* parent, std::span<const int32_t> tokens, const PageList& from,
                  uint32_t i);
  void Remove(PrefixNode* node);  // REQUIRES: a leaf, not the root
  // All nodes but the root, each after its parent.
  std::vector<PrefixNode*> Nodes() const;

  const PrefixScope& scope() const { return *scope_; }
  PrefixNode* root() { return &root_; }
  const PrefixNode* root() const { return &root_; }

  // PrefixCache's books.
  uint32_t pages = 0;         // nodes
  uint32_t unreferenced = 0;  // of them, without users
  bool retired = false;       // nothing is added any more

 private:
  PagePool* const pool_;
  const PrefixScope* const scope_;
  const uint32_t page_tokens_;
  PrefixNode root_;
};

}  // namespace lorad
