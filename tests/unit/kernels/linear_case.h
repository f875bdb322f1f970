// A linear layer with adapters, run on any rig over any choice and order of its rows.
#pragma once

#include <string>
#include <vector>

#include "tests/unit/kernels/conformance.h"

namespace lorad::kernels::conformance {

struct LinearCase {
  int rows = 1;
  int cols = 64;
  std::vector<int> parts = {64};  // rows of the stacked matrices
  bool bias = false;
  bool accumulate = false;
  DType dtype = DType::kF32;
  WeightFormat format = WeightFormat::kBf16;
  // Grid weights are exact in int8 too: each row's first weight is the grid's largest then.
  Values values = Values::kGrid;
  Precision output = Precision::kActivation;
  uint32_t site = 1;
  std::vector<std::vector<ModuleSpec>> adapters = {};
  std::vector<int> adapter_of_row = {};   // [rows] index of an adapter or -1; empty: no adapters
  std::vector<float> weight_of_row = {};  // [rows]; empty: all 1
  bool activation = false;                // the result is SwiGlu of y, half as many columns
  uint64_t seed = 7;

  int out_cols() const;  // of y
};

inline constexpr uint32_t kSites = 3;

// Gives rows 0, 1, 2, ... the adapters, in runs of `run` rows: adapter 0, 1, ..., none, 0, ...
std::vector<int> AdaptersInRuns(int rows, int adapters, int run);

// One case on one rig: matrices and adapters are loaded once, then any rows may be run.
class LoadedLinear {
 public:
  LoadedLinear(Rig& rig, const LinearCase& problem);

  // Output rows for input rows `order`.
  Rows Run(std::span<const int> order);
  Rows Run();  // all rows in order
  // Makes the segments that use adapter i use adapter `as[i]`: for the negative controls.
  void Substitute(std::vector<int> as) { substitute_ = std::move(as); }

 private:
  Rig& rig_;
  LinearCase problem_;
  Rows x_;
  Rows before_;  // of y, when accumulating
  std::unique_ptr<Matrix> weights_;
  std::vector<LoadedAdapter> adapters_;
  std::vector<int> substitute_;
};

// The case on a fresh rig.
Rows RunLinear(const RigOptions& options, const LinearCase& problem);

}  // namespace lorad::kernels::conformance
