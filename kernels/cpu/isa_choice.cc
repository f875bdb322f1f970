#include "kernels/cpu/isa_choice.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

#include "fmt/format.h"
#include "kernels/cpu/adapter_image.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/thread_pool.h"

namespace lorad::kernels::cpu {
namespace {

constexpr int kRows = 32;
constexpr int kInputs = 512;
constexpr int kPanels = 12;
constexpr int kRank = 5;  // odd, so that the padding of pairs is tried too
constexpr float kScale = 0.5f;
constexpr int kOutputs = kPanels * kPanel;
constexpr double kTolerance = 0.01;  // of the root mean square of the right result

// A small layer and one adapter, with values that bf16 holds exactly.
class Probe {
 public:
  explicit Probe(const KernelTable& kernels) : kernels_(kernels) {
    for (int i = 0; i < kRows * kInputs; ++i) x_[i] = Value(i, 40503u);
    for (int i = 0; i < kOutputs * kInputs; ++i) w_[i] = Bf16OfFloat(Value(i, 69069u));
    for (int i = 0; i < kRank * kInputs; ++i) a_[i] = Value(i, 15731u);
    for (int i = 0; i < kOutputs * kRank; ++i) b_[i] = Value(i, 2246822519u);
    PackAdapter();
    const size_t element = kernels.bf16_activations ? sizeof(uint16_t) : sizeof(float);
    for (int row = 0; row < kRows; ++row) {
      kernels_.convert({.x = &x_[row * kInputs],
                        .out = activations_.data() + size_t(row) * kInputs * element,
                        .n = kInputs,
                        .padded = kInputs});
    }
  }

  bool Right() {
    Gemm(kRows);
    Adapter(kRows);
    double error = 0, norm = 0;
    for (int row = 0; row < kRows; row += 5) {
      std::array<double, kRank> t = {};
      for (int r = 0; r < kRank; ++r) {
        for (int k = 0; k < kInputs; ++k) {
          t[r] += double{x_[row * kInputs + k]} * a_[r * kInputs + k];
        }
      }
      for (int o = 0; o < kOutputs; ++o) {
        double want = 0;
        for (int k = 0; k < kInputs; ++k) {
          want += double{x_[row * kInputs + k]} * FloatOfBf16(w_[Packed(o, k, kInputs)]);
        }
        for (int r = 0; r < kRank; ++r) {
          want += kScale * t[r] * b_[o * kRank + r];
        }
        const double got = y_[row * kOutputs + o];
        error += (got - want) * (got - want);
        norm += want * want;
      }
    }
    return error <= kTolerance * kTolerance * norm;  // false for a NaN
  }

  // Seconds of a decode step of one row and of a full batch, the best of a few: another process may
  // hold the core.
  double Seconds() {
    double best[2] = {1, 1};
    for (int repeat = 0; repeat < 6; ++repeat) {
      for (int many = 0; many < 2; ++many) {
        const auto begin = std::chrono::steady_clock::now();
        Gemm(many ? kRows : 1);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        best[many] = std::min(best[many], took.count());
      }
    }
    return best[0] + best[1];
  }

 private:
  static float Value(int i, uint32_t factor) {
    const uint32_t mixed = (static_cast<uint32_t>(i) + 1u) * factor;
    return (static_cast<float>((mixed >> 15) & 127u) - 63.5f) / 64.0f;
  }
  // Index of (output, input) in [outputs/16][inputs/2][16][2].
  static int Packed(int output, int input, int inputs) {
    return ((output / kPanel * inputs + input / 2 * 2) * kPanel) + output % kPanel * 2 + input % 2;
  }

