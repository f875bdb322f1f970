#include "tests/emulator/work.h"

namespace lorad::emulator {

std::vector<bool> WorkGraph::Before(const std::vector<int>& ends) const {
  std::vector<bool> before(nodes.size());
  for (const int end : ends) before[size_t(end)] = true;
  // A node's number is larger than those that it comes after.
  for (size_t i = nodes.size(); i-- > 0;) {
    if (!before[i]) continue;
    for (const int earlier : nodes[i].after) before[size_t(earlier)] = true;
  }
  return before;
}

GraphRun::GraphRun(const WorkGraph& graph)
    : next_(graph.nodes.size()), waits_for_(graph.nodes.size()), left_(graph.nodes.size()) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    waits_for_[i] = static_cast<int>(graph.nodes[i].after.size());
    for (const int earlier : graph.nodes[i].after) next_[size_t(earlier)].push_back(int(i));
    if (waits_for_[i] == 0) ready_.push_back(static_cast<int>(i));
  }
}

void GraphRun::Finish(size_t i) {
  const int node = ready_[i];
  ready_[i] = ready_.back();
  ready_.pop_back();
  --left_;
  for (const int next : next_[size_t(node)]) {
    if (--waits_for_[size_t(next)] == 0) ready_.push_back(next);
  }
}

}  // namespace lorad::emulator
