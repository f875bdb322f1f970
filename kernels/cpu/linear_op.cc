#include "kernels/cpu/linear_op.h"

#include <algorithm>
#include <utility>

#include "memory/base/check.h"

namespace lorad::kernels::cpu {
namespace {

constexpr int kAdapterRows = 64;           // of a shrink or expand task
constexpr int kExpandBytes = 32 << 10;     // of B in an expand task
constexpr int kInlineElements = 16 << 10;  // converting fewer is not worth a parallel region
constexpr int kTilesAThread = 3;           // fewer, and the last to finish is late by much
constexpr int kFewestRows = 32;            // of a GEMM task that is one of several row groups

int DivideUp(int a, int b) { return (a + b - 1) / b; }

// At least `bytes` of `memory`; its content is lost when it grows.
std::byte* Reserve(HostMemory& memory, size_t bytes) {
  if (memory.bytes() < bytes) {
    auto grown = HostMemory::Allocate(bytes + bytes / 2);
    LORAD_CHECK(grown.ok());
    memory = *std::move(grown);
  }
  return memory.data();
}

const HostTensor& Of(const Tensor& t) { return static_cast<const HostTensor&>(t); }
HostTensor& Of(Tensor& t) { return static_cast<HostTensor&>(t); }

}  // namespace

LinearOp::LinearOp(const KernelTable& kernels, ThreadPool& pool)
    : kernels_(kernels),
      pool_(pool),
      element_bytes_(kernels.bf16_activations ? sizeof(uint16_t) : sizeof(float)) {
  Reserve(gemm_scratch_,
          size_t(pool.threads()) * size_t(kernels.gemm_scratch_floats) * sizeof(float));
}

std::byte* LinearOp::Element(const Activations& a, int row) const {
  return static_cast<std::byte*>(const_cast<void*>(a.data)) +
         size_t(row) * size_t(a.stride) * element_bytes_;
}

Activations LinearOp::Convert(const HostTensor& x, int rows) {
  const int cols = x.cols();
  if (!kernels_.bf16_activations && cols % kBlockK == 0) {
    return {.data = x.data(), .stride = x.stride()};
  }
  // An odd number of cache lines, as in HostTensor.
  const int padded = DivideUp(cols, kBlockK) * kBlockK;
  const int line = static_cast<int>(64 / element_bytes_);
  Activations out = {.data = nullptr, .stride = int64_t{(padded / line) | 1} * line};
  out.data = Reserve(activations_, size_t(rows) * size_t(out.stride) * element_bytes_);
  const auto convert = [&](int row, int) {
    kernels_.convert({.x = x.Row(row), .out = Element(out, row), .n = cols, .padded = padded});
  };
  if (int64_t{rows} * cols <= kInlineElements) {
    for (int row = 0; row < rows; ++row) convert(row, 0);
  } else {
    pool_.ParallelFor(rows, convert);
  }
  return out;
}

LinearOp::Cut LinearOp::CutGemm(int rows, int panels) const {
  const int enough = kTilesAThread * pool_.threads();
  Cut cut{kernels_.gemm_panels, 0, DivideUp(rows, kernels_.gemm_rows)};
  while (cut.panels > 1 && DivideUp(panels, cut.panels) * cut.row_groups < enough) --cut.panels;
  cut.column_groups = DivideUp(panels, cut.panels);
  while (cut.tiles() < enough && rows / (cut.row_groups + 1) >= kFewestRows) ++cut.row_groups;
  return cut;
}

void LinearOp::CutModule(const AdapterSegment& segment, const AdapterModule& module,
                         const PagedImage& image, const Activations& x, HostTensor& y, float* t) {
  const int rank = static_cast<int>(module.rank);
  const int pairs = DivideUp(rank, 2);
  const int k = DivideUp(static_cast<int>(module.d_in), kBlockK) * kBlockK;
  const int panels = DivideUp(static_cast<int>(module.out_cols), kPanel);
  const int task_panels =
      std::max(1, kExpandBytes / (pairs * static_cast<int>(module.b.row_bytes)));
  for (int row = segment.first_row; row < segment.end_row; row += kAdapterRows) {
    const int rows = std::min(kAdapterRows, segment.end_row - row);
    float* row_t = t + int64_t{row - segment.first_row} * 2 * pairs;
    uint64_t offset = module.a.offset;
    for (int first = 0; first < rank; first += kRankGroup) {
      const int ranks = std::min(kRankGroup, rank - first);
      shrinks_.push_back({.x = {Element(x, row), x.stride},
                          .image = image,
                          .offset = offset,
                          .ranks = ranks,
                          .k = k,
                          .rows = rows,
                          .t = row_t + first,
                          .t_stride = 2 * pairs});
      offset += uint64_t(ranks) * uint64_t(k) * sizeof(uint16_t);
    }
    for (int panel = 0; panel < panels; panel += task_panels) {
      const int col = panel * kPanel;
      const int cols = static_cast<int>(module.out_cols) - col;
      expands_.push_back(
          {.t = row_t,
           .t_stride = 2 * pairs,
           .image = image,
           .offset = module.b.offset + uint64_t(panel) * uint64_t(pairs) * module.b.row_bytes,
           .rank_pairs = pairs,
           .cols = std::min(cols, task_panels * kPanel),
           .rows = rows,
           .scale = segment.weight * module.scale,
           .y = y.Row(row) + module.out_begin + col,
           .y_stride = y.stride()});
    }
  }
}

void LinearOp::CutAdapters(const LinearArgs& args, const Activations& x, const PageSlab& slab) {
  shrinks_.clear();
  expands_.clear();
  // Room for all of t first: tasks point into it.
  size_t elements = 0;
  const auto t_elements = [](const AdapterSegment& segment, const AdapterModule& module) {
    return size_t(segment.end_row - segment.first_row) * ((module.rank + 1) / 2 * 2);
  };
  for (const AdapterSegment& segment : args.segments) {
    for (const AdapterModule& module : segment.layout->At(args.site)) {
      elements += t_elements(segment, module);
    }
  }
  if (elements == 0) return;
  auto* t = reinterpret_cast<float*>(Reserve(shrunk_, elements * sizeof(float)));
  for (const AdapterSegment& segment : args.segments) {
    LORAD_CHECK(segment.first_row >= 0 && segment.end_row <= args.rows);
    const PagedImage image = {
        .slab = slab.data, .page_bytes = slab.page_bytes, .pages = segment.pages.data()};
    for (const AdapterModule& module : segment.layout->At(args.site)) {
      LORAD_CHECK(static_cast<int>(module.d_in) == args.w->cols() &&
                  static_cast<int>(module.out_begin + module.out_cols) <= args.w->rows());
      CutModule(segment, module, image, x, Of(*args.y), t);
      t += t_elements(segment, module);
    }
  }
}

void LinearOp::Run(const LinearArgs& args, const PageSlab& slab) {
  const auto& w = static_cast<const PackedMatrix&>(*args.w);
  const HostTensor& x = Of(*args.x);
  HostTensor& y = Of(*args.y);
  LORAD_CHECK(x.cols() == w.cols() && y.cols() == w.rows());
  LORAD_CHECK(args.rows <= x.max_rows() && args.rows <= y.max_rows());
  if (args.rows == 0) return;

  const Activations activations = Convert(x, args.rows);
  CutAdapters(args, activations, slab);
  const Cut cut = CutGemm(args.rows, w.panels());
  auto* scratch = reinterpret_cast<float*>(gemm_scratch_.data());
  const int64_t shrinks = static_cast<int64_t>(shrinks_.size());
  const int64_t tiles = shrinks + cut.tiles();
  pool_.ParallelFor(static_cast<int>(tiles), [&](int i, int thread) {
    // Shrinks spread evenly among the tiles: they wait for memory, and GEMM tiles on other threads
    // do not.
    const auto shrink = i * shrinks / tiles;
    if (shrink != (i + 1) * shrinks / tiles) return kernels_.shrink(shrinks_[size_t(shrink)]);
    // Row groups of the same panels follow each other, while the weights are in a cache.
    const int gemm = i - static_cast<int>(shrink);
    const int column = gemm / cut.row_groups;
    const int row = gemm % cut.row_groups;
    kernels_.gemm({.x = activations,
                   .w = w.data(),
                   .codes = w.codes(),
                   .scales = w.scales(),
                   .bias = w.bias(),
                   .y = y.data(),
                   .y_stride = y.stride(),
                   .k = w.padded_cols(),
                   .accumulate = args.accumulate,
                   .first_panel = column * cut.panels,
                   .end_panel = std::min(w.panels(), (column + 1) * cut.panels),
                   .first_row = args.rows * row / cut.row_groups,
                   .end_row = args.rows * (row + 1) / cut.row_groups,
                   .scratch = scratch + size_t(thread) * size_t(kernels_.gemm_scratch_floats)});
  });
  pool_.ParallelFor(static_cast<int>(expands_.size()),
                    [&](int i, int) { kernels_.expand(expands_[size_t(i)]); });
}

}  // namespace lorad::kernels::cpu
