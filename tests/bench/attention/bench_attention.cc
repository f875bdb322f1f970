// bench_attention: paged attention of the cpu backend. Decode reports the bytes of keys and values
// read a second against what the machine reads at best; prefill reports multiply-adds against the
// machine's fp32 peak. Times are those of one layer, over pages of several layers so that no cache
// holds them; the best iteration is reported beside the mean, because a shared machine's mean says
// little. A case whose result differs from the reference is not timed.
//
//   bench_attention [isa] [threads] [google benchmark's options]
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "tests/bench/kernels/machine_peak.h"
#include "tests/unit/kernels/conformance.h"

namespace lorad::bench {
namespace {

using kernels::AttentionShape;
using kernels::SequenceRows;
using kernels::Tensor;
using namespace kernels::conformance;

struct Case {
  const char* model;
  int heads;
  int kv_heads;
  int head_dim;
  int sequences;
  int before;  // tokens that a sequence holds already
  int rows;    // new tokens of each sequence

  int columns() const { return (heads + 2 * kv_heads) * head_dim; }
  AttentionShape shape() const { return {heads, kv_heads, head_dim, 1.0f / float(head_dim), 0}; }
  double kv_bytes() const { return 4.0 * sequences * (before + rows) * kv_heads * head_dim; }
  double multiply_adds() const {
    return 2.0 * sequences * rows * (before + (rows + 1) / 2.0) * heads * head_dim;
  }
};

// Sequences of one case in a rig, appended to each layer. Angles are zero: rotation has no part in
// this.
class Loaded {
 public:
  Loaded(const std::string& backend, int threads, const Case& c, int layers)
      : case_(c),
        rig_({.backend = backend,
              .threads = threads,
              .pages = uint32_t(c.sequences * PagesOf(c)),
              .kv = {.layers = layers, .kv_heads = c.kv_heads, .head_dim = c.head_dim}}),
        inv_freq_(rig_.backend().NewVector(std::vector<float>(size_t(c.head_dim / 2), 0.0f))) {
    for (int s = 0; s < c.sequences; ++s) pages_.push_back(rig_.TakePages(uint32_t(PagesOf(c))));
    for (int layer = 0; layer < layers; ++layer) {
      for (int s = 0; s < c.sequences; ++s) {
        for (int at = 0; at < c.before; at += kChunk) {
          Append(layer, {s}, at, std::min(kChunk, c.before - at));
        }
      }
      std::vector<int> all;
      for (int s = 0; s < c.sequences; ++s) all.push_back(s);
      last_ = Append(layer, all, c.before, c.rows);
    }
    out_ = rig_.backend().NewTensor(c.sequences * c.rows, c.heads * c.head_dim);
  }

  void Attend(int layer) {
    rig_.backend().Attention({.rows = case_.sequences * case_.rows,
                              .layer = layer,
                              .shape = case_.shape(),
                              .qkv = last_.get(),
                              .out = out_.get(),
                              .sequences = sequences_});
  }
  Rows Result() { return rig_.Download(*out_, case_.sequences * case_.rows); }
  std::string_view backend_name() { return rig_.backend().name(); }

 private:
  static constexpr int kChunk = 512;

  static int PagesOf(const Case& c) { return (c.before + c.rows + 15) / 16; }

  std::unique_ptr<Tensor> Append(int layer, const std::vector<int>& which, int at, int tokens) {
    Rows rows(0, case_.columns());
    std::vector<int32_t> positions;
    sequences_.clear();
    for (const int s : which) {
      const Rows more = Make(Values::kGrid, uint64_t(s * 100000 + at), tokens, case_.columns());
      sequences_.push_back({rows.rows, rows.rows + tokens, at, pages_[size_t(s)]});
      rows.values.insert(rows.values.end(), more.values.begin(), more.values.end());
      rows.rows += tokens;
      for (int i = 0; i < tokens; ++i) positions.push_back(at + i);
    }
    auto qkv = rig_.Upload(rows);
    const auto angles = rig_.backend().NewTensor(rows.rows, case_.head_dim);
    rig_.backend().RopeAngles(positions, *inv_freq_, *angles);
    rig_.backend().RopeAppend({.rows = rows.rows,
                               .layer = layer,
                               .shape = case_.shape(),
                               .qkv = qkv.get(),
                               .angles = angles.get(),
                               .sequences = sequences_});
    rig_.backend().HostRow(*qkv, 0);
    return qkv;
  }

