#include "tests/unit/kernels/cuda/attention_rig.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <random>

#include "kernels/cuda/launch.h"
#include "tests/emulator/launcher.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kLayers = 3;
constexpr int kLayer = 1;
constexpr float kEps = 1e-5f;

uint16_t Bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
double Value(uint16_t bf16) { return std::bit_cast<float>(uint32_t{bf16} << 16); }

// [rows, stride] of a tensor, NaN but for the padding of rows.
template <typename T>
struct DeviceTensor {
  DeviceTensor(int rows, int cols)
      : view{nullptr, cols, PaddedColumns(cols), sizeof(T) == 4},
        values(size_t(rows) * size_t(view.stride) + 128 / sizeof(T), Nan()) {
    auto at = reinterpret_cast<uintptr_t>(values.data());
    view.data = values.data() + (128 - at % 128) % 128 / sizeof(T);
    for (int row = 0; row < rows; ++row) {
      std::fill(At(row) + cols, At(row) + view.stride, T{});
    }
  }
  static T Nan() {
    T nan;
    std::memset(&nan, 0xff, sizeof(T));
    return nan;
  }
  T* At(int row) { return static_cast<T*>(view.data) + size_t(row) * size_t(view.stride); }

  TensorView view;
  std::vector<T> values;
};

// A list with its count, as a step's program lays it out, with room for entries that nobody may
// read.
template <typename T>
struct DeviceList {
  explicit DeviceList(const std::vector<T>& from) : count(int(from.size())), items(from) {
    items.resize(from.size() + 2);
    std::memset(static_cast<void*>(items.data() + from.size()), 0x7f, 2 * sizeof(T));
  }
  ListView<T> view() const { return {&count, items.data()}; }
  int capacity() const { return count == 0 ? 0 : int(items.size()); }
  int count;
  std::vector<T> items;
};

}  // namespace

AttentionRig::AttentionRig(const AttentionProblem& problem)
    : problem_(problem),
      qkv_cols_((problem.shape.heads + 2 * problem.shape.kv_heads) * problem.shape.head_dim),
      pages_(size_t(problem.sequences)),
      length_(size_t(problem.sequences), 0) {
  std::mt19937_64 random(problem.seed);
  std::normal_distribution<float> normal;
  const size_t rows = size_t(problem.sequences) * size_t(problem.positions);
  const int dim = problem.shape.head_dim;
  qkv_.resize(rows * size_t(qkv_cols_));
  for (uint16_t& x : qkv_) {
    const float v = normal(random);
    x = Bf16(problem.grid ? std::round(v * 8) / 8 : v);
  }
  angles_.resize(size_t(problem.positions) * size_t(dim));
  for (int p = 0; p < problem.positions; ++p) {
    for (int i = 0; i < dim / 2; ++i) {
      const double angle = problem.grid ? 0 : p * std::pow(100.0, -2.0 * i / dim);
      angles_[size_t(p * dim + i)] = float(std::cos(angle));
      angles_[size_t(p * dim + i + dim / 2)] = float(std::sin(angle));
    }
  }
  for (int i = 0; i < dim; ++i) {
    q_norm_.push_back(normal(random));
    k_norm_.push_back(normal(random));
  }
  queries_.resize(rows * size_t(problem.shape.heads * dim));
  outputs_.resize(queries_.size());
  computed_.resize(rows);
  const int per_sequence = (problem.positions + problem.page_tokens - 1) / problem.page_tokens;
  free_.resize(size_t(problem.sequences * per_sequence * 2 + 3));
  std::iota(free_.begin(), free_.end(), 0u);
  std::ranges::shuffle(free_, std::mt19937_64(problem.placement));
  slab_.assign(free_.size() * kv().page_bytes + kPageGranule, std::byte{0xff});
}

KvView AttentionRig::kv() {
  const KvGeometry geometry{.layers = kLayers,
                            .kv_heads = problem_.shape.kv_heads,
                            .head_dim = problem_.shape.head_dim,
                            .page_tokens = problem_.page_tokens};
  const auto at = reinterpret_cast<uintptr_t>(slab_.data());
  return {slab_.data() + (kPageGranule - at % kPageGranule) % kPageGranule,
          KvPageBytes(geometry, problem_.format), geometry, problem_.format};
}

uint32_t AttentionRig::TakePage() {
  const uint32_t page = free_.back();
  free_.pop_back();
  return page;
}

