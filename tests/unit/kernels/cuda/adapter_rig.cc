#include "tests/unit/kernels/cuda/adapter_rig.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <random>

#include "kernels/cpu/bf16.h"
#include "kernels/cuda/row_ops.h"
#include "tests/emulator/launcher.h"

namespace lorad::kernels::cuda {
namespace {

using cpu::Bf16OfFloat;
using cpu::FloatOfBf16;

std::vector<float> Values(Numbers numbers, size_t count, uint64_t seed, int most, float deviation) {
  std::mt19937_64 random(seed * 7919 + 17);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::uniform_int_distribution<int> whole(-most, most);
  std::vector<float> values(count);
  for (float& v : values) {
    v = numbers == Numbers::kGrid ? static_cast<float>(whole(random))
                                  : FloatOfBf16(Bf16OfFloat(normal(random)));
  }
  return values;
}

// The same values in a file's element type, off any alignment.
std::vector<std::byte> FileOf(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> file(1 + values.size() * SizeOf(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    std::byte* to = file.data() + 1 + i * SizeOf(dtype);
    const uint16_t bf16 = Bf16OfFloat(values[i]);
    if (dtype == DType::kF32) {
      std::memcpy(to, &values[i], 4);
    } else {
      std::memcpy(to, &bf16, 2);
    }
  }
  return file;
}

// Memory for a kernel, exactly as long as `values`.
template <typename T>
class Device {
 public:
  explicit Device(const std::vector<T>& values) : size_(values.size()) {
    data_ = static_cast<T*>(::operator new(size_ * sizeof(T) + 1, kAlign));
    if (size_ > 0) std::memcpy(data_, values.data(), size_ * sizeof(T));
  }
  ~Device() { ::operator delete(data_, kAlign); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  T* data() { return data_; }

 private:
  static constexpr std::align_val_t kAlign{256};
  size_t size_;
  T* data_;
};

template <typename Item>
class List {
 public:
  // Longer than it says: what is behind the end must not be read as an item.
  explicit List(const std::vector<Item>& items)
      : count_({static_cast<int>(items.size())}), items_(Longer(items)) {}
  ListView<Item> view() { return {count_.data(), items_.data()}; }

 private:
  static std::vector<Item> Longer(std::vector<Item> items) {
    Item wild;
    std::memset(static_cast<void*>(&wild), 0xff, sizeof(wild));
    items.resize(items.size() + 3, wild);
    return items;
  }
  Device<int> count_;
  Device<Item> items_;
};

}  // namespace

AdapterRig::AdapterRig(const AdapterProblem& problem) : problem_(problem) {
  uint64_t seed = problem.seed * 1000;
  uint32_t total = 5;
  std::vector<std::vector<std::byte>> images;
  for (const auto& modules : problem.adapters) {
    auto& adapter = *adapters_.emplace_back(std::make_unique<Adapter>());
    std::vector<LowRankFactors> factors;
    adapter.files.reserve(2 * modules.size());
    for (const ModuleShape& m : modules) {
      const int d_in = m.d_in > 0 ? m.d_in : problem.inputs;
      // Few of A are not zero on the grid, so that v has at most eight bits.
      adapter.a.push_back(Values(problem.numbers, size_t(m.rank) * size_t(d_in), ++seed, 1,
                                 1.0f / std::sqrt(static_cast<float>(d_in))));
      if (problem.numbers == Numbers::kGrid && d_in > 256) {
        std::mt19937_64 random(seed);
        for (float& v : adapter.a.back()) {
          if (int64_t(random() % uint64_t(d_in)) >= 256) v = 0;
        }
      }
      adapter.b.push_back(
          Values(problem.numbers, size_t(m.out_cols) * size_t(m.rank), ++seed, 2, 0.5f));
      LowRankFactors f{.site = m.site, .out_begin = m.out_begin, .scale = m.scale};
      adapter.files.push_back(FileOf(adapter.a.back(), problem.dtype));
      f.a = {problem.dtype, adapter.files.back().data() + 1, m.rank, d_in};
      adapter.files.push_back(FileOf(adapter.b.back(), problem.dtype));
      f.b = {problem.dtype, adapter.files.back().data() + 1, m.out_cols, m.rank};
      factors.push_back(f);
    }
    adapter.layout = PlanAdapterImage(factors, problem.sites, problem.page_bytes);
    auto& image = images.emplace_back(size_t{adapter.layout.pages} * problem.page_bytes);
    PackAdapterImage(adapter.layout, factors, problem.page_bytes, image);
    std::ranges::fill(std::span(image).subspan(adapter.layout.image_bytes), std::byte{0xff});
    total += adapter.layout.pages;
  }
  std::vector<uint32_t> free(total);
  for (uint32_t i = 0; i < total; ++i) free[i] = i;
  std::mt19937_64 random(problem.seed);
  std::shuffle(free.begin(), free.end(), random);
  slab_memory_.resize((total + 1) * problem.page_bytes + kPageGranule, std::byte{0xff});
  const auto address = reinterpret_cast<uintptr_t>(slab_memory_.data());
  slab_ = slab_memory_.data() + (kPageGranule - address % kPageGranule) % kPageGranule;
  for (size_t i = 0; i < adapters_.size(); ++i) {
    for (uint32_t page = 0; page < adapters_[i]->layout.pages; ++page) {
      adapters_[i]->pages.push_back(free.back());
      free.pop_back();
      std::memcpy(slab_ + size_t{adapters_[i]->pages.back()} * problem.page_bytes,
                  images[i].data() + page * problem.page_bytes, problem.page_bytes);
    }
  }
}

std::vector<float> AdapterRig::X(int input) const {
  std::vector<float> x = Values(problem_.numbers, size_t(problem_.inputs),
                                problem_.seed * 100003 + uint64_t(input), 1, 1.0f);
  x.resize(size_t(PaddedColumns(problem_.inputs)), 0.0f);
  return x;
}

std::vector<float> AdapterRig::Before(int input) const {
  std::vector<float> y = Values(problem_.numbers, size_t(problem_.outputs),
                                problem_.seed * 200003 + uint64_t(input), 8, 1.0f);
  // Adding nothing must not change even a zero's sign.
  for (size_t i = size_t(input) % 7; i < y.size(); i += 7) y[i] = -0.0f;
  y.resize(size_t(PaddedColumns(problem_.outputs)), 0.0f);
  return y;
}

struct AdapterRig::Batch {
  Batch(const AdapterRig& rig, uint32_t site, std::span<const Rows> runs, uint64_t order_seed);

  void Shrink() {
    const SiteWork& site = work.At(params.site);
    for (const bool many : {false, true}) {
      const auto& items = many ? site.shrink_many : site.shrink_few;
      List<ShrinkItem> list(items);
      LaunchShrink(launch, facts, params, x_view, list.view(), int(items.size()) + 3, many);
    }
  }
  void Expand() {
    const SiteWork& site = work.At(params.site);
    for (const bool many : {false, true}) {
      const auto& items = many ? site.expand_many : site.expand_few;
      List<ExpandItem> list(items);
      LaunchExpand(launch, facts, params, y_view, list.view(), int(items.size()) + 3, many);
    }
  }
  static Result Read(const TensorView& view, int rows) {
    Result result{.stride = view.stride, .y = {}, .bits = {}};
    for (size_t i = 0; i < size_t(rows) * size_t(view.stride); ++i) {
      const float value = view.full ? static_cast<const float*>(view.data)[i]
                                    : FloatOfBf16(static_cast<const uint16_t*>(view.data)[i]);
      result.y.push_back(value);
      result.bits.push_back(std::bit_cast<uint32_t>(value));
    }
    return result;
  }

  int rows = 0;
  std::vector<AdapterSegment> segments;
  DeviceFacts facts;
  AdapterWork work;
  std::unique_ptr<Device<uint16_t>> x, y_bf16;
  std::unique_ptr<Device<float>> y_full, scratch;
  std::unique_ptr<Device<SegmentEntry>> entries;
  std::unique_ptr<Device<uint32_t>> pages;
  TensorView x_view, y_view;
  AdapterParams params;
  emulator::EmulatedLauncher launch;
};

AdapterRig::Batch::Batch(const AdapterRig& rig, uint32_t site, std::span<const Rows> runs,
                         uint64_t order_seed)
    : launch(order_seed) {
  const AdapterProblem& problem = rig.problem_;
  std::vector<uint16_t> x_values, y_values;
  std::vector<float> y_floats;
  for (const Rows& run : runs) {
    for (int i = 0; i < run.rows; ++i) {
      for (const float v : rig.X(run.first_input + i)) x_values.push_back(Bf16OfFloat(v));
      for (const float v : rig.Before(run.first_input + i)) {
        y_floats.push_back(v);
        y_values.push_back(Bf16OfFloat(v));
      }
    }
    if (run.adapter >= 0) {
      const Adapter& adapter = *rig.adapters_[size_t(run.adapter)];
      segments.push_back({.first_row = rows,
                          .end_row = rows + run.rows,
                          .layout = &adapter.layout,
                          .pages = adapter.pages,
                          .weight = run.weight});
    }
    rows += run.rows;
  }
  facts.multiprocessors = problem.multiprocessors;
  work.Begin(segments, facts);
  work.At(site);
  x = std::make_unique<Device<uint16_t>>(x_values);
  y_bf16 = std::make_unique<Device<uint16_t>>(y_values);
  y_full = std::make_unique<Device<float>>(y_floats);
  entries = std::make_unique<Device<SegmentEntry>>(work.entries());
  pages = std::make_unique<Device<uint32_t>>(work.pages());
  scratch = std::make_unique<Device<float>>(
      std::vector<float>(work.scratch_floats(), std::numeric_limits<float>::quiet_NaN()));
  x_view = {x->data(), problem.inputs, PaddedColumns(problem.inputs), false};
  y_view = {y_bf16->data(), problem.outputs, PaddedColumns(problem.outputs), false};
  if (problem.full) {
    y_view.data = y_full->data();
    y_view.full = true;
  }
  params = {.site = site,
            .slab = rig.slab_,
            .page_bytes = problem.page_bytes,
            .entries = entries->data(),
            .pages = pages->data(),
            .scratch = scratch->data()};
}

AdapterRig::Result AdapterRig::Step(uint32_t site, std::span<const Rows> runs,
                                    uint64_t order_seed) const {
  Batch batch(*this, site, runs, order_seed);
  batch.Shrink();
  batch.Expand();
  return Batch::Read(batch.y_view, batch.rows);
}

AdapterRig::Result AdapterRig::SwiGlu(uint32_t site, std::span<const Rows> runs, bool fused,
                                      uint64_t order_seed) const {
  Batch batch(*this, site, runs, order_seed);
  const int ffn = problem_.outputs / 2;
  const int stride = PaddedColumns(ffn);
  std::vector<uint16_t> out_values(size_t(batch.rows) * size_t(stride), uint16_t{0xffff});
  for (size_t i = 0; i < out_values.size(); ++i) {
    if (int(i % size_t(stride)) >= ffn) out_values[i] = 0;
  }
  Device<uint16_t> out(out_values);
  const TensorView out_view{out.data(), ffn, stride, false};
  batch.Shrink();
  if (!fused) {
    batch.Expand();
    LaunchSwiGlu(batch.launch, batch.rows, batch.y_view, out_view);
    return Batch::Read(out_view, batch.rows);
  }
  const Result before = Batch::Read(batch.y_view, batch.rows);
  const SwiGluWork* work = batch.work.SwiGlu(site, batch.rows, ffn);
  if (work == nullptr) return {};
  for (const bool many : {false, true}) {
    const auto& items = many ? work->many : work->few;
    List<SwiGluItem> list(items);
    LaunchExpandSwiGlu(batch.launch, batch.facts, batch.params, batch.y_view, out_view, list.view(),
                       int(items.size()) + 3, many);
  }
  if (Batch::Read(batch.y_view, batch.rows).bits != before.bits) return {};
  return Batch::Read(out_view, batch.rows);
}

AdapterRig::Exact AdapterRig::Expected(uint32_t site, int adapter, float weight, int input) const {
  const std::vector<float> x = X(input);
  const std::vector<float> before = Before(input);
  Exact exact{std::vector<double>(before.begin(), before.end()),
              std::vector<double>(before.size(), 0.0)};
  if (adapter < 0) return exact;
  const auto& shapes = problem_.adapters[size_t(adapter)];
  for (size_t m = 0; m < shapes.size(); ++m) {
    const ModuleShape& shape = shapes[m];
    if (shape.site != site) continue;
    const int d_in = shape.d_in > 0 ? shape.d_in : problem_.inputs;
    const std::vector<float>& a = adapters_[size_t(adapter)]->a[m];
    const std::vector<float>& b = adapters_[size_t(adapter)]->b[m];
    for (int r = 0; r < shape.rank; ++r) {
      double v = 0;
      for (int k = 0; k < d_in; ++k) {
        v += double{a[size_t(r) * size_t(d_in) + size_t(k)]} * double{x[size_t(k)]};
      }
      v *= double{weight} * double{shape.scale};
      for (int n = 0; n < shape.out_cols; ++n) {
        const double add = v * double{b[size_t(n) * size_t(shape.rank) + size_t(r)]};
        exact.y[shape.out_begin + size_t(n)] += add;
        exact.added[shape.out_begin + size_t(n)] += std::abs(add);
      }
    }
  }
  return exact;
}

}  // namespace lorad::kernels::cuda
