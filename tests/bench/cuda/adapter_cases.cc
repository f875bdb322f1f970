// Shrink and expand of each site with D distinct adapters of one rank, one row each, and prefill
// with one adapter; of gate and up also with the activation that follows, as a kernel of its own
// and fused. Several sets of adapters rotate so that each call reads cold memory.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "fmt/format.h"
#include "kernels/cuda/adapter_ops.h"
#include "kernels/cuda/row_ops.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/values.h"

namespace lorad::bench {
namespace {

using kernels::AdapterLayout;
using kernels::AdapterSegment;
using kernels::DType;
using kernels::LowRankFactors;

constexpr uint32_t kInputSeed = 21;
constexpr uint32_t kFactorSeed = 22;
constexpr uint32_t kBeforeSeed = 23;
constexpr float kScale = 0.5f;

struct Module {
  int out_begin;
  int out_cols;
};
struct Site {
  std::string_view name;
  int inputs;
  int outputs;
  std::vector<Module> modules;
};

std::vector<Site> Sites(const ModelShape& s) {
  const int q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  return {{"qkv", s.hidden, q + 2 * kv, {{0, q}, {q, kv}, {q + kv, kv}}},
          {"output", q, s.hidden, {{0, s.hidden}}},
          {"gate_up", s.hidden, 2 * s.ffn, {{0, s.ffn}, {s.ffn, s.ffn}}},
          {"down", s.ffn, s.hidden, {{0, s.hidden}}}};
}

// An adapter of one site, packed once; every adapter of a case has these numbers, in other pages.
class Image {
 public:
  Image(const Site& site, int rank, size_t page_bytes) : site_(site), rank_(rank) {
    std::vector<std::vector<float>> values;
    for (size_t m = 0; m < site.modules.size(); ++m) {
      values.push_back(Values(uint32_t(2 * m), int64_t{rank} * site.inputs));
      values.push_back(Values(uint32_t(2 * m + 1), int64_t{site.modules[m].out_cols} * rank));
    }
    std::vector<LowRankFactors> factors;
    for (size_t m = 0; m < site.modules.size(); ++m) {
      factors.push_back(
          {.site = 0,
           .out_begin = uint32_t(site.modules[m].out_begin),
           .scale = kScale,
           .a = {DType::kF32, values[2 * m].data(), rank, site.inputs},
           .b = {DType::kF32, values[2 * m + 1].data(), site.modules[m].out_cols, rank}});
    }
    layout_ = kernels::cuda::PlanAdapterImage(factors, 1, page_bytes);
    bytes_.resize(size_t{layout_.pages} * page_bytes);
    kernels::cuda::PackAdapterImage(layout_, factors, page_bytes, bytes_);
  }

  const AdapterLayout& layout() const { return layout_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  // What must move for one adapter.
  double WeightBytes() const {
    double bytes = 0;
    for (const Module& m : site_.modules) bytes += 2.0 * rank_ * (site_.inputs + m.out_cols);
    return bytes;
  }
  // What the adapter adds to a row, and by how much rounding v to bf16 may change it.
  std::vector<float> Added(int row) const {
    std::vector<float> out(size_t(site_.outputs), 0.0f);
    for (size_t m = 0; m < site_.modules.size(); ++m) {
      for (int r = 0; r < rank_; ++r) {
        double v = 0;
        for (int k = 0; k < site_.inputs; ++k) {
          v += double{ValueAt(kInputSeed, uint64_t(row) * uint64_t(site_.inputs) + uint64_t(k))} *
               double{Factor(uint32_t(2 * m), int64_t{r} * site_.inputs + k)};
        }
        for (int n = 0; n < site_.modules[m].out_cols; ++n) {
          out[size_t(site_.modules[m].out_begin + n)] += static_cast<float>(
              double{kScale} * v * double{Factor(uint32_t(2 * m + 1), int64_t{n} * rank_ + r)});
        }
      }
    }
    return out;
  }

 private:
  static float Factor(uint32_t matrix, int64_t index) {
    return ValueAt(kFactorSeed + matrix, uint64_t(index));
  }
  static std::vector<float> Values(uint32_t matrix, int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) values[size_t(i)] = Factor(matrix, i);
    return values;
  }

