#include "memory/prefix_tree.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "memory/base/check.h"

namespace lorad {
namespace {

uint32_t CommonTokens(std::span<const int32_t> a, std::span<const int32_t> b) {
  const auto differ = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<uint32_t>(differ.first - a.begin());
}

bool BeginsWith(std::span<const int32_t> a, std::span<const int32_t> b) {
  return CommonTokens(a, b) == b.size();
}

}  // namespace

bool PrefixTokensBefore::operator()(std::span<const int32_t> a, std::span<const int32_t> b) const {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

PrefixTree::PrefixTree(PagePool* pool, const PrefixScope* scope, uint32_t page_tokens)
    : pool_(pool), scope_(scope), page_tokens_(page_tokens) {
  root_.tree = this;
}

PrefixTree::~PrefixTree() {
  const std::vector<PrefixNode*> nodes = Nodes();
  std::for_each(nodes.rbegin(), nodes.rend(), [this](PrefixNode* node) { Remove(node); });
}

PrefixTree::Match PrefixTree::Find(std::span<const int32_t> tokens) {
  Match match{.node = &root_, .copy = nullptr, .copy_tokens = 0};
  while (tokens.size() >= page_tokens_) {
    PrefixNode* child = Child(*match.node, tokens.first(page_tokens_));
    if (child == nullptr) break;
    match.node = child;
    tokens = tokens.subspan(page_tokens_);
  }
  tokens = tokens.first(std::min<size_t>(tokens.size(), page_tokens_));
  const auto& children = match.node->children;
  const auto consider = [&](PrefixNode* child) {
    const uint32_t common = CommonTokens(tokens, child->tokens);
    if (common > match.copy_tokens) {
      match.copy = child;
      match.copy_tokens = common;
    }
  };
  const auto after = children.lower_bound(tokens);
  if (after != children.end()) consider(after->second.get());
  if (after != children.begin()) consider(std::prev(after)->second.get());
  return match;
}

PrefixNode* PrefixTree::Child(const PrefixNode& node, std::span<const int32_t> tokens) {
  const auto found = node.children.find(tokens);
  return found == node.children.end() ? nullptr : found->second.get();
}

PrefixNode* PrefixTree::ChildBeginningWith(const PrefixNode& node,
                                           std::span<const int32_t> tokens) {
  const auto found = node.children.lower_bound(tokens);
  if (found == node.children.end() || !BeginsWith(found->first, tokens)) return nullptr;
  return found->second.get();
}

PrefixNode* PrefixTree::TailWithin(const PrefixNode& node, std::span<const int32_t> tokens) {
  auto after = node.children.lower_bound(tokens);
  while (after != node.children.begin()) {
    PrefixNode* before = std::prev(after)->second.get();
    const uint32_t common = CommonTokens(tokens, before->tokens);
    if (common == before->tokens.size()) return before;
    // What `tokens` begin with and what stands before this one is no longer than what they share.
    after = node.children.upper_bound(tokens.first(common));
  }
  return nullptr;
}

PrefixNode* PrefixTree::Add(PrefixNode* parent, std::span<const int32_t> tokens,
                            const PageList& from, uint32_t i) {
  LORAD_CHECK(parent->is_root() || parent->tokens.size() == page_tokens_);
  LORAD_CHECK(!tokens.empty() && tokens.size() <= page_tokens_);
  auto node = std::make_unique<PrefixNode>();
  node->tree = this;
  node->parent = parent;
  node->depth = parent->depth + 1;
  node->tokens.assign(tokens.begin(), tokens.end());
  node->page = PageList(pool_, PageUse::kKv);
  node->page.Share(from, i, 1);
  const std::span<const int32_t> key = node->tokens;
  const auto [place, added] = parent->children.emplace(key, std::move(node));
  LORAD_CHECK(added);
  return place->second.get();
}

void PrefixTree::Remove(PrefixNode* node) {
  LORAD_CHECK(!node->is_root() && node->is_leaf());
  auto& siblings = node->parent->children;
  siblings.erase(siblings.find(node->tokens));
}

std::vector<PrefixNode*> PrefixTree::Nodes() const {
  std::vector<PrefixNode*> nodes;
  nodes.reserve(pages);
  for (const auto& [tokens, child] : root_.children) nodes.push_back(child.get());
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (const auto& [tokens, child] : nodes[i]->children) nodes.push_back(child.get());
  }
  return nodes;
}

}  // namespace lorad
