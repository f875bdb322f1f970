// PrefixCache: what it reports, and the proof of its books.
#include <fmt/format.h>

#include <algorithm>

#include "memory/prefix_cache.h"
#include "memory/prefix_tree.h"

namespace lorad {

struct PrefixCache::Counted {
  uint32_t pages = 0;
  uint32_t unreferenced = 0;
  uint32_t leases = 0;
};

std::vector<PrefixCache::ScopePages> PrefixCache::scopes() const {
  std::vector<ScopePages> scopes;
  scopes.reserve(trees_.size());
  for (const auto& [scope, tree] : trees_) {
    scopes.push_back({.scope = &scope, .pages = tree->pages, .unreferenced = tree->unreferenced});
  }
  return scopes;
}

std::vector<const PageList*> PrefixCache::page_lists() const {
  std::vector<const PageList*> lists;
  lists.reserve(pages_);
  for (const auto& [scope, tree] : trees_) {
    for (const PrefixNode* node : tree->Nodes()) lists.push_back(&node->page);
  }
  return lists;
}

absl::Status PrefixCache::ValidateNode(const PrefixNode& node) const {
  const auto wrong = [&node](const char* what) {
    return absl::InternalError(
        fmt::format("prefix cache: a node of adapter {} at depth {} with {} users {}",
                    node.tree->scope().adapter, node.depth, node.users, what));
  };
  const PrefixNode& parent = *node.parent;
  if (PrefixTree::Child(parent, node.tokens) != &node || node.depth != parent.depth + 1) {
    return wrong("is not where its tokens are");
  }
  const bool whole = node.tokens.size() == page_tokens_;
  if (node.tokens.empty() || node.tokens.size() > page_tokens_ || (!whole && !node.is_leaf())) {
    return wrong("is neither a whole page nor a tail");
  }
  if (node.owner != this || node.pages != 1 || node.page.size() != 1 ||
      node.page.use() != PageUse::kKv) {
    return wrong("does not hold one page");
  }
  const bool may_go = node.users == 0 && node.is_leaf();
  if (node.queued != may_go) {
    return wrong(node.queued ? "is queued but may not go" : "may go but is not queued");
  }
  if (node.users == 0 && pool_->references(node.page.ids()[0]) != 1) {
    return wrong("is unreferenced but somebody holds its page");
  }
  if (node.users == 0 && node.tree->retired) return wrong("outlives its adapter");
  uint64_t users_below = 0;
  for (const auto& [tokens, child] : node.children) users_below += child->users;
  if (users_below > node.users) return wrong("has children with more users");
  return absl::OkStatus();
}

absl::Status PrefixCache::ValidateTree(const PrefixScope& scope, const PrefixTree& tree,
                                       Counted* counted) const {
  Counted here;
  for (const PrefixNode* node : tree.Nodes()) {
    if (node->tree != &tree) return absl::InternalError("prefix cache: a node of another scope");
    if (absl::Status status = ValidateNode(*node); !status.ok()) return status;
    ++here.pages;
    here.unreferenced += node->users == 0 ? 1 : 0;
    here.leases += node->parent->is_root() ? node->users : 0;
  }
  if (&tree.scope() != &scope || here.pages == 0 || here.pages != tree.pages ||
      here.unreferenced != tree.unreferenced) {
    return absl::InternalError(
        fmt::format("prefix cache: a scope of adapter {} has {} nodes, {} unreferenced; its books "
                    "say {}, {}",
                    scope.adapter, here.pages, here.unreferenced, tree.pages, tree.unreferenced));
  }
  counted->pages += here.pages;
  counted->unreferenced += here.unreferenced;
  counted->leases += here.leases;
  return absl::OkStatus();
}

absl::Status PrefixCache::Validate() const {
  Counted counted;
  for (const auto& [scope, tree] : trees_) {
    if (absl::Status status = ValidateTree(scope, *tree, &counted); !status.ok()) return status;
  }
  if (counted.pages != pages_ || counted.unreferenced != unreferenced_pages_ ||
      counted.leases != leases_) {
    return absl::InternalError(fmt::format(
        "prefix cache: counted {} nodes, {} unreferenced, {} leases; the books say {}, "
        "{}, {}",
        counted.pages, counted.unreferenced, counted.leases, pages_, unreferenced_pages_, leases_));
  }
  return absl::OkStatus();
}

}  // namespace lorad
