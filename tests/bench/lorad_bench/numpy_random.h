// NumpyRandom: the draws of numpy's legacy generator (np.random.seed and the functions of that
// module), number for number, so that a trace here is the trace that S-LoRA's authors' Python makes
// from the same seed. Not thread-safe.
#pragma once

#include <cstdint>
#include <random>

namespace lorad::bench {

class NumpyRandom {
 public:
  explicit NumpyRandom(uint32_t seed) : generator_(seed) {}

  double Uniform();        // np.random.random(): [0, 1), 53 bits
  double Power(double a);  // np.random.power(a): density a x^(a-1) on [0, 1]
  double Gamma(double shape, double scale);
  int64_t Integer(
      int64_t low,
      int64_t high);  // np.random.randint(low, high).  REQUIRES: low < high <= low + 2^32

 private:
  double Exponential();
  double Gauss();
  double StandardGamma(double shape);

  std::mt19937 generator_;
  bool has_gauss_ = false;
  double gauss_ = 0;  // the second of a pair
};

}  // namespace lorad::bench
