// SafeState: whether all running sequences can still come to their ends, one after the other if
// need be, when some go on and others do not (a reader is slow, a prompt is long). It is Dijkstra's
// banker's algorithm: a state is safe if there is an order in which each finds the pages that it
// may yet need among those that are free and those that the ones before it gave back. Whoever gives
// pages only while the state stays safe never has to take any away.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace lorad {

class SafeState {
 public:
  // One sequence: pages that it may yet need, and that come back when it ends, of those it holds.
  // Returns its number.
  size_t Add(int64_t needs, int64_t returns);
  // With so many pages free or to be had.
  bool IsSafe(int64_t available) const;
  // If it were given `pages` of the available ones, which would come back with it.
  bool IsSafeAfterGiving(size_t sequence, int64_t pages, int64_t available) const;
  void Give(size_t sequence, int64_t pages);

 private:
  struct Claim {
    int64_t needs;
    int64_t returns;
  };
  std::vector<Claim> claims_;
  int64_t needs_ = 0;  // of all
};

}  // namespace lorad
