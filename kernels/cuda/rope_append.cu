// Rotation of q and k, and the append of k and v to their pages. A warp has one head of one row;
// nothing is reduced but a head's norm and, in fp8, its largest value.
//
// Limit: stores. A row's q is read and written once in runs of 64 bytes or more; keys are written
// in runs of 64 bytes, values two bytes at a time, 16 bytes apart (kv_layout.h), which L2 gathers:
// the 16 tokens of a tile fill its sectors. At decode it is all latency: one load deep.
#include <cmath>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_ops.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/kv_layout.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

struct RopeAppendArgs {
  uint16_t* qkv;
  const float* angles;
  const float* q_norm;
  const float* k_norm;
  const RowPlace* places;
  std::byte* layer;  // of page 0
  size_t page_bytes;
  KvLayout layout;
  int qkv_stride;
  int angles_stride;
  int rows;
  int heads;
  int head_dim;
  float norm_eps;
};

// A lane's share of a head: dims at(j) and at(j) + head_dim / 2 for each j below kPairs, those
// that exist.
template <int kWide>
struct HeadPart {
  static constexpr int kPairs = kMaxHeadDim / 2 / kWarp;
  float low[kPairs];   // of the first half
  float high[kPairs];  // of the second
  static LORAD_DEVICE int At(int j) { return (j / kWide * kWarp + Lane()) * kWide + j % kWide; }
};

template <int kWide>
LORAD_DEVICE void Load(const uint16_t* from, float (&to)[kWide]) {
  if constexpr (kWide == 2) {
    const uint32_t both = *reinterpret_cast<const uint32_t*>(from);
    to[0] = LowBf16(both);
    to[1] = HighBf16(both);
  } else {
    to[0] = FromBf16(from[0]);
  }
}
template <int kWide>
LORAD_DEVICE void Store(uint16_t* to, const float* from) {
  if constexpr (kWide == 2) {
    *reinterpret_cast<uint32_t*>(to) = PackBf16(from[0], from[1]);
  } else {
    *to = ToBf16(from[0]);
  }
}

template <int kWide>
LORAD_DEVICE void NormHead(HeadPart<kWide>& x, const float* weight, float eps, int head_dim) {
  const int half = head_dim / 2;
  float squares = 0;
  for (int j = 0; j < x.kPairs; ++j) squares += x.low[j] * x.low[j] + x.high[j] * x.high[j];
  for (int mask = kWarp / 2; mask > 0; mask /= 2) squares += ShuffleXor(squares, mask);
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(head_dim) + eps);
  for (int j = 0; j < x.kPairs; ++j) {
    const int at = x.At(j);
    if (at >= half) continue;
    x.low[j] *= scale * weight[at];
    x.high[j] *= scale * weight[at + half];
  }
}

template <int kWide>
LORAD_DEVICE void Rotate(HeadPart<kWide>& x, const float* angles, int head_dim) {
  const int half = head_dim / 2;
  for (int j = 0; j < x.kPairs; ++j) {
    const int at = x.At(j);
    if (at >= half) continue;
    const float cosine = angles[at];
    const float sine = angles[at + half];
    const float a = x.low[j];
    const float b = x.high[j];
    x.low[j] = a * cosine - b * sine;
    x.high[j] = b * cosine + a * sine;
  }
}

