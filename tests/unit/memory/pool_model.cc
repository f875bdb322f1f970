#include "tests/unit/memory/pool_model.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace lorad {

void PoolModel::Write(uint32_t page, int scope, std::string text) {
  held_[page] = {.scope = scope, .text = std::move(text)};
}

void PoolModel::Append(uint32_t page, char token) { held_[page].text += token; }

void PoolModel::ExpectHolds(uint32_t page, int scope, std::string_view text) const {
  ASSERT_EQ(held_[page].scope, scope) << "page " << page;
  ASSERT_EQ(held_[page].text, text) << "page " << page;
}

void PoolModel::ExpectBeginsWith(uint32_t page, int scope, std::string_view text) const {
  ASSERT_EQ(held_[page].scope, scope) << "page " << page;
  ASSERT_TRUE(held_[page].text.starts_with(text))
      << "page " << page << " holds " << held_[page].text << ", not " << text;
}

void PoolModel::Copy(uint32_t from, uint32_t to, size_t size) {
  held_[to] = {.scope = held_[from].scope, .text = held_[from].text.substr(0, size)};
}

int PoolModel::Users(int scope, std::string_view text) const {
  int users = 0;
  for (const Lease& lease : leases_) {
    users += lease.first == scope && lease.second.starts_with(text) ? 1 : 0;
  }
  return users;
}

size_t PoolModel::Findable(int scope, std::string_view text) const {
  const auto found = nodes_.find(scope);
  if (found == nodes_.end()) return 0;
  size_t most = 0;
  for (const auto& [node, page] : found->second) {
    const auto differ = std::mismatch(node.begin(), node.end(), text.begin(), text.end());
    most = std::max(most, static_cast<size_t>(differ.first - node.begin()));
  }
  return most;
}

uint32_t PoolModel::IdleOnPath(int scope, std::string_view text) const {
  uint32_t idle = 0;
  for (size_t end = page_tokens_; end <= text.size(); end += page_tokens_) {
    idle += Users(scope, text.substr(0, end)) == 0 ? 1 : 0;
  }
  return idle;
}

std::string PoolModel::NodeWith(int scope, uint32_t page) const {
  for (const auto& [text, node_page] : nodes_.at(scope)) {
    if (node_page == page) return text;
  }
  ADD_FAILURE() << "page " << page << " is no node's";
  return "";
}

std::vector<std::string> PoolModel::NodesOf(int scope) const {
  std::vector<std::string> texts;
  const auto found = nodes_.find(scope);
  if (found == nodes_.end()) return texts;
  for (const auto& [text, page] : found->second) texts.push_back(text);
  return texts;
}

void PoolModel::DropLease(const Lease& lease) {
  const auto found = leases_.find(lease);
  ASSERT_NE(found, leases_.end());
  leases_.erase(found);
  if (retired_.contains(lease.first)) DropIdleOfRetired(lease.first);
}

void PoolModel::RemoveSuperseded(int scope, std::string_view text) {
  Nodes& nodes = nodes_[scope];
  std::erase_if(nodes, [&](const Nodes::value_type& node) {
    const std::string& other = node.first;
    return other.size() % page_tokens_ != 0 && other.size() > PageStart(text) &&
           text.starts_with(other) && Users(scope, other) == 0;
  });
}

bool PoolModel::Insert(int scope, std::string_view text, bool tail,
                       std::span<const uint32_t> before, std::span<const uint32_t> pages) {
  if (retired_.contains(scope)) {
    EXPECT_TRUE(std::equal(before.begin(), before.end(), pages.begin(), pages.end()));
    return false;
  }
  const size_t whole = text.size() / page_tokens_ * page_tokens_;
  for (size_t end = page_tokens_; end <= whole; end += page_tokens_) {
    const std::string node(text.substr(0, end));
    const size_t i = end / page_tokens_ - 1;
    const auto found = nodes_[scope].find(node);
    if (found != nodes_[scope].end()) {
      EXPECT_EQ(pages[i], found->second) << "page " << i << " was not exchanged";
    } else {
      EXPECT_EQ(pages[i], before[i]);
      RemoveSuperseded(scope, node);
      nodes_[scope][node] = pages[i];
    }
  }
  if (tail && whole < text.size() && Findable(scope, text) < text.size()) {
    RemoveSuperseded(scope, text);
    nodes_[scope][std::string(text)] = pages[whole / page_tokens_];
  }
  if (nodes_[scope].empty()) nodes_.erase(scope);
  return true;
}

