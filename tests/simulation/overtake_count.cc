#include "tests/simulation/overtake_count.h"

#include <algorithm>

namespace lorad::sim {

void OvertakeCount::Wait(const Line& line, size_t request) { waiting_[line].emplace(request, 0); }

int OvertakeCount::Admit(const Line& line, size_t request) {
  std::map<size_t, int>& waiting = waiting_[line];
  waiting.erase(request);
  int most = 0;
  size_t left = kOldest;
  for (auto at = waiting.begin(); at != waiting.end() && at->first < request && left > 0; ++at) {
    most = std::max(most, ++at->second);
    --left;
  }
  return most;
}

void OvertakeCount::Leave(const Line& line, size_t request) { waiting_[line].erase(request); }

}  // namespace lorad::sim
