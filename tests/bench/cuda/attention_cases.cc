// Attention over a paged cache: decode of B sequences and prefill of one. Keys and values are
// appended by RopeAppend with a rotation by nothing, so that the host knows them.
#include <algorithm>
#include <cmath>

#include "fmt/format.h"
#include "kernels/cuda/attention_ops.h"
#include "tests/bench/cuda/cases.h"
#include "tests/bench/cuda/values.h"

namespace lorad::bench {
namespace {

using kernels::AttentionShape;
using kernels::KvFormat;
using kernels::KvGeometry;
using kernels::SequenceRows;
using kernels::cuda::AttentionItem;
using kernels::cuda::AttentionWork;
using kernels::cuda::KvView;
using kernels::cuda::MergeItem;
using kernels::cuda::RowPlace;

constexpr uint32_t kSeed = 31;
constexpr int kPageTokens = 16;

struct Setting {
  int sequences;
  int context;    // positions, the rows included
  int rows_each;  // the last positions, attended in the timed call
  KvFormat format;
};

class Stage {
 public:
  Stage(Cases& cases, const Setting& setting)
      : device_(cases.device()),
        setting_(setting),
        shape_{cases.shape().heads, cases.shape().kv_heads, cases.shape().head_dim,
               1.0f / std::sqrt(float(cases.shape().head_dim)), 0},
        geometry_{kLayers, shape_.kv_heads, shape_.head_dim, kPageTokens},
        page_bytes_(kernels::cuda::KvPageBytes(geometry_, setting.format)) {
    const int pages_each = (setting.context + kPageTokens - 1) / kPageTokens;
    slab_ = device_.Allocate(size_t(pages_each) * size_t(setting.sequences) * page_bytes_);
    pages_.resize(size_t(setting.sequences));
    for (int s = 0; s < setting.sequences; ++s) {
      for (int p = 0; p < pages_each; ++p) {
        pages_[size_t(s)].push_back(uint32_t(p * setting.sequences + s));  // far apart
      }
    }
    Append();
    for (int s = 0; s < setting.sequences; ++s) {
      sequences_.push_back({.first_row = s * setting.rows_each,
                            .end_row = (s + 1) * setting.rows_each,
                            .first_position = setting.context - setting.rows_each,
                            .kv_pages = pages_[size_t(s)]});
    }
    const int rows = setting.sequences * setting.rows_each;
    PlanAttention(sequences_, rows, shape_, kPageTokens, device_.facts(), &work_);
    page_list_ = device_.Upload(std::span<const uint32_t>(work_.pages));
    items_ = device_.UploadList(std::span<const AttentionItem>(work_.items));
    tiles_ = device_.UploadList(std::span<const AttentionItem>(work_.tiles));
    merges_ = device_.UploadList(std::span<const MergeItem>(work_.merges));
    partials_ = device_.Allocate(size_t(work_.partials) * kernels::cuda::PartialFloats(shape_) *
                                 sizeof(float));
    // Queries of row i are those of its position in the fill.
    queries_ = device_.RandomTensor(kSeed, rows, QkvCols());
    out_ = device_.ZeroTensor(rows, shape_.heads * shape_.head_dim);
  }

  void Run(kernels::cuda::Launcher& launch, int layer) {
    LaunchAttention(launch, device_.facts(),
                    {.layer = layer,
                     .shape = shape_,
                     .qkv = queries_.view,
                     .out = out_.view,
                     .pages = page_list_.As<uint32_t>(),
                     .items = items_.view,
                     .item_capacity = items_.size,
                     .tiles = tiles_.view,
                     .tile_capacity = tiles_.size,
                     .merges = merges_.view,
                     .merge_capacity = merges_.size,
                     .partials = partials_.As<float>(),
                     .kv = kv()});
  }

  // Of the last row, head 0, from the numbers that were appended.
  std::string Check() {
    const int row = setting_.sequences * setting_.rows_each - 1;
    const auto got = device_.Read(out_, row);
    const int dim = shape_.head_dim;
    const int sequence = setting_.sequences - 1;
    std::vector<double> scores;
    double highest = -1e300;
    for (int p = 0; p < setting_.context; ++p) {
      double dot = 0;
      for (int d = 0; d < dim; ++d) {
        dot += double{At(row, d)} * double{Appended(sequence, p, shape_.heads * dim + d)};
      }
      scores.push_back(dot * double{shape_.scale});
      highest = std::max(highest, scores.back());
    }
    std::vector<double> sum(size_t(dim), 0.0);
    double total = 0;
    for (int p = 0; p < setting_.context; ++p) {
      const double weight = std::exp(scores[size_t(p)] - highest);
      total += weight;
      for (int d = 0; d < dim; ++d) {
        sum[size_t(d)] +=
            weight * double{Appended(sequence, p, (shape_.heads + shape_.kv_heads) * dim + d)};
      }
    }
    std::vector<float> want;
    for (const double v : sum) want.push_back(static_cast<float>(v / total));
    const double tolerance = setting_.format == KvFormat::kBf16 ? 0.05 : 0.2;
    return Differs({got.begin(), got.begin() + dim}, want, tolerance);
  }