// kWide: neighbouring dims of a lane; 2 where half a head is a whole number of words.
template <int kWide>
LORAD_KERNEL(kThreads, 8)
void RopeAppend(RopeAppendArgs args) {
  const int all_heads = args.heads + 2 * args.layout.kv_heads;
  const int unit = BlockX() * kWarps + Warp();
  const int row = unit / all_heads;
  if (row >= args.rows) return;
  const RowPlace place = args.places[row];
  if (place.page < 0) return;
  const int head = unit - row * all_heads;
  const int half = args.head_dim / 2;
  uint16_t* const from = args.qkv + size_t(row) * size_t(args.qkv_stride) + head * args.head_dim;

  HeadPart<kWide> x = {};
  for (int j = 0; j < x.kPairs; j += kWide) {
    const int at = x.At(j);
    if (at >= half) continue;
    float low[kWide], high[kWide];
    Load<kWide>(from + at, low);
    Load<kWide>(from + half + at, high);
    for (int i = 0; i < kWide; ++i) {
      x.low[j + i] = low[i];
      x.high[j + i] = high[i];
    }
  }
  const bool is_query = head < args.heads;
  const bool is_value = head >= args.heads + args.layout.kv_heads;
  if (!is_value) {
    const float* norm = is_query ? args.q_norm : args.k_norm;
    if (norm != nullptr) NormHead(x, norm, args.norm_eps, args.head_dim);
    Rotate(x, args.angles + size_t(row) * size_t(args.angles_stride), args.head_dim);
  }
  if (is_query) {
    for (int j = 0; j < x.kPairs; j += kWide) {
      const int at = x.At(j);
      if (at >= half) continue;
      Store<kWide>(from + at, x.low + j);
      Store<kWide>(from + half + at, x.high + j);
    }
    return;
  }

  const KvLayout& layout = args.layout;
  const int kv_head = (head - args.heads) % layout.kv_heads;
  std::byte* const page =
      args.layer + size_t(place.page) * args.page_bytes + layout.Head(0, kv_head);
  std::byte* const to = page + (is_value ? layout.Values() : layout.Keys());
  const auto element = [&](int dim) {
    return is_value ? layout.Value(place.slot, dim) : layout.Key(place.slot, dim);
  };
  if (!layout.scaled()) {
    auto* const elements = reinterpret_cast<uint16_t*>(to);
    for (int j = 0; j < x.kPairs; j += kWide) {
      const int at = x.At(j);
      if (at >= half) continue;
      if (is_value) {
        for (int i = 0; i < kWide; ++i) {
          elements[element(at + i)] = ToBf16(x.low[j + i]);
          elements[element(at + i + half)] = ToBf16(x.high[j + i]);
        }
      } else {
        Store<kWide>(elements + element(at), x.low + j);
        Store<kWide>(elements + element(at + half), x.high + j);
      }
    }
    const int padding = args.head_dim + Lane();
    if (!is_value && padding < layout.padded_dim) elements[element(padding)] = 0;
    return;
  }

  float largest = 0;
  for (int j = 0; j < x.kPairs; ++j) {
    largest = fmaxf(largest, fmaxf(fabsf(x.low[j]), fabsf(x.high[j])));
  }
  for (int mask = kWarp / 2; mask > 0; mask /= 2)
    largest = fmaxf(largest, ShuffleXor(largest, mask));
  const float scale = largest / kFp8Highest;
  const float inverse = largest > 0 ? kFp8Highest / largest : 0.0f;
  auto* const elements = reinterpret_cast<uint8_t*>(to);
  for (int j = 0; j < x.kPairs; ++j) {
    const int at = x.At(j);
    if (at >= half) continue;
    elements[element(at)] = static_cast<uint8_t>(ToFp8(x.low[j] * inverse));
    elements[element(at + half)] = static_cast<uint8_t>(ToFp8(x.high[j] * inverse));
  }
  const int padding = args.head_dim + Lane();
  if (!is_value && padding < layout.padded_dim) elements[element(padding)] = 0;
  if (Lane() == 0) {
    auto* const scales =
        reinterpret_cast<float*>(page + (is_value ? layout.ValueScales() : layout.KeyScales()));
    scales[place.slot] = scale;
  }
}

const KernelRef kRopeAppendWords = MakeKernel("rope_append_words", &RopeAppend<2>, kThreads);
const KernelRef kRopeAppend = MakeKernel("rope_append", &RopeAppend<1>, kThreads);

}  // namespace

void LaunchRopeAppend(Launcher& launch, const DeviceFacts&, const RopeAppendParams& params) {
  const AttentionShape& shape = params.shape;
  LORAD_CHECK(!params.qkv.full && params.angles.full);
  LORAD_CHECK(shape.head_dim % 2 == 0 && shape.head_dim <= kMaxHeadDim);
  LORAD_CHECK(params.kv.geometry.kv_heads == shape.kv_heads &&
              params.kv.geometry.head_dim == shape.head_dim);
  RopeAppendArgs args{};
  args.qkv = static_cast<uint16_t*>(params.qkv.data);
  args.angles = static_cast<const float*>(params.angles.data);
  args.q_norm = params.q_norm;
  args.k_norm = params.k_norm;
  args.places = params.places;
  args.layout = LayoutOf(params.kv.geometry, params.kv.format);
  args.layer = params.kv.slab + args.layout.Head(params.layer, 0);
  args.page_bytes = params.kv.page_bytes;
  args.qkv_stride = params.qkv.stride;
  args.angles_stride = params.angles.stride;
  args.rows = params.rows;
  args.heads = shape.heads;
  args.head_dim = shape.head_dim;
  args.norm_eps = params.norm_eps;
  const int units = params.rows * (shape.heads + 2 * shape.kv_heads);
  launch(shape.head_dim % 4 == 0 ? kRopeAppendWords : kRopeAppend,
         {(units + kWarps - 1) / kWarps, 1, 0}, args);
}

std::vector<KernelRef> RopeAppendKernels() { return {kRopeAppendWords, kRopeAppend}; }

}  // namespace lorad::kernels::cuda