  void Gemm(int rows) {
    for (int panel = 0; panel < kPanels; panel += kernels_.gemm_panels) {
      kernels_.gemm({.x = {activations_.data(), kInputs},
                     .w = w_.data(),
                     .y = y_.data(),
                     .y_stride = kOutputs,
                     .k = kInputs,
                     .first_panel = panel,
                     .end_panel = std::min(kPanels, panel + kernels_.gemm_panels),
                     .first_row = 0,
                     .end_row = rows,
                     .scratch = scratch_.data()});
    }
  }
  void PackAdapter() {
    const LowRankFactors factors = {.a = {DType::kF32, a_.data(), kRank, kInputs},
                                    .b = {DType::kF32, b_.data(), kOutputs, kRank}};
    layout_ = PlanAdapterImage(std::span(&factors, 1), 1, kPageGranule);
    image_.resize(layout_.pages * kPageGranule);
    for (uint32_t i = 0; i < layout_.pages; ++i) pages_.push_back(layout_.pages - 1 - i);
    PackAdapterImage(layout_, std::span(&factors, 1), {image_.data(), kPageGranule}, pages_,
                     kernels_.tile_order);
  }
  void Adapter(int rows) {
    const AdapterModule& module = layout_.modules[0];
    const PagedImage image = {image_.data(), kPageGranule, pages_.data()};
    kernels_.shrink({.x = {activations_.data(), kInputs},
                     .image = image,
                     .offset = module.a.offset,
                     .ranks = kRank,
                     .k = kInputs,
                     .rows = rows,
                     .t = t_.data(),
                     .t_stride = kRank + 1});
    kernels_.expand({.t = t_.data(),
                     .t_stride = kRank + 1,
                     .image = image,
                     .offset = module.b.offset,
                     .rank_pairs = (kRank + 1) / 2,
                     .cols = kOutputs,
                     .rows = rows,
                     .scale = kScale,
                     .y = y_.data(),
                     .y_stride = kOutputs});
  }

  const KernelTable& kernels_;
  std::vector<float> x_ = std::vector<float>(kRows * kInputs);
  std::vector<uint16_t> w_ = std::vector<uint16_t>(kOutputs * kInputs);
  std::vector<float> a_ = std::vector<float>(kRank * kInputs);
  std::vector<float> b_ = std::vector<float>(kOutputs * kRank);
  AdapterLayout layout_;
  std::vector<std::byte> image_;
  std::vector<uint32_t> pages_;
  std::vector<float> y_ = std::vector<float>(kRows * kOutputs);
  std::vector<float> t_ = std::vector<float>(kRows * (kRank + 1));
  std::vector<std::byte> activations_ = std::vector<std::byte>(kRows * kInputs * sizeof(float));
  std::vector<float> scratch_ = std::vector<float>(size_t(kernels_.gemm_scratch_floats));
};

}  // namespace

std::vector<const KernelTable*> UsableKernels() {
  const CpuFeatures features = DetectCpuFeatures();
  std::vector<const KernelTable*> usable;
#if defined(__x86_64__)
  if (features.amx_bf16) usable.push_back(AmxKernels());
  if (features.avx512bf16) usable.push_back(Avx512Bf16Kernels());
  if (features.avx512) usable.push_back(Avx512Kernels());
  if (features.avx2) usable.push_back(Avx2Kernels());
#else
  (void)features;
#endif
  usable.push_back(PortableKernels());
  return usable;
}

bool CheckKernels(const KernelTable& kernels) {
  const FlushDenormals flush;
  return Probe(kernels).Right();
}

absl::StatusOr<const KernelTable*> ChooseKernels(std::string_view isa) {
  const FlushDenormals flush;
  const std::vector<const KernelTable*> usable = UsableKernels();
  if (isa != "auto") {
    for (const KernelTable* kernels : usable) {
      if (isa == kernels->name) return kernels;
    }
    std::string names = "auto";
    for (const KernelTable* kernels : usable) names += fmt::format(", {}", kernels->name);
    return absl::InvalidArgumentError(
        fmt::format("isa '{}' is unknown or not supported here; supported: {}", isa, names));
  }
  const KernelTable* fastest = nullptr;
  double fewest_seconds = 0;
  for (const KernelTable* kernels : usable) {
    Probe probe(*kernels);
    if (!probe.Right()) {
      std::fprintf(stderr, "lorad: instruction set %s computes wrongly on this machine: not used\n",
                   kernels->name);
      continue;
    }
    const double seconds = probe.Seconds();
    if (fastest == nullptr || seconds < fewest_seconds) {
      fastest = kernels;
      fewest_seconds = seconds;
    }
  }
  if (fastest == nullptr) return absl::InternalError("no CPU kernels compute rightly here");
  return fastest;
}

}  // namespace lorad::kernels::cpu