void PoolModel::RetireScope(int scope) {
  if (!nodes_.contains(scope)) return;
  retired_.insert(scope);
  DropIdleOfRetired(scope);
}

void PoolModel::DropIdleOfRetired(int scope) {
  Nodes& nodes = nodes_[scope];
  std::erase_if(nodes, [&](const auto& node) { return Users(scope, node.first) == 0; });
  if (!nodes.empty()) return;
  nodes_.erase(scope);
  retired_.erase(scope);
}

uint32_t PoolModel::TakeEvicted(const std::vector<AdapterVersionId>& adapters_left) {
  uint32_t pages = 0;
  for (const AdapterVersionId id : adapters_left) {
    const auto found = adapters_.find(id);
    if (found == adapters_.end() || !found->second.evictable()) {
      ADD_FAILURE() << "adapter " << id << " might not go";
      continue;
    }
    pages += found->second.pages;
    adapters_.erase(found);
  }
  const uint64_t evicted = pool_.prefixes().stats().evicted_pages - evicted_nodes_;
  if (evicted == 0) return pages;
  evicted_nodes_ += evicted;
  std::set<uint32_t> left;
  for (const PageList* list : pool_.prefixes().page_lists()) left.insert(list->ids()[0]);
  uint64_t gone = 0;
  for (auto scope = nodes_.begin(); scope != nodes_.end();) {
    gone += std::erase_if(scope->second, [&](const Nodes::value_type& node) {
      if (left.contains(node.second)) return false;
      EXPECT_EQ(Users(scope->first, node.first), 0) << node.first << " was in use";
      return true;
    });
    for (const auto& [text, page] : scope->second) {
      const size_t parent = PageStart(text);
      EXPECT_TRUE(parent == 0 || scope->second.contains(text.substr(0, parent)))
          << text << " outlives what it stands on";
    }
    scope = scope->second.empty() ? nodes_.erase(scope) : std::next(scope);
  }
  EXPECT_EQ(gone, evicted);
  return pages + static_cast<uint32_t>(gone);
}

uint32_t PoolModel::nodes() const {
  uint32_t count = 0;
  for (const auto& [scope, nodes] : nodes_) count += static_cast<uint32_t>(nodes.size());
  return count;
}

uint32_t PoolModel::IdleNodes() const {
  uint32_t idle = 0;
  for (const auto& [scope, nodes] : nodes_) {
    for (const auto& [text, page] : nodes) idle += Users(scope, text) == 0 ? 1 : 0;
  }
  return idle;
}

uint32_t PoolModel::Available() const {
  uint32_t available = pool_.pages().free_pages() + IdleNodes();
  for (const auto& [id, adapter] : adapters_) available += adapter.evictable() ? adapter.pages : 0;
  return available;
}

void PoolModel::Check(std::span<const PageList* const> sequences) const {
  std::set<uint32_t> kv;
  for (const PageList* list : sequences) kv.insert(list->ids().begin(), list->ids().end());
  for (const auto& [scope, nodes] : nodes_) {
    for (const auto& [text, page] : nodes) kv.insert(page);
  }
  UnifiedPool::States expected{.total = pool_.pages().total_pages()};
  expected.kv_cached = IdleNodes();
  expected.kv = static_cast<uint32_t>(kv.size()) - expected.kv_cached;
  for (const auto& [id, adapter] : adapters_) {
    (adapter.loading ? expected.loading : expected.adapter) += adapter.pages;
    ASSERT_EQ(pool_.adapters().IsLoading(id), adapter.loading) << id;
    ASSERT_EQ(pool_.adapters().IsIdle(id), adapter.idle()) << id;
    ASSERT_EQ(pool_.adapters().IsPinned(id), adapter.pinned) << id;
    ASSERT_EQ(pool_.adapters().pages_of(id), adapter.pages) << id;
  }
  expected.free =
      expected.total - expected.kv - expected.kv_cached - expected.adapter - expected.loading;
  const UnifiedPool::States states = pool_.states();
  ASSERT_EQ(states.free, expected.free);
  ASSERT_EQ(states.kv, expected.kv);
  ASSERT_EQ(states.kv_cached, expected.kv_cached);
  ASSERT_EQ(states.adapter, expected.adapter);
  ASSERT_EQ(states.loading, expected.loading);
  ASSERT_EQ(pool_.adapters().ids().size(), adapters_.size());
  ASSERT_EQ(pool_.prefixes().pages(), nodes());
  ASSERT_EQ(pool_.prefixes().scopes().size(), nodes_.size());
  ASSERT_EQ(pool_.available_pages(), Available());
}

}  // namespace lorad
