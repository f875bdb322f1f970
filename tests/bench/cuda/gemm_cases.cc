// The base model's linear layers, every format, few and many rows. Weights rotate so that each call
// reads memory that is in no cache, as a decode step over many layers does.
#include <algorithm>
#include <string_view>

#include "fmt/format.h"
#include "kernels/cuda/dense_ops.h"
#include "kernels/quantise.h"
#include "tests/bench/cuda/calibration.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/values.h"

namespace lorad::bench {
namespace {

using kernels::DType;
using kernels::WeightFormat;
using kernels::cuda::WeightsView;

constexpr uint32_t kWeightSeed = 11;
constexpr uint32_t kInputSeed = 12;
constexpr size_t kColdBytes = size_t{256} << 20;

struct Layer {
  std::string_view name;
  int outputs;
  int inputs;
};

// Some copies of one matrix in device memory.
struct Weights {
  std::vector<DeviceBytes> data;
  DeviceBytes scales;
  WeightsView view;  // of copy 0
  double bytes = 0;

  WeightsView Copy(int i) const {
    WeightsView copy = view;
    copy.data = data[size_t(i) % data.size()].data();
    return copy;
  }
};

Weights MakeWeights(BenchDevice& device, const Layer& layer, WeightFormat format) {
  Weights out;
  std::vector<uint16_t> host(size_t(layer.outputs) * size_t(layer.inputs));
  for (size_t i = 0; i < host.size(); ++i) {
    const float value = ValueAt(kWeightSeed, i);
    uint32_t bits = 0;
    std::copy_n(reinterpret_cast<const std::byte*>(&value), 4, reinterpret_cast<std::byte*>(&bits));
    host[i] = static_cast<uint16_t>(bits >> 16);
  }
  const kernels::HostMatrix matrix{DType::kBF16, host.data(), layer.outputs, layer.inputs};
  const auto packed = kernels::cuda::PackWeights({&matrix, 1}, format);
  out.bytes = double(packed.data.size() + packed.scales.size() * sizeof(float));
  const int copies =
      device.smoke()
          ? 2
          : static_cast<int>(std::clamp<size_t>(kColdBytes / packed.data.size() + 1, 2, 16));
  for (int i = 0; i < copies; ++i) {
    out.data.push_back(device.Upload(packed.data.data(), packed.data.size()));
  }
  out.scales = device.Upload(std::span<const float>(packed.scales));
  out.view = {.format = format,
              .data = out.data[0].data(),
              .scales = packed.scales.empty() ? nullptr : out.scales.As<float>(),
              .bias = nullptr,
              .rows = packed.rows,
              .cols = packed.cols,
              .stride = packed.stride};
  return out;
}

// The outputs of one row, from exact inputs and the weights before they were quantised.
std::vector<float> WantedRow(const Layer& layer, int row) {
  std::vector<float> want(size_t(layer.outputs));
  for (int n = 0; n < layer.outputs; ++n) {
    double sum = 0;
    for (int k = 0; k < layer.inputs; ++k) {
      sum += double{ValueAt(kInputSeed, uint64_t(row) * uint64_t(layer.inputs) + uint64_t(k))} *
             double{ValueAt(kWeightSeed, uint64_t(n) * uint64_t(layer.inputs) + uint64_t(k))};
    }
    want[size_t(n)] = static_cast<float>(sum);
  }
  return want;
}

double Tolerance(WeightFormat format) {
  switch (format) {
    case WeightFormat::kBf16:
      return 0.01;
    case WeightFormat::kInt8:
      return 0.03;
    case WeightFormat::kFp8:
      return 0.06;
    case WeightFormat::kInt4:
      return 0.2;
  }
  return 0;
}

void AddLayer(Cases& cases, const Layer& layer, WeightFormat format,
              std::span<const int> row_counts) {
  BenchDevice& device = cases.device();
  const auto name = [&](int rows) {
    return fmt::format("{} {}x{} {} rows {}", layer.name, layer.outputs, layer.inputs,
                       kernels::Name(format), rows);
  };
  if (std::ranges::none_of(row_counts, [&](int r) { return cases.Wanted("gemm", name(r)); })) {
    return;
  }
  const Weights weights = MakeWeights(device, layer, format);
  const std::vector<float> want = WantedRow(layer, 0);
  for (const int rows : row_counts) {
    if (!cases.Wanted("gemm", name(rows))) continue;
    const DeviceTensor x = device.RandomTensor(kInputSeed, rows, layer.inputs);
    const DeviceTensor y = device.ZeroTensor(rows, layer.outputs);
    const DeviceBytes workspace =
        device.Allocate(kernels::cuda::GemmWorkspaceBytes(device.facts(), rows, weights.view));
    const auto run = [&](kernels::cuda::Launcher& launch, int i) {
      kernels::cuda::LaunchGemm(launch, device.facts(),
                                {.rows = rows,
                                 .x = x.view,
                                 .w = weights.Copy(i),
                                 .y = y.view,
                                 .accumulate = false,
                                 .workspace = workspace.data()});
    };
    run(device.launcher(), 0);
    CaseResult result{.group = "gemm", .name = name(rows)};
    result.wrong = Differs(device.Read(y, 0), want, Tolerance(format));
    if (result.wrong.empty()) {
      result.seconds = device.Seconds(static_cast<int>(weights.data.size()), run);
      result.bytes = weights.bytes + 2.0 * rows * (layer.inputs + layer.outputs);
      result.flops = 2.0 * rows * layer.outputs * layer.inputs;
    }
    cases.Add(std::move(result));
  }
}

}  // namespace

void AddGemmCases(Cases& cases) {
  const ModelShape& s = cases.shape();
  const int qkv = (s.heads + 2 * s.kv_heads) * s.head_dim;
  const Layer layers[] = {{"qkv", qkv, s.hidden},
                          {"output", s.hidden, s.heads * s.head_dim},
                          {"gate_up", 2 * s.ffn, s.hidden},
                          {"down", s.hidden, s.ffn}};
  const std::vector<int> all = {1, 4, 8, 16, 32, 64, 128, 512, 2048};
  const std::vector<int> few = {1, 8, 16, 64};
  const std::vector<int> smoke = {1, 20, 70};
  const bool is_smoke = cases.device().smoke();
  for (const Layer& layer : layers) {
    AddLayer(cases, layer, WeightFormat::kBf16, is_smoke ? smoke : all);
  }
  AddLayer(cases, {"head", s.vocab, s.hidden}, WeightFormat::kBf16, is_smoke ? smoke : few);
  for (const auto format : {WeightFormat::kInt8, WeightFormat::kFp8, WeightFormat::kInt4}) {
    for (const Layer& layer : layers) AddLayer(cases, layer, format, is_smoke ? smoke : few);
  }
}

}  // namespace lorad::bench