  const Site site_;
  const int rank_;
  AdapterLayout layout_;
  std::vector<std::byte> bytes_;
};

struct Setting {
  int adapters;
  int rows_each;
  int rank;
};

// What follows the expansion of gate and up.
enum class Activation { kNone, kApart, kFused };

// [ffn] for a row of gate and up.
std::vector<float> Activated(const std::vector<float>& gate_up) {
  std::vector<float> out(gate_up.size() / 2);
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = gate_up[i] / (1.0f + std::exp(-gate_up[i])) * gate_up[out.size() + i];
  }
  return out;
}

void AddSite(Cases& cases, const Site& site, const Setting& setting,
             Activation activation = Activation::kNone) {
  BenchDevice& device = cases.device();
  constexpr std::string_view kSuffix[] = {"", " then swiglu", " with swiglu"};
  const std::string name =
      fmt::format("{}{} rank {} adapters {} rows {}", site.name, kSuffix[size_t(activation)],
                  setting.rank, setting.adapters, setting.adapters * setting.rows_each);
  if (!cases.Wanted("adapter", name)) return;
  const size_t page_bytes = device.smoke() ? 8192 : size_t{2} << 20;
  const Image image(site, setting.rank, page_bytes);
  const double set_bytes = image.WeightBytes() * setting.adapters;
  const int sets =
      device.smoke() ? 2 : static_cast<int>(std::clamp(256e6 / set_bytes + 1, 2.0, 64.0));
  const int images = sets * setting.adapters;
  const uint32_t pages_each = image.layout().pages;

  // Every image in pages of its own, the pages of one image far apart.
  const DeviceBytes slab = device.Allocate(size_t{pages_each} * size_t(images) * page_bytes);
  const DeviceBytes packed = device.Upload(image.bytes().data(), image.bytes().size());
  std::vector<std::vector<uint32_t>> pages(static_cast<size_t>(images));
  for (int i = 0; i < images; ++i) {
    for (uint32_t p = 0; p < pages_each; ++p) {
      const uint32_t page = p * uint32_t(images) + uint32_t(i);
      pages[size_t(i)].push_back(page);
      device.Copy(slab.data() + size_t{page} * page_bytes, packed.data() + size_t{p} * page_bytes,
                  page_bytes);
    }
  }
  const int rows = setting.adapters * setting.rows_each;
  const DeviceTensor x = device.RandomTensor(kInputSeed, rows, site.inputs);
  const bool activates = activation != Activation::kNone;
  const DeviceTensor y = activates ? device.RandomTensor(kBeforeSeed, rows, site.outputs)
                                   : device.ZeroTensor(rows, site.outputs, /*full=*/true);
  const int ffn = site.outputs / 2;
  const DeviceTensor out = device.ZeroTensor(activates ? rows : 1, ffn);

  struct Set {
    DeviceBytes entries, pages;
    DeviceList<kernels::cuda::ShrinkItem> shrink_few, shrink_many;
    DeviceList<kernels::cuda::ExpandItem> expand_few, expand_many;
    DeviceList<kernels::cuda::SwiGluItem> swiglu_few, swiglu_many;
  };
  std::vector<Set> lists;
  size_t scratch_floats = 1;
  for (int set = 0; set < sets; ++set) {
    std::vector<AdapterSegment> segments;
    for (int a = 0; a < setting.adapters; ++a) {
      segments.push_back({.first_row = a * setting.rows_each,
                          .end_row = (a + 1) * setting.rows_each,
                          .layout = &image.layout(),
                          .pages = pages[size_t(set * setting.adapters + a)]});
    }
    kernels::cuda::AdapterWork work;
    work.Begin(segments, device.facts());
    const kernels::cuda::SiteWork& site_work = work.At(0);
    scratch_floats = std::max(scratch_floats, work.scratch_floats());
    using kernels::cuda::ExpandItem;
    using kernels::cuda::SegmentEntry;
    using kernels::cuda::ShrinkItem;
    using kernels::cuda::SwiGluItem;
    const kernels::cuda::SwiGluWork none;
    const kernels::cuda::SwiGluWork& swiglu =
        activation == Activation::kFused ? *work.SwiGlu(0, rows, ffn) : none;
    lists.push_back(
        {.entries = device.Upload(std::span<const SegmentEntry>(work.entries())),
         .pages = device.Upload(std::span<const uint32_t>(work.pages())),
         .shrink_few = device.UploadList(std::span<const ShrinkItem>(site_work.shrink_few)),
         .shrink_many = device.UploadList(std::span<const ShrinkItem>(site_work.shrink_many)),
         .expand_few = device.UploadList(std::span<const ExpandItem>(site_work.expand_few)),
         .expand_many = device.UploadList(std::span<const ExpandItem>(site_work.expand_many)),
         .swiglu_few = device.UploadList(std::span<const SwiGluItem>(swiglu.few)),
         .swiglu_many = device.UploadList(std::span<const SwiGluItem>(swiglu.many))});
  }
  const DeviceBytes scratch = device.Allocate(scratch_floats * sizeof(float));
  const auto run = [&](kernels::cuda::Launcher& launch, int i) {
    const Set& set = lists[size_t(i % sets)];
    const kernels::cuda::AdapterParams params{
        .site = 0,
        .slab = slab.data(),
        .page_bytes = page_bytes,
        .entries = set.entries.As<kernels::cuda::SegmentEntry>(),
        .pages = set.pages.As<uint32_t>(),
        .scratch = scratch.As<float>()};
    const auto& facts = device.facts();
    for (const bool many : {false, true}) {
      const auto& shrink = many ? set.shrink_many : set.shrink_few;
      const auto& expand = many ? set.expand_many : set.expand_few;
      const auto& swiglu = many ? set.swiglu_many : set.swiglu_few;
      if (shrink.size == 0) continue;
      LaunchShrink(launch, facts, params, x.view, shrink.view, shrink.size, many);
      if (activation == Activation::kFused) {
        LaunchExpandSwiGlu(launch, facts, params, y.view, out.view, swiglu.view, swiglu.size, many);
      } else {
        LaunchExpand(launch, facts, params, y.view, expand.view, expand.size, many);
      }
    }
    if (activation == Activation::kApart) {
      kernels::cuda::LaunchSwiGlu(launch, rows, y.view, out.view);
    }
  };
  std::vector<float> want = device.Read(y, rows - 1);
  const std::vector<float> added = image.Added(rows - 1);
  for (size_t i = 0; i < want.size(); ++i) want[i] += added[i];
  if (activates) want = Activated(want);
  run(device.launcher(), 0);
  CaseResult result{.group = "adapter", .name = name};
  result.wrong = Differs(device.Read(activates ? out : y, rows - 1), want, 0.02);
  if (result.wrong.empty()) {
    result.seconds = device.Seconds(sets, run);
    result.bytes = set_bytes + (activates ? 6.0 * rows * ffn : 0.0);
    result.flops = double(rows) * image.WeightBytes();
  }
  cases.Add(std::move(result));
}

}  // namespace

void AddAdapterCases(Cases& cases) {
  const bool smoke = cases.device().smoke();
  const std::vector<int> counts = smoke ? std::vector<int>{1, 3} : std::vector<int>{1, 8, 32, 128};
  const std::vector<int> ranks = smoke ? std::vector<int>{4, 20} : std::vector<int>{8, 16, 64, 128};
  const Setting one_prompt{1, smoke ? 70 : 2048, 16};
  const Setting prompts{smoke ? 2 : 8, smoke ? 20 : 256, 64};
  for (const Site& site : Sites(cases.shape())) {
    for (const int rank : ranks) {
      for (const int count : counts) AddSite(cases, site, {count, 1, rank});
    }
    AddSite(cases, site, one_prompt);
    AddSite(cases, site, prompts);
    if (site.name != "gate_up") continue;
    for (const Activation activation : {Activation::kApart, Activation::kFused}) {
      for (const int count : counts) AddSite(cases, site, {count, 1, 16}, activation);
      AddSite(cases, site, one_prompt, activation);
      AddSite(cases, site, prompts, activation);
    }
  }
}

}  // namespace lorad::bench
