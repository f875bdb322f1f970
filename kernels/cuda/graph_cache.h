// GraphCache: the graphs of programs that came more than once, by the programs' bytes. Bounded: the
// one that was used longest ago makes room.
//
// Thread: one at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "kernels/cuda/runtime.h"

namespace lorad::kernels::cuda {

uint64_t HashBytes(std::span<const std::byte> bytes);

class GraphCache {
 public:
  struct Entry {
    uint64_t hash = 0;
    std::vector<std::byte> key;
    Graph graph;
    uint64_t last_step = 0;  // that it ran in; the caller's
    uint64_t used = 0;       // when, in finds
  };

  GraphCache(Runtime& runtime, size_t capacity) : runtime_(runtime), capacity_(capacity) {}
  ~GraphCache();  // REQUIRES: no graph runs
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  // Null: it has none. Valid until the next Add.
  Entry* Find(std::span<const std::byte> key, uint64_t hash);
  // Whether a program of this hash was asked for among the last few hundred that have no graph.
  bool SeenBefore(uint64_t hash);
  // `await` is called with the step that an entry which has to go last ran in.
  Entry* Add(std::span<const std::byte> key, uint64_t hash, Graph graph,
             const std::function<void(uint64_t step)>& await);
  size_t size() const { return entries_.size(); }

 private:
  Runtime& runtime_;
  const size_t capacity_;
  std::vector<Entry> entries_;
  uint64_t finds_ = 0;
  std::array<uint64_t, 256> seen_ = {};
  size_t next_seen_ = 0;
};

}  // namespace lorad::kernels::cuda
