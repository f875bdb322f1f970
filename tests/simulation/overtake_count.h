// OvertakeCount: how often a waiting request is passed by one that came later, of the same tenant
// and class, so that nothing but its adapter or its size can be the reason. Counted for the oldest
// ones that wait, where it would starve somebody.
//
// Thread: the simulation's only.
#pragma once

#include <cstddef>
#include <map>
#include <utility>

#include "scheduler/priority.h"

namespace lorad::sim {

class OvertakeCount {
 public:
  static constexpr size_t kOldest = 8;  // of a tenant and class

  struct Line {
    int tenant = 0;
    Priority priority = Priority::kStandard;
    auto operator<=>(const Line&) const = default;
  };

  void Wait(const Line& line, size_t request);  // requests come in ascending order
  // It has its place now. Returns the most that one of those that still wait was overtaken.
  int Admit(const Line& line, size_t request);
  void Leave(const Line& line, size_t request);

 private:
  std::map<Line, std::map<size_t, int>> waiting_;  // request -> times overtaken
};

}  // namespace lorad::sim
