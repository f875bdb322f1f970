#include "memory/prefix_cache.h"

#include <algorithm>
#include <bit>
#include <tuple>
#include <utility>

#include "memory/base/check.h"
#include "memory/prefix_tree.h"

namespace lorad {
namespace {

// The tokens that a look-up may find.
std::span<const int32_t> Within(std::span<const int32_t> tokens, int max_tokens) {
  return tokens.first(std::min(tokens.size(), static_cast<size_t>(std::max(max_tokens, 0))));
}

}  // namespace

bool PrefixCache::ScopeBefore::operator()(const PrefixScope& a, const PrefixScope& b) const {
  const auto key = [](const PrefixScope& s) {
    return std::tuple<AdapterVersionId, const std::string&, const std::string&, uint32_t>(
        s.adapter, s.tenant, s.salt, std::bit_cast<uint32_t>(s.weight));
  };
  return key(a) < key(b);
}

PrefixCache::Lease::Lease(Lease&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)), node_(std::exchange(other.node_, nullptr)) {}

PrefixCache::Lease& PrefixCache::Lease::operator=(Lease&& other) noexcept {
  if (this == &other) return *this;
  Release();
  cache_ = std::exchange(other.cache_, nullptr);
  node_ = std::exchange(other.node_, nullptr);
  return *this;
}

void PrefixCache::Lease::Release() {
  if (node_ != nullptr) cache_->ReleasePath(std::exchange(node_, nullptr));
}

uint32_t PrefixCache::Lease::pages() const { return node_ == nullptr ? 0 : node_->depth; }

uint32_t PrefixCache::Lease::sole_pages() const {
  uint32_t sole = 0;
  // Users only grow towards the root.
  for (const PrefixNode* node = node_; node != nullptr && !node->is_root() && node->users == 1;
       node = node->parent) {
    ++sole;
  }
  return sole;
}

PrefixCache::PrefixCache(PagePool* pool, EvictionQueue* queue, int page_tokens, bool enabled)
    : pool_(pool),
      queue_(queue),
      page_tokens_(static_cast<uint32_t>(page_tokens)),
      enabled_(enabled) {
  LORAD_CHECK(page_tokens >= 1);
}

PrefixCache::~PrefixCache() {
  LORAD_CHECK(leases_ == 0);
  for (const auto& [scope, tree] : trees_) RemoveUnreferenced(tree.get());
}

PrefixTree* PrefixCache::FindTree(const PrefixScope& scope) const {
  const auto found = trees_.find(scope);
  return found == trees_.end() ? nullptr : found->second.get();
}

PrefixTree* PrefixCache::FindOrAddTree(const PrefixScope& scope) {
  const auto [place, added] = trees_.try_emplace(scope);
  if (added) place->second = std::make_unique<PrefixTree>(pool_, &place->first, page_tokens_);
  return place->second.get();
}

void PrefixCache::ForgetIfEmpty(PrefixTree* tree) {
  if (tree->pages == 0) trees_.erase(trees_.find(tree->scope()));
}

PrefixCache::Found PrefixCache::Find(const PrefixScope& scope, std::span<const int32_t> tokens,
                                     int max_tokens) const {
  PrefixTree* tree = FindTree(scope);
  if (tree == nullptr) return {};
  const PrefixTree::Match match = tree->Find(Within(tokens, max_tokens));
  Found found{.pages = match.node->depth,
              .copy_tokens = static_cast<int>(match.copy_tokens),
              .idle_pages = match.copy != nullptr && match.copy->users == 0 ? 1u : 0u,
              .tokens = static_cast<int>(match.node->depth * page_tokens_ + match.copy_tokens)};
  // Users only grow towards the root.
  const PrefixNode* node = match.node;
  for (; !node->is_root() && node->users == 0; node = node->parent) ++found.idle_pages;
  for (; !node->is_root() && node->users == 1; node = node->parent) ++found.sole_pages;
  return found;
}

PrefixCache::Hit PrefixCache::Acquire(const PrefixScope& scope, std::span<const int32_t> tokens,
                                      int max_tokens, PageList* pages) {
  LORAD_CHECK(pages->size() == 0);
  Hit hit;
  if (!enabled_) return hit;
  const std::span<const int32_t> wanted = Within(tokens, max_tokens);
  ++stats_.lookups;
  stats_.queried_tokens += wanted.size();
  PrefixTree* tree = FindTree(scope);
  if (tree == nullptr) return hit;

  const PrefixTree::Match match = tree->Find(wanted);
  hit.lease = LeasePath(match.node);
  hit.tokens = static_cast<int>(match.node->depth * page_tokens_ + match.copy_tokens);
  hit.copy_tokens = static_cast<int>(match.copy_tokens);
  if (match.copy != nullptr) {
    hit.copy_page = match.copy->page.ids()[0];
    hit.copy_lease = LeasePath(match.copy);
    Use(match.copy, static_cast<double>(match.copy_tokens) / match.copy->tokens.size());
  }
  std::vector<PrefixNode*> path(match.node->depth);  // from the first page on
  for (PrefixNode* node = match.node; !node->is_root(); node = node->parent) {
    path[node->depth - 1] = node;
    Use(node);
  }
  for (const PrefixNode* node : path) pages->Share(node->page, 0, 1);
  stats_.hit_tokens += static_cast<uint64_t>(hit.tokens);
  return hit;
}

