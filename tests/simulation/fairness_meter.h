// FairnessMeter: how far apart tenants get in what they are served, over their weights, while both
// have requests waiting. Served: prompt tokens once, output tokens kOutputPrice times. A fair
// scheduler keeps the spread of every pair below a bound that does not grow with time (I7).
//
// Thread: the simulation's only.
#pragma once

#include <cstddef>
#include <vector>

namespace lorad::sim {

class FairnessMeter {
 public:
  static constexpr double kOutputPrice = 2;
  static constexpr size_t kMostTenants = 16;  // with more, none is measured

  // `weights`: by tenant; empty: all 1.
  FairnessMeter(size_t tenants, std::vector<double> weights);

  void AddWaiting(int tenant, int difference);
  void AddService(int tenant, double prompt_tokens, double output_tokens);

  // Of all pairs and all times at which both had requests waiting: the most that the difference of
  // their service (over weights) changed.
  double worst_spread() const { return worst_; }

 private:
  struct Pair {
    bool both = false;
    double least = 0, most = 0;  // of the difference since both wait
  };
  Pair& PairOf(size_t a, size_t b) { return pairs_[a * tenants_ + b]; }
  void Look(size_t tenant);

  const size_t tenants_;
  std::vector<double> weights_;
  std::vector<double> served_;
  std::vector<int> waiting_;
  std::vector<Pair> pairs_;  // [tenants, tenants]: a < b
  double worst_ = 0;
};

}  // namespace lorad::sim
