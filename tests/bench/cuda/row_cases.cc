// Norms, activations, rotation and sampling of a decode step: small, but each is a launch.
#include <algorithm>
#include <cmath>

#include "fmt/format.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/sample_ops.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/values.h"

namespace lorad::bench {
namespace {

constexpr uint32_t kSeed = 41;
constexpr int kCalls = 16;

void AddRmsNorm(Cases& cases, int rows) {
  const std::string name = fmt::format("rms_norm {} rows {}", cases.shape().hidden, rows);
  if (!cases.Wanted("rows", name)) return;
  BenchDevice& device = cases.device();
  const int cols = cases.shape().hidden;
  const DeviceTensor x = device.RandomTensor(kSeed, rows, cols, /*full=*/true);
  const DeviceTensor y = device.ZeroTensor(rows, cols);
  const std::vector<float> ones(size_t(cols), 1.0f);
  const DeviceBytes weight = device.Upload(std::span<const float>(ones));
  const auto run = [&](kernels::cuda::Launcher& launch, int) {
    kernels::cuda::LaunchRmsNorm(launch, rows, x.view, weight.As<float>(), 1e-5f, y.view);
  };
  run(device.launcher(), 0);
  std::vector<float> want = device.Read(x, 0);
  double squares = 0;
  for (const float v : want) squares += double{v} * double{v};
  for (float& v : want) v = static_cast<float>(v / std::sqrt(squares / cols + 1e-5));
  CaseResult result{.group = "rows", .name = name};
  result.wrong = Differs(device.Read(y, 0), want, 0.01);
  if (result.wrong.empty()) {
    result.seconds = device.Seconds(kCalls, run);
    result.bytes = 6.0 * rows * cols;
  }
  cases.Add(std::move(result));
}

void AddSwiGlu(Cases& cases, int rows) {
  const std::string name = fmt::format("swiglu {} rows {}", cases.shape().ffn, rows);
  if (!cases.Wanted("rows", name)) return;
  BenchDevice& device = cases.device();
  const int ffn = cases.shape().ffn;
  const DeviceTensor x = device.RandomTensor(kSeed, rows, 2 * ffn);
  const DeviceTensor y = device.ZeroTensor(rows, ffn);
  const auto run = [&](kernels::cuda::Launcher& launch, int) {
    kernels::cuda::LaunchSwiGlu(launch, rows, x.view, y.view);
  };
  run(device.launcher(), 0);
  const std::vector<float> in = device.Read(x, 0);
  std::vector<float> want(static_cast<size_t>(ffn));
  for (size_t i = 0; i < want.size(); ++i) {
    want[i] = in[i] / (1.0f + std::exp(-in[i])) * in[i + want.size()];
  }
  CaseResult result{.group = "rows", .name = name};
  result.wrong = Differs(device.Read(y, 0), want, 0.01);
  if (result.wrong.empty()) {
    result.seconds = device.Seconds(kCalls, run);
    result.bytes = 6.0 * rows * ffn;
  }
  cases.Add(std::move(result));
}

void AddSample(Cases& cases, int rows, bool greedy) {
  const std::string name =
      fmt::format("{} {} rows {}", greedy ? "greedy" : "top_k+top_p", cases.shape().vocab, rows);
  if (!cases.Wanted("sample", name)) return;
  BenchDevice& device = cases.device();
  const DeviceTensor logits = device.RandomTensor(kSeed, rows, cases.shape().vocab, /*full=*/true);
  std::vector<kernels::SampleRow> wishes;
  for (int i = 0; i < rows; ++i) {
    wishes.push_back({.row = i, .temperature = 0});
    if (!greedy) {
      wishes.back() = {.row = i, .temperature = 0.7f, .top_k = 50, .top_p = 0.9f, .seed = 3};
    }
  }
  const DeviceBytes list = device.Upload(std::span<const kernels::SampleRow>(wishes));
  const DeviceBytes tokens = device.Allocate(size_t(rows) * sizeof(int32_t));
  const auto run = [&](kernels::cuda::Launcher& launch, int) {
    kernels::cuda::LaunchSample(launch, device.facts(),
                                {.logits = logits.view,
                                 .vocab = cases.shape().vocab,
                                 .rows = list.As<kernels::SampleRow>(),
                                 .count = rows,
                                 .tokens = tokens.As<int32_t>()});
  };
  run(device.launcher(), 0);
  CaseResult result{.group = "sample", .name = name};
  // The values have 256 steps: the highest of a row is shared by many, and any draw is among them
  // or near.
  const std::vector<float> row = device.Read(logits, 0);
  const auto bytes = device.Download(tokens.data(), sizeof(int32_t));
  int32_t token = 0;
  std::copy_n(bytes.begin(), sizeof(token), reinterpret_cast<std::byte*>(&token));
  const float best = *std::ranges::max_element(row);
  if (token < 0 || token >= cases.shape().vocab) {
    result.wrong = fmt::format("token {} of {}", token, cases.shape().vocab);
  } else if (greedy && std::ranges::max_element(row) - row.begin() != token) {
    result.wrong = fmt::format("token {} is not the first of the likeliest", token);
  } else if (!greedy && row[size_t(token)] < best - 0.5f) {
    result.wrong = fmt::format("token {} is none of the likeliest 50", token);
  }
  if (result.wrong.empty()) {
    result.seconds = device.Seconds(4, run);
    result.bytes = 4.0 * rows * cases.shape().vocab;
  }
  cases.Add(std::move(result));
}

}  // namespace

void AddRowCases(Cases& cases) {
  const std::vector<int> counts =
      cases.device().smoke() ? std::vector<int>{3} : std::vector<int>{1, 64, 2048};
  for (const int rows : counts) {
    AddRmsNorm(cases, rows);
    AddSwiGlu(cases, rows);
  }
  for (const bool greedy : {true, false}) {
    for (const int rows : {1, cases.device().smoke() ? 3 : 64}) AddSample(cases, rows, greedy);
  }
}

}  // namespace lorad::bench