  Case case_;
  Rig rig_;
  std::unique_ptr<kernels::Vector> inv_freq_;
  std::vector<std::vector<uint32_t>> pages_;
  std::vector<SequenceRows> sequences_;
  std::unique_ptr<Tensor> last_;
  std::unique_ptr<Tensor> out_;
};

struct Setting {
  std::string isa;
  int threads;
  MachinePeak peak;
};

void Run(benchmark::State& state, const Case& c, const Setting& setting) {
  constexpr double kBeyondCaches = 96e6;
  const int layers = std::clamp(int(kBeyondCaches / c.kv_bytes()) + 1, 2, 64);
  Loaded loaded(setting.isa, setting.threads, c, layers);
  {
    Loaded reference("reference", 1, c, 1);
    reference.Attend(0);
    loaded.Attend(layers - 1);
    const auto right = Within(loaded.Result(), reference.Result(), {1e-5, 1e-3});
    if (!right) return state.SkipWithError(right.message());
  }
  double best = 1e9;
  int layer = 0;
  for ([[maybe_unused]] auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    loaded.Attend(layer);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    state.SetIterationTime(seconds);
    best = std::min(best, seconds);
    layer = (layer + 1) % layers;
  }
  if (c.rows == 1) {
    const double rate = c.kv_bytes() / best * 1e-9;
    state.counters["GB/s"] = rate;
    state.counters["of_read_peak"] = rate / setting.peak.read_gb_per_s;
  }
  const double flops = 2 * c.multiply_adds() / best * 1e-9;
  state.counters["GFLOP/s"] = flops;
  state.counters["of_fp32_peak"] = flops / setting.peak.fp32_gflop_per_s;
  state.counters["best_us"] = best * 1e6;
  state.SetLabel(std::string(loaded.backend_name()));
}

constexpr Case kCases[] = {
    {"1B", 32, 8, 64, 1, 8191, 1},     {"1B", 32, 8, 64, 32, 1023, 1},
    {"8B", 32, 8, 128, 1, 16383, 1},   {"8B", 32, 8, 128, 8, 2047, 1},
    {"MHA", 16, 16, 64, 8, 1023, 1},   {"MQA8", 8, 1, 128, 4, 4095, 1},
    {"1B", 32, 8, 64, 64, 63, 1},      {"1B", 32, 8, 64, 1, 0, 512},
    {"1B", 32, 8, 64, 1, 2048, 256},   {"8B", 32, 8, 128, 1, 2048, 256},
    {"MHA", 16, 16, 64, 1, 1024, 256},
};

}  // namespace
}  // namespace lorad::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const std::string isa = argc > 1 ? argv[1] : "auto";
  const int threads = argc > 2 ? std::atoi(argv[2]) : 2;
  const lorad::bench::Setting setting{isa, threads, lorad::bench::MeasureMachinePeak(threads)};
  fmt::print(stderr, "{} threads: reads {:.1f} GB/s, fp32 {:.0f} GFLOP/s at best\n", threads,
             setting.peak.read_gb_per_s, setting.peak.fp32_gflop_per_s);
  for (const auto& c : lorad::bench::kCases) {
    const std::string name =
        fmt::format("{}/{}/{}q{}kv{}d/{}seq/{}before", c.rows == 1 ? "decode" : "prefill", c.model,
                    c.heads, c.kv_heads, c.head_dim, c.sequences, c.before);
    benchmark::RegisterBenchmark(
        name.c_str(), [&](benchmark::State& state) { lorad::bench::Run(state, c, setting); })
        ->UseManualTime()
        ->MinTime(0.5);
  }
  benchmark::RunSpecifiedBenchmarks();
}
