#include "tests/unit/kernels/attention_case.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace lorad::kernels::conformance {
namespace {

constexpr int kLayers = 3;
constexpr int kLayer = 1;

}  // namespace

RigOptions AttentionCase::Options(std::string backend, int threads, uint64_t placement) const {
  const int per_sequence = (positions + page_tokens - 1) / page_tokens;
  return {.backend = std::move(backend),
          .threads = threads,
          .pages = uint32_t(sequences * per_sequence + 3),
          .kv = {.layers = kLayers,
                 .kv_heads = shape.kv_heads,
                 .head_dim = shape.head_dim,
                 .page_tokens = page_tokens},
          .placement = placement};
}

RunningAttention::RunningAttention(Rig& rig, const AttentionCase& problem)
    : rig_(rig),
      problem_(problem),
      qkv_(Make(problem.values, problem.seed, problem.sequences * problem.positions,
                problem.qkv_cols())),
      pages_(size_t(problem.sequences)),
      length_(size_t(problem.sequences), 0),
      outputs_(problem.sequences * problem.positions, problem.out_cols()),
      queries_(problem.sequences * problem.positions, problem.out_cols()) {
  const int dim = problem.shape.head_dim;
  std::vector<float> inv_freq;
  for (int i = 0; i < dim / 2; ++i) {
    inv_freq.push_back(problem.rotate ? std::pow(10000.0f, -2.0f * float(i) / float(dim)) : 0.0f);
  }
  inv_freq_ = rig.backend().NewVector(inv_freq);
  if (problem.head_norms) {
    q_norm_ = rig.backend().NewVector(Make(Values::kDense, 91, 1, dim).values);
    k_norm_ = rig.backend().NewVector(Make(Values::kDense, 92, 1, dim).values);
  }
}

void RunningAttention::Step(std::span<const Advance> parts, bool attend) {
  std::vector<SequenceRows> sequences;
  std::vector<int> order;  // row of qkv_ of each row of the step
  std::vector<int32_t> positions;
  for (const Advance& part : parts) {
    auto& pages = pages_[size_t(part.sequence)];
    int& length = length_[size_t(part.sequence)];
    const size_t needed =
        size_t((length + part.tokens + problem_.page_tokens - 1) / problem_.page_tokens);
    while (pages.size() < needed) pages.push_back(rig_.TakePages(1)[0]);
    sequences.push_back({.first_row = int(order.size()),
                         .end_row = int(order.size()) + part.tokens,
                         .first_position = length,
                         .kv_pages = pages});
    for (int i = 0; i < part.tokens; ++i, ++length) {
      order.push_back(part.sequence * problem_.positions + length);
      positions.push_back(length);
    }
  }
  const int rows = int(order.size());
  const auto qkv = rig_.Upload(Pick(qkv_, order), 2);
  const auto angles = rig_.backend().NewTensor(rows + 1, problem_.shape.head_dim, Precision::kFull);
  const auto out = rig_.backend().NewTensor(rows + 2, problem_.out_cols());
  rig_.backend().RopeAngles(positions, *inv_freq_, *angles);
  rig_.backend().RopeAppend({.rows = rows,
                             .layer = kLayer,
                             .shape = problem_.shape,
                             .qkv = qkv.get(),
                             .angles = angles.get(),
                             .q_norm = q_norm_.get(),
                             .k_norm = k_norm_.get(),
                             .norm_eps = 1e-5f,
                             .sequences = sequences});
  const Rows rotated = rig_.Download(*qkv, rows);
  for (int row = 0; row < rows; ++row) {
    std::ranges::copy(rotated.At(row).first(size_t(problem_.out_cols())),
                      queries_.At(order[size_t(row)]).begin());
  }
  if (!attend) return;
  rig_.backend().Attention({.rows = rows,
                            .layer = kLayer,
                            .shape = problem_.shape,
                            .qkv = qkv.get(),
                            .out = out.get(),
                            .sequences = sequences});
  const Rows attended = rig_.Download(*out, rows);
  for (int row = 0; row < rows; ++row) {
    std::ranges::copy(attended.At(row), outputs_.At(order[size_t(row)]).begin());
    attended_.push_back(order[size_t(row)]);
  }
}

void RunningAttention::CopyToFreshPages(int sequence) {
  std::vector<PageCopy> copies;
  for (uint32_t& page : pages_[size_t(sequence)]) {
    copies.push_back({.from = page, .to = rig_.TakePages(1)[0]});
    page = copies.back().to;
  }
  rig_.backend().CopyPages(copies);
  std::vector<uint32_t> left;
  for (const PageCopy& copy : copies) left.push_back(copy.from);
  rig_.backend().PoisonPages(left);
}

void RunningAttention::RunInChunks(int chunk) {
  std::vector<Advance> parts(1);
  while (!parts.empty()) {
    parts.clear();
    for (int s = 0; s < problem_.sequences; ++s) {
      const int left = problem_.positions - length_[size_t(s)];
      if (left > 0) parts.push_back({s, std::min(left, chunk)});
    }
    if (!parts.empty()) Step(parts);
  }
}

Rows RunAttention(const RigOptions& options, const AttentionCase& problem, int chunk) {
  Rig rig(options);
  RunningAttention running(rig, problem);
  running.RunInChunks(chunk);
  return running.outputs();
}

}  // namespace lorad::kernels::conformance
