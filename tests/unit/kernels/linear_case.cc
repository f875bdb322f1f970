#include "tests/unit/kernels/linear_case.h"

#include <numeric>

namespace lorad::kernels::conformance {

int LinearCase::out_cols() const { return std::accumulate(parts.begin(), parts.end(), 0); }

std::vector<int> AdaptersInRuns(int rows, int adapters, int run) {
  std::vector<int> of_row;
  for (int row = 0; row < rows; ++row) {
    const int turn = row / run % (adapters + 1);
    of_row.push_back(turn == adapters ? -1 : turn);
  }
  return of_row;
}

LoadedLinear::LoadedLinear(Rig& rig, const LinearCase& problem)
    : rig_(rig),
      problem_(problem),
      x_(Make(problem.values, problem.seed, problem.rows, problem.cols)),
      before_(Make(problem.values, problem.seed + 1, problem.rows, problem.out_cols())) {
  std::vector<Encoded> parts;
  std::vector<HostMatrix> views;
  for (size_t i = 0; i < problem.parts.size(); ++i) {
    Rows part = Make(problem.values, problem.seed + 10 + i, problem.parts[i], problem.cols);
    if (problem.format == WeightFormat::kInt8 && problem.values == Values::kGrid) {
      for (int row = 0; row < part.rows; ++row) part.At(row)[0] = 127.0f / 64.0f;
    }
    parts.push_back(Encode(part, problem.dtype));
  }
  for (const Encoded& part : parts) views.push_back(part.view());
  const Rows bias = Make(problem.values, problem.seed + 2, 1, problem.out_cols());
  weights_ = rig.backend().Pack(views, problem.bias ? bias.At(0) : std::span<const float>(),
                                problem.format);
  for (size_t i = 0; i < problem.adapters.size(); ++i) {
    adapters_.emplace_back(rig, problem.adapters[i], problem.seed + 100 + i, kSites);
    substitute_.push_back(int(i));
  }
}

Rows LoadedLinear::Run(std::span<const int> order) {
  const int rows = int(order.size());
  const auto x = rig_.Upload(Pick(x_, order), 3);
  const auto y = rig_.Upload(Pick(before_, order), 3, problem_.output);
  std::vector<AdapterSegment> segments;
  int previous = -1;
  for (int row = 0; row < rows; ++row) {
    const auto at = size_t(order[size_t(row)]);
    const int adapter = problem_.adapter_of_row.empty() ? -1 : problem_.adapter_of_row[at];
    const float weight = problem_.weight_of_row.empty() ? 1.0f : problem_.weight_of_row[at];
    if (adapter >= 0 && adapter == previous && segments.back().weight == weight) {
      segments.back().end_row = row + 1;
    } else if (adapter >= 0) {
      const LoadedAdapter& loaded = adapters_[size_t(substitute_[size_t(adapter)])];
      segments.push_back({.first_row = row,
                          .end_row = row + 1,
                          .layout = &loaded.layout,
                          .pages = loaded.pages,
                          .weight = weight});
    }
    previous = adapter;
  }
  rig_.backend().Linear({.rows = rows,
                         .x = x.get(),
                         .w = weights_.get(),
                         .y = y.get(),
                         .accumulate = problem_.accumulate,
                         .site = problem_.site,
                         .segments = segments});
  if (!problem_.activation) return rig_.Download(*y, rows);
  const auto out = rig_.backend().NewTensor(rows + 3, problem_.out_cols() / 2);
  rig_.backend().SwiGlu(rows, *y, *out);
  return rig_.Download(*out, rows);
}

Rows LoadedLinear::Run() {
  std::vector<int> order(size_t(problem_.rows));
  std::iota(order.begin(), order.end(), 0);
  return Run(order);
}

Rows RunLinear(const RigOptions& options, const LinearCase& problem) {
  Rig rig(options);
  return LoadedLinear(rig, problem).Run();
}

}  // namespace lorad::kernels::conformance