  double KvBytes() const {
    const double element = setting_.format == KvFormat::kBf16 ? 2.0 : 1.0;
    return element * 2 * shape_.kv_heads * shape_.head_dim * setting_.context * setting_.sequences;
  }
  double Flops() const {
    double keys = 0;  // over all rows of a sequence
    for (int i = 0; i < setting_.rows_each; ++i) keys += setting_.context - i;
    return 4.0 * shape_.heads * shape_.head_dim * keys * setting_.sequences;
  }

  // Layers rotate so that each call reads cold keys.
  static constexpr int kLayers = 2;

 private:
  int QkvCols() const { return (shape_.heads + 2 * shape_.kv_heads) * shape_.head_dim; }
  KvView kv() const { return {slab_.data(), page_bytes_, geometry_, setting_.format}; }
  float At(int row, int col) const {
    return ValueAt(kSeed, uint64_t(row) * uint64_t(QkvCols()) + uint64_t(col));
  }
  // All sequences append the same numbers: those of row p of the fill.
  float Appended(int, int position, int col) const { return At(position, col); }

  void Append() {
    const DeviceTensor qkv = device_.RandomTensor(kSeed, setting_.context, QkvCols());
    std::vector<float> no_turn(size_t(shape_.head_dim), 0.0f);
    std::fill_n(no_turn.begin(), shape_.head_dim / 2, 1.0f);
    const int stride = kernels::cuda::PaddedColumns(shape_.head_dim);
    std::vector<float> angles(size_t(setting_.context) * size_t(stride), 0.0f);
    for (int p = 0; p < setting_.context; ++p) {
      std::ranges::copy(no_turn, angles.begin() + int64_t{p} * stride);
    }
    const DeviceBytes turned = device_.Upload(std::span<const float>(angles));
    for (int s = 0; s < setting_.sequences; ++s) {
      std::vector<RowPlace> places;
      for (int p = 0; p < setting_.context; ++p) {
        places.push_back({.page = int32_t(pages_[size_t(s)][size_t(p / kPageTokens)]),
                          .slot = p % kPageTokens,
                          .position = p});
      }
      const DeviceBytes list = device_.Upload(std::span<const RowPlace>(places));
      for (int layer = 0; layer < kLayers; ++layer) {
        LaunchRopeAppend(device_.launcher(), device_.facts(),
                         {.rows = setting_.context,
                          .layer = layer,
                          .shape = shape_,
                          .qkv = qkv.view,
                          .angles = {turned.data(), shape_.head_dim, stride, true},
                          .places = list.As<RowPlace>(),
                          .kv = kv()});
      }
      device_.Finish();
    }
  }

  BenchDevice& device_;
  const Setting setting_;
  const AttentionShape shape_;
  const KvGeometry geometry_;
  const size_t page_bytes_;
  DeviceBytes slab_;
  std::vector<std::vector<uint32_t>> pages_;
  std::vector<SequenceRows> sequences_;
  AttentionWork work_;
  DeviceBytes page_list_;
  DeviceList<AttentionItem> items_;
  DeviceList<AttentionItem> tiles_;
  DeviceList<MergeItem> merges_;
  DeviceBytes partials_;
  DeviceTensor queries_;
  DeviceTensor out_;
};

void AddCase(Cases& cases, const Setting& setting) {
  const std::string name = fmt::format(
      "{} sequences {} context {}{}", setting.rows_each == 1 ? "decode" : "prefill",
      setting.sequences, setting.context, setting.format == KvFormat::kFp8 ? " fp8" : "");
  if (!cases.Wanted("attention", name)) return;
  Stage stage(cases, setting);
  stage.Run(cases.device().launcher(), 0);
  CaseResult result{.group = "attention", .name = name};
  result.wrong = stage.Check();
  if (result.wrong.empty()) {
    result.seconds = cases.device().Seconds(
        8, [&](kernels::cuda::Launcher& launch, int i) { stage.Run(launch, i % Stage::kLayers); });
    result.bytes = stage.KvBytes();
    result.flops = stage.Flops();
  }
  cases.Add(std::move(result));
}

}  // namespace

void AddAttentionCases(Cases& cases) {
  if (cases.device().smoke()) {
    for (const auto format : {KvFormat::kBf16, KvFormat::kFp8}) {
      AddCase(cases, {3, 40, 1, format});
      AddCase(cases, {1, 40, 40, format});
    }
    return;
  }
  for (const auto format : {KvFormat::kBf16, KvFormat::kFp8}) {
    for (const int sequences : {1, 16, 64, 128}) AddCase(cases, {sequences, 1024, 1, format});
    AddCase(cases, {1, 32768, 1, format});
    AddCase(cases, {1, 2048, 2048, format});
  }
}

}  // namespace lorad::bench
