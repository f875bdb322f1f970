#include "kernels/reference/reference_backend.h"
#include "kernels/reference/storage.h"
#include "memory/base/check.h"

namespace lorad::kernels::reference {

void ReferenceBackend::Linear(const LinearArgs& args) {
  const F32Matrix& w = Of(*args.w);
  LORAD_CHECK(args.x->cols() == w.cols() && args.y->cols() == w.rows());
  for (int row = 0; row < args.rows; ++row) {
    const auto x = Of(*args.x).Row(row);
    const auto y = Of(*args.y).Row(row);
    for (int col = 0; col < w.rows(); ++col) {
      const double before = args.accumulate ? y[size_t(col)] : 0.0;
      y[size_t(col)] = static_cast<float>(before + Dot(x, w.Row(col)) + w.Bias(col));
    }
  }
  for (const AdapterSegment& segment : args.segments) {
    for (const AdapterModule& module : segment.layout->At(args.site)) {
      AddLowRank(module, segment, slab_, *args.x, *args.y);
    }
  }
}

}  // namespace lorad::kernels::reference
