#include "scheduler/step_cost.h"

#include <algorithm>

namespace lorad {
namespace {

constexpr double kLatest = 0.003;  // weight of the latest step, unless there were fewer
// How strongly both kinds of rows are held to cost the same, and a step to be nothing but its rows;
// of the rows squared.
constexpr double kAlike = 2e-4;
constexpr double kWhole = 2e-6;

}  // namespace

void StepCostFit::Add(double prompt_rows, double decode_rows, double seconds) {
  ++steps_;
  const double weight = std::max(kLatest, 1.0 / steps_);
  const double p = prompt_rows - p_, d = decode_rows - d_, y = seconds - y_;
  p_ += weight * p;
  d_ += weight * d;
  y_ += weight * y;
  const auto add = [weight](double* mean, double product) {
    *mean = (1 - weight) * (*mean + weight * product);
  };
  add(&pp_, p * p);
  add(&pd_, p * d);
  add(&dd_, d * d);
  add(&py_, p * y);
  add(&dy_, d * y);
}

StepCost StepCostFit::cost() const {
  if (p_ + d_ <= 0) return {};
  // Ridge regression towards `whole`, what a row costs if the base is nothing.
  const double whole = y_ / (p_ + d_);
  const double rows_squared = (p_ + d_) * (p_ + d_);
  const double alike = kAlike * rows_squared, hold = kWhole * rows_squared;
  const double pp = pp_ + alike + hold, dd = dd_ + alike + hold, pd = pd_ - alike;
  const double py = py_ - whole * (pp_ + pd_), dy = dy_ - whole * (pd_ + dd_);
  const double determinant = pp * dd - pd * pd;  // > 0
  StepCost cost;
  cost.prompt_row = std::max(0.0, whole + (py * dd - dy * pd) / determinant);
  cost.decode_row = std::max(0.0, whole + (dy * pp - py * pd) / determinant);
  const double rows = p_ * cost.prompt_row + d_ * cost.decode_row;
  if (rows > y_) {
    cost.prompt_row *= y_ / rows;
    cost.decode_row *= y_ / rows;
  } else {
    cost.base = y_ - rows;
  }
  return cost;
}

}  // namespace lorad