void AttentionRig::Step(std::span<const Advance> parts, bool attend, int spare) {
  std::vector<SequenceRows> sequences;
  std::vector<size_t> order;
  std::vector<int> positions;
  for (const Advance& part : parts) {
    auto& pages = pages_[size_t(part.sequence)];
    int& length = length_[size_t(part.sequence)];
    const int end = length + part.tokens;
    while (int(pages.size()) * problem_.page_tokens < end) pages.push_back(TakePage());
    sequences.push_back({int(order.size()), int(order.size()) + part.tokens, length, pages});
    for (; length < end; ++length) {
      order.push_back(Row(part.sequence, length));
      positions.push_back(length);
    }
  }
  const AttentionShape& shape = problem_.shape;
  const int dim = shape.head_dim;
  const int rows = int(order.size());
  const int all = rows + spare;
  DeviceTensor<uint16_t> qkv(all, qkv_cols_);
  DeviceTensor<float> angles(all, dim);
  DeviceTensor<uint16_t> out(all, shape.heads * dim);
  for (int row = 0; row < rows; ++row) {
    std::copy_n(qkv_.begin() + ptrdiff_t(order[size_t(row)]) * qkv_cols_, qkv_cols_, qkv.At(row));
    std::copy_n(angles_.begin() + positions[size_t(row)] * dim, dim, angles.At(row));
  }
  const DeviceFacts device{.multiprocessors = problem_.multiprocessors};
  PlanAttention(sequences, all, shape, problem_.page_tokens, device, &work_);
  emulator::EmulatedLauncher launch(problem_.order_seed);
  LaunchRopeAppend(launch, device,
                   {.rows = all,
                    .layer = kLayer,
                    .shape = shape,
                    .qkv = qkv.view,
                    .angles = angles.view,
                    .q_norm = problem_.norms ? q_norm_.data() : nullptr,
                    .k_norm = problem_.norms ? k_norm_.data() : nullptr,
                    .norm_eps = kEps,
                    .places = work_.places.data(),
                    .kv = kv()});
  const size_t width = size_t(shape.heads * dim);
  for (int row = 0; row < rows; ++row) {
    std::copy_n(qkv.At(row), width, queries_.begin() + ptrdiff_t(order[size_t(row)] * width));
  }
  if (!attend) return;
  const DeviceList<AttentionItem> items(work_.items);
  const DeviceList<AttentionItem> tiles(work_.tiles);
  const DeviceList<MergeItem> merges(work_.merges);
  // new: aligned to 16 bytes, and its ends are known to AddressSanitizer.
  std::vector<float> partials(size_t(work_.partials) * PartialFloats(shape), NAN);
  LaunchAttention(launch, device,
                  {.layer = kLayer,
                   .shape = shape,
                   .qkv = qkv.view,
                   .out = out.view,
                   .pages = work_.pages.data(),
                   .items = items.view(),
                   .item_capacity = items.capacity(),
                   .tiles = tiles.view(),
                   .tile_capacity = tiles.capacity(),
                   .merges = merges.view(),
                   .merge_capacity = merges.capacity(),
                   .partials = partials.data(),
                   .kv = kv()});
  for (int row = 0; row < rows; ++row) {
    std::copy_n(out.At(row), width, outputs_.begin() + ptrdiff_t(order[size_t(row)] * width));
    computed_[order[size_t(row)]] = true;
  }
  for (int row = 0; row < all; ++row) {  // nothing beside the rows' own columns is written
    for (int c = 0; c < out.view.stride; ++c) {
      if (row < rows && c < out.view.cols) continue;
      if (out.At(row)[c] == (c < out.view.cols ? 0xffff : 0)) continue;
      std::fprintf(stderr, "row %d of %d, column %d was written\n", row, rows, c);
      std::abort();
    }
  }
}

