// Work: one copy, fill or launch of the emulated device. WorkGraph: captured work, each piece after
// some earlier pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cuda/launch.h"

namespace lorad::emulator {

struct Work {
  enum class Kind { kCopy, kFill, kLaunch };
  Kind kind = Kind::kCopy;
  void* to = nullptr;
  const void* from = nullptr;
  size_t bytes = 0;
  uint8_t byte = 0;
  kernels::cuda::KernelRef kernel;
  kernels::cuda::Grid grid;
  std::vector<std::byte> args;
};

struct WorkGraph {
  struct Node {
    Work work;
    std::vector<int> after;
  };
  std::vector<Node> nodes;
  int queued = 0;        // launches that are not over
  bool running = false;  // one of them has begun: a graph never runs beside itself

  // Whether `node` is one of `ends` or comes before one.
  std::vector<bool> Before(const std::vector<int>& ends) const;
};

// A launch of a graph that has begun.
class GraphRun {
 public:
  explicit GraphRun(const WorkGraph& graph);
  const std::vector<int>& ready() const { return ready_; }
  // The node ready()[i] has run.
  void Finish(size_t i);
  bool done() const { return left_ == 0; }

 private:
  std::vector<std::vector<int>> next_;
  std::vector<int> waits_for_;  // nodes, by node
  std::vector<int> ready_;
  size_t left_;
};

}  // namespace lorad::emulator
