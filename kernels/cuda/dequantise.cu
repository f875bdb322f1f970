// A thread makes eight bf16. Limit: bandwidth (2.5 to 4 bytes for each weight); a launch is for
// whole matrices, so there are threads enough to hide latency without unrolling.
#include "kernels/cuda/dense_decode.h"
#include "kernels/cuda/dense_kernels.h"
#include "kernels/cuda/gpu.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kThreads = 256;

struct DequantiseArgs {
  WeightsView w;
  uint16_t* out;
};

LORAD_KERNEL(kThreads, 4) void Dequantise(DequantiseArgs args) {
  const int octets = args.w.stride / kOctet;
  const int64_t at = int64_t{BlockX()} * kThreads + Thread();
  if (at >= int64_t{args.w.rows} * octets) return;
  const Octet weights =
      LoadWeights(args.w, static_cast<int>(at / octets), static_cast<int>(at % octets) * kOctet);
  const float* v = weights.v;
  Store16(args.out + at * kOctet,
          {PackBf16(v[0], v[1]), PackBf16(v[2], v[3]), PackBf16(v[4], v[5]), PackBf16(v[6], v[7])});
}

const KernelRef kDequantise = MakeKernel("dequantise", &Dequantise, kThreads);

}  // namespace

void LaunchDequantise(Launcher& launch, const DeviceFacts&, const WeightsView& w, void* out) {
  const int64_t octets = int64_t{w.rows} * (w.stride / kOctet);
  launch(kDequantise, {.x = static_cast<int>((octets + kThreads - 1) / kThreads)},
         DequantiseArgs{w, static_cast<uint16_t*>(out)});
}

std::vector<KernelRef> DequantiseKernels() { return {kDequantise}; }

}  // namespace lorad::kernels::cuda