void AttentionRig::RunInChunks(int chunk) {
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

void AttentionRig::CopyToFreshPages(int sequence) {
  const KvView view = kv();
  for (uint32_t& page : pages_[size_t(sequence)]) {
    const uint32_t to = TakePage();
    std::memcpy(view.slab + to * view.page_bytes, view.slab + page * view.page_bytes,
                view.page_bytes);
    std::memset(view.slab + page * view.page_bytes, 0xff, view.page_bytes);
    page = to;
  }
}

std::span<const uint16_t> AttentionRig::Output(int sequence, int position) const {
  const size_t width = size_t(problem_.shape.heads * problem_.shape.head_dim);
  return std::span(outputs_).subspan(Row(sequence, position) * width, width);
}

std::vector<double> AttentionRig::Rotated(size_t row, int head) const {
  const int dim = problem_.shape.head_dim;
  const int half = dim / 2;
  const uint16_t* from = qkv_.data() + row * size_t(qkv_cols_) + head * dim;
  std::vector<double> x;
  double squares = 0;
  for (int i = 0; i < dim; ++i) {
    x.push_back(Value(from[i]));
    squares += x.back() * x.back();
  }
  if (problem_.norms) {
    const auto& weight = head < problem_.shape.heads ? q_norm_ : k_norm_;
    const double scale = 1.0 / std::sqrt(squares / dim + double{kEps});
    for (int i = 0; i < dim; ++i) x[size_t(i)] *= scale * double{weight[size_t(i)]};
  }
  const float* angles = angles_.data() + row % size_t(problem_.positions) * size_t(dim);
  std::vector<double> y = x;
  for (int i = 0; i < half; ++i) {
    const double a = x[size_t(i)], b = x[size_t(i + half)];
    const double cosine = angles[i], sine = angles[i + half];
    y[size_t(i)] = a * cosine - b * sine;
    y[size_t(i + half)] = b * cosine + a * sine;
  }
  return y;
}

namespace {

class Sums {
 public:
  void Add(double got, double want) {
    // NaN must not get lost in a maximum.
    const double error = std::isnan(got) ? INFINITY : std::abs(got - want);
    errors_ += error * error;
    wants_ += want * want;
    highest_ = std::max(highest_, error);
    ++count_;
  }
  AttentionRig::Deviation Get() const {
    if (wants_ == 0) return {INFINITY, INFINITY};
    return {std::sqrt(errors_ / wants_), highest_ / std::sqrt(wants_ / double(count_))};
  }

 private:
  double errors_ = 0, wants_ = 0, highest_ = 0;
  int64_t count_ = 0;
};

}  // namespace

AttentionRig::Deviation AttentionRig::OfQueries() const {
  Sums sums;
  const int dim = problem_.shape.head_dim;
  for (int s = 0; s < problem_.sequences; ++s) {
    for (int p = 0; p < length_[size_t(s)]; ++p) {
      for (int h = 0; h < problem_.shape.heads; ++h) {
        const auto want = Rotated(Row(s, p), h);
        for (int i = 0; i < dim; ++i) {
          const size_t at = (Row(s, p) * size_t(problem_.shape.heads) + size_t(h)) * size_t(dim);
          sums.Add(Value(queries_[at + size_t(i)]), want[size_t(i)]);
        }
      }
    }
  }
  return sums.Get();
}

AttentionRig::Deviation AttentionRig::OfOutputs() const {
  const AttentionShape& shape = problem_.shape;
  const int group = shape.heads / shape.kv_heads;
  const size_t dim = size_t(shape.head_dim);
  Sums sums;
  for (int s = 0; s < problem_.sequences; ++s) {
    for (int kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
      std::vector<std::vector<double>> keys, values;
      for (int p = 0; p < length_[size_t(s)]; ++p) {
        keys.push_back(Rotated(Row(s, p), shape.heads + kv_head));
        if (problem_.format == KvFormat::kBf16) {
          for (double& x : keys.back()) x = Value(Bf16(float(x)));
        }
        const uint16_t* from = qkv_.data() + Row(s, p) * size_t(qkv_cols_) +
                               size_t(shape.heads + shape.kv_heads + kv_head) * dim;
        values.emplace_back();
        for (size_t i = 0; i < dim; ++i) values.back().push_back(Value(from[i]));
      }
      for (int p = 0; p < length_[size_t(s)]; ++p) {
        if (!computed_[Row(s, p)]) continue;
        const int first = shape.window > 0 ? std::max(0, p - shape.window + 1) : 0;
        for (int h = kv_head * group; h < (kv_head + 1) * group; ++h) {
          const size_t at = (Row(s, p) * size_t(shape.heads) + size_t(h)) * dim;
          std::vector<double> scores;
          for (int k = first; k <= p; ++k) {
            double dot = 0;
            for (size_t i = 0; i < dim; ++i) dot += Value(queries_[at + i]) * keys[size_t(k)][i];
            scores.push_back(dot * double{shape.scale});
          }
          const double top = *std::ranges::max_element(scores);
          double total = 0;
          std::vector<double> want(dim);
          for (int k = first; k <= p; ++k) {
            const double weight = std::exp(scores[size_t(k - first)] - top);
            total += weight;
            for (size_t i = 0; i < dim; ++i) want[i] += weight * values[size_t(k)][i];
          }
          for (size_t i = 0; i < dim; ++i) sums.Add(Value(outputs_[at + i]), want[i] / total);
        }
      }
    }
  }
  return sums.Get();
}

}  // namespace lorad::kernels::cuda
