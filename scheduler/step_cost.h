// StepCost: what a step costs here, and how that is learnt from those that were run. A step costs
// so much whatever is in it (weights are read once), so much for each prompt token (it is computed)
// and so much for each decoding sequence (its keys and values are read, too):
//
//     seconds = base + prompt tokens * prompt_row + decoding sequences * decode_row
//
// StepCostFit is the line through recent steps by least squares, old ones fading. Where they do not
// tell the rows apart both kinds cost the same; where all steps are alike the base is nothing: it
// rather overestimates rows than to promise that more of them are free.
//
// Values, without clock.
#pragma once

namespace lorad {

// Of a step, in seconds.
struct StepCost {
  double base = 0;
  double prompt_row = 0;
  double decode_row = 0;
  double Seconds(double prompt_rows, double decode_rows) const {
    return base + prompt_rows * prompt_row + decode_rows * decode_row;
  }
  bool operator==(const StepCost&) const = default;
};

class StepCostFit {
 public:
  void Add(double prompt_rows, double decode_rows, double seconds);
  // No part is negative. Before the first step all are 0.
  StepCost cost() const;
  int steps() const { return steps_; }

 private:
  int steps_ = 0;
  // Weighted means of prompt rows, decode rows, seconds, and of the products of what they are away
  // from them.
  double p_ = 0, d_ = 0, y_ = 0;
  double pp_ = 0, pd_ = 0, dd_ = 0, py_ = 0, dy_ = 0;
};

}  // namespace lorad
