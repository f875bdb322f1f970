#include "tests/bench/lorad_bench/numpy_random.h"

#include <cmath>

namespace lorad::bench {

double NumpyRandom::Uniform() {
  const uint32_t high = generator_() >> 5;
  const uint32_t low = generator_() >> 6;
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

double NumpyRandom::Exponential() { return -std::log(1.0 - Uniform()); }

double NumpyRandom::Power(double a) { return std::pow(1.0 - std::exp(-Exponential()), 1.0 / a); }

// The polar method.
double NumpyRandom::Gauss() {
  if (has_gauss_) {
    has_gauss_ = false;
    return gauss_;
  }
  double x = 0, y = 0, r = 0;
  do {
    x = 2.0 * Uniform() - 1.0;
    y = 2.0 * Uniform() - 1.0;
    r = x * x + y * y;
  } while (r >= 1.0 || r == 0.0);
  const double f = std::sqrt(-2.0 * std::log(r) / r);
  gauss_ = f * x;
  has_gauss_ = true;
  return f * y;
}

double NumpyRandom::StandardGamma(double shape) {
  if (shape == 1.0) return Exponential();
  if (shape < 1.0) {  // Ahrens and Dieter
    while (true) {
      const double u = Uniform();
      const double v = Exponential();
      if (u <= 1.0 - shape) {
        const double x = std::pow(u, 1.0 / shape);
        if (x <= v) return x;
      } else {
        const double y = -std::log((1.0 - u) / shape);
        const double x = std::pow(1.0 - shape + shape * y, 1.0 / shape);
        if (x <= v + y) return x;
      }
    }
  }
  const double b = shape - 1.0 / 3.0;  // Marsaglia and Tsang
  const double c = 1.0 / std::sqrt(9.0 * b);
  while (true) {
    double x = 0, v = 0;
    do {
      x = Gauss();
      v = 1.0 + c * x;
    } while (v <= 0.0);
    v = v * v * v;
    const double u = Uniform();
    if (u < 1.0 - 0.0331 * (x * x) * (x * x)) return b * v;
    if (std::log(u) < 0.5 * x * x + b * (1.0 - v + std::log(v))) return b * v;
  }
}

double NumpyRandom::Gamma(double shape, double scale) { return scale * StandardGamma(shape); }

int64_t NumpyRandom::Integer(int64_t low, int64_t high) {
  const auto range = static_cast<uint32_t>(high - low - 1);
  if (range == 0) return low;  // numpy draws nothing then
  uint32_t mask = range;
  for (int shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
  uint32_t value = 0;
  do {
    value = generator_() & mask;
  } while (value > range);
  return low + value;
}

}  // namespace lorad::bench
