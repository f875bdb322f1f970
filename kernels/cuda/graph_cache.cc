#include "kernels/cuda/graph_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "memory/base/check.h"

namespace lorad::kernels::cuda {

// Two chains of multiplications (odd constants of golden ratio and sqrt 2); what collides is told
// apart by comparison.
uint64_t HashBytes(std::span<const std::byte> bytes) {
  constexpr uint64_t kFirst = 0x9e3779b97f4a7c15u, kSecond = 0xb504f333f9de6485u;
  uint64_t first = bytes.size(), second = kSecond;
  size_t at = 0;
  for (; at + 16 <= bytes.size(); at += 16) {
    uint64_t words[2];
    std::memcpy(words, bytes.data() + at, sizeof(words));
    first = std::rotl((first ^ words[0]) * kFirst, 29);
    second = std::rotl((second ^ words[1]) * kSecond, 31);
  }
  for (; at < bytes.size(); ++at) first = (first ^ uint64_t(bytes[at])) * kFirst;
  const uint64_t sum = (first ^ std::rotl(second, 17)) * kFirst;
  return (sum ^ (sum >> 32)) | 1;  // 0 is no hash
}

GraphCache::~GraphCache() {
  for (const Entry& entry : entries_) runtime_.FreeGraph(entry.graph);
}

GraphCache::Entry* GraphCache::Find(std::span<const std::byte> key, uint64_t hash) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.hash == hash && std::ranges::equal(entry.key, key);
  });
  if (found == entries_.end()) return nullptr;
  found->used = ++finds_;
  return &*found;
}

bool GraphCache::SeenBefore(uint64_t hash) {
  if (std::ranges::find(seen_, hash) != seen_.end()) return true;
  seen_[next_seen_++ % seen_.size()] = hash;
  return false;
}

GraphCache::Entry* GraphCache::Add(std::span<const std::byte> key, uint64_t hash, Graph graph,
                                   const std::function<void(uint64_t step)>& await) {
  LORAD_CHECK(capacity_ > 0);
  if (entries_.size() == capacity_) {
    const auto oldest = std::ranges::min_element(entries_, {}, &Entry::used);
    await(oldest->last_step);
    runtime_.FreeGraph(oldest->graph);
    entries_.erase(oldest);
  }
  entries_.push_back({.hash = hash,
                      .key = {key.begin(), key.end()},
                      .graph = graph,
                      .last_step = 0,
                      .used = ++finds_});
  return &entries_.back();
}

}  // namespace lorad::kernels::cuda