void PrefixCache::Insert(const PrefixScope& scope, std::span<const int32_t> tokens, bool tail,
                         PageList* pages, Lease* lease, PageList* exchanged) {
  const auto whole = static_cast<uint32_t>(tokens.size() / page_tokens_);
  const std::span<const int32_t> rest = tokens.subspan(size_t{whole} * page_tokens_);
  LORAD_CHECK(pages->size() >= whole + (rest.empty() ? 0 : 1));
  const bool keeps_tail = tail && !rest.empty();
  if (!enabled_ || (whole == lease->pages() && !keeps_tail)) return;

  PrefixNode* node = lease->node_ != nullptr ? lease->node_ : FindOrAddTree(scope)->root();
  if (node->tree->retired) return;
  LORAD_CHECK(node->depth <= whole &&
              (node->is_root() || pages->ids()[node->depth - 1] == node->page.ids()[0]));
  while (node->depth < whole) {
    const uint32_t i = node->depth;
    const auto edge = tokens.subspan(size_t{i} * page_tokens_, page_tokens_);
    PrefixNode* child = PrefixTree::Child(*node, edge);
    if (child == nullptr) {
      RemoveSuperseded(node, edge);
      child = Add(node, edge, *pages, i);
    } else {
      if (exchanged != nullptr) exchanged->Share(*pages, i, 1);
      pages->Replace(i, child->page, 0);
    }
    AddUser(child);
    Use(child);
    node = child;
  }
  if (!node->is_root()) {  // the lease goes down with the path
    leases_ += lease->node_ == nullptr ? 1 : 0;
    lease->cache_ = this;
    lease->node_ = node;
  }
  if (keeps_tail) InsertTail(node, rest, *pages);
}

void PrefixCache::InsertTail(PrefixNode* parent, std::span<const int32_t> tokens,
                             const PageList& pages) {
  if (PrefixNode* same = PrefixTree::ChildBeginningWith(*parent, tokens)) {
    Use(same, static_cast<double>(tokens.size()) / same->tokens.size());
    return;
  }
  RemoveSuperseded(parent, tokens);
  PrefixNode* node = Add(parent, tokens, pages, parent->depth);
  Use(node);
  queue_->Put(node);
}

void PrefixCache::RemoveSuperseded(PrefixNode* parent, std::span<const int32_t> tokens) {
  PrefixNode* tail = PrefixTree::TailWithin(*parent, tokens);
  while (tail != nullptr) {
    PrefixNode* shorter = PrefixTree::TailWithin(*parent, tail->tokens);
    if (tail->users == 0) {
      queue_->Take(tail);
      Remove(tail);
    }
    tail = shorter;
  }
}

void PrefixCache::RetireAdapter(AdapterVersionId adapter) {
  auto place = trees_.lower_bound({.tenant = {}, .salt = {}, .adapter = adapter, .weight = 0});
  while (place != trees_.end() && place->first.adapter == adapter) {
    PrefixTree* tree = (place++)->second.get();
    tree->retired = true;
    RemoveUnreferenced(tree);
    ForgetIfEmpty(tree);
  }
}

void PrefixCache::RemoveUnreferenced(PrefixTree* tree) {
  const std::vector<PrefixNode*> nodes = tree->Nodes();
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    if ((*node)->users > 0) continue;
    queue_->Take(*node);  // it is a leaf by now
    Remove(*node);
  }
}

void PrefixCache::Evict(EvictionQueue::Item* item) {
  auto* node = static_cast<PrefixNode*>(item);
  PrefixTree* tree = node->tree;
  ++stats_.evicted_pages;
  Remove(node);
  ForgetIfEmpty(tree);
}

void PrefixCache::Use(PrefixNode* node, double uses) {
  node->seconds = seconds_per_token_ * static_cast<double>(node->tokens.size());
  queue_->Use(node, uses);
}

void PrefixCache::AddUser(PrefixNode* node) {
  if (node->users++ > 0) return;
  ++epoch_;
  --unreferenced_pages_;
  --node->tree->unreferenced;
  if (node->queued) queue_->Take(node);
}

void PrefixCache::DropUser(PrefixNode* node) {
  LORAD_CHECK(node->users > 0);
  if (--node->users > 0) return;
  ++epoch_;
  ++unreferenced_pages_;
  ++node->tree->unreferenced;
  if (node->tree->retired) {
    Remove(node);  // a leaf: what was below it and not leased went before
    return;
  }
  queue_->Touch(node);
  if (node->is_leaf()) queue_->Put(node);
}

PrefixCache::Lease PrefixCache::LeasePath(PrefixNode* node) {
  Lease lease;
  if (node->is_root()) return lease;
  ++leases_;
  lease.cache_ = this;
  lease.node_ = node;
  for (; !node->is_root(); node = node->parent) AddUser(node);
  return lease;
}

void PrefixCache::ReleasePath(PrefixNode* node) {
  PrefixTree* tree = node->tree;
  --leases_;
  while (!node->is_root()) {
    PrefixNode* parent = node->parent;
    DropUser(node);
    node = parent;
  }
  ForgetIfEmpty(tree);
}

PrefixNode* PrefixCache::Add(PrefixNode* parent, std::span<const int32_t> tokens,
                             const PageList& pages, uint32_t i) {
  PrefixNode* node = parent->tree->Add(parent, tokens, pages, i);
  node->owner = this;
  ++pages_;
  ++unreferenced_pages_;
  ++node->tree->pages;
  ++node->tree->unreferenced;
  ++epoch_;
  return node;
}

void PrefixCache::Remove(PrefixNode* node) {
  LORAD_CHECK(node->users == 0 && !node->queued);
  PrefixNode* parent = node->parent;
  --pages_;
  --unreferenced_pages_;
  --node->tree->pages;
  --node->tree->unreferenced;
  ++epoch_;
  node->tree->Remove(node);
  if (!parent->is_root() && parent->users == 0 && parent->is_leaf()) queue_->Put(parent);
}

}  // namespace lorad
