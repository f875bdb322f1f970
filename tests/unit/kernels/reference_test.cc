// The oracle against numbers worked out by hand: nothing else checks it.
#include <cmath>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/kernels/conformance.h"

namespace lorad::kernels::conformance {
namespace {

using testing::ElementsAre;
using testing::FloatNear;
using testing::Pointwise;

Rows Of(int rows, int cols, std::vector<float> values) {
  Rows out(rows, cols);
  out.values = std::move(values);
  return out;
}

class Reference : public testing::Test {
 protected:
  Rig rig_{{.kv = {.layers = 1, .kv_heads = 1, .head_dim = 2, .page_tokens = 16}}};
  Backend& backend_ = rig_.backend();
};

TEST_F(Reference, ReadsEveryFormat) {
  const std::vector<uint16_t> half = {0x3c00, 0xc000, 0x0001, 0x0400, 0x7bff, 0x8000};
  const HostMatrix matrix{DType::kF16, half.data(), 1, 6};
  const auto packed = backend_.Pack({&matrix, 1}, {});
  const auto row = backend_.NewTensor(1, 6);
  const std::vector<int32_t> ids = {0};
  backend_.Embed(ids, *packed, *row);
  EXPECT_THAT(rig_.Download(*row, 1).values,
              ElementsAre(1.0f, -2.0f, 0x1p-24f, 0x1p-14f, 65504.0f, 0.0f));

  const std::vector<uint16_t> bf16 = {0x3f80, 0xc040, 0x0001};
  const HostMatrix other{DType::kBF16, bf16.data(), 1, 3};
  const auto packed_other = backend_.Pack({&other, 1}, {});
  const auto other_row = backend_.NewTensor(1, 3);
  backend_.Embed(ids, *packed_other, *other_row);
  EXPECT_THAT(rig_.Download(*other_row, 1).values, ElementsAre(1.0f, -3.0f, 0x1p-133f));
}

TEST_F(Reference, LinearWithBiasAndAccumulation) {
  const Rows top = Of(2, 2, {1, 2, 3, 4});
  const Rows bottom = Of(1, 2, {5, 6});
  const Encoded a = Encode(top, DType::kF32);
  const Encoded b = Encode(bottom, DType::kF32);
  const std::vector<HostMatrix> parts = {a.view(), b.view()};
  const std::vector<float> bias = {0.5f, 0, -1};
  const auto w = backend_.Pack(parts, bias);
  EXPECT_EQ(w->rows(), 3);
  const auto x = rig_.Upload(Of(1, 2, {10, 1}));
  const auto y = rig_.Upload(Of(1, 3, {100, 100, 100}));
  LinearArgs args{.rows = 1, .x = x.get(), .w = w.get(), .y = y.get(), .segments = {}};
  backend_.Linear(args);
  EXPECT_THAT(rig_.Download(*y, 1).values, ElementsAre(12.5f, 34, 55));
  args.accumulate = true;
  backend_.Linear(args);
  EXPECT_THAT(rig_.Download(*y, 1).values, ElementsAre(25, 68, 110));
}

TEST_F(Reference, AdapterAddsWeightTimesScaleTimesBAx) {
  const Encoded zero = Encode(Rows(3, 2), DType::kF32);
  const HostMatrix view = zero.view();
  const auto w = backend_.Pack({&view, 1}, {});
  const Encoded a = Encode(Of(2, 2, {1, 1, 1, -1}), DType::kF32);   // [rank 2, d_in 2]
  const Encoded b = Encode(Of(2, 2, {1, 10, 2, 20}), DType::kF32);  // [out 2, rank 2]
  const LowRankFactors factors{.site = 0, .out_begin = 1, .scale = 3, .a = a.view(), .b = b.view()};
  const AdapterLayout layout = backend_.PlanAdapter({&factors, 1}, 1, rig_.slab().page_bytes);
  EXPECT_EQ(layout.pages, 1u);
  const auto pages = rig_.TakePages(1);
  backend_.PackAdapter(layout, {&factors, 1}, rig_.slab(), pages);
  const auto x = rig_.Upload(Of(2, 2, {5, 3, 5, 3}));
  const auto y = backend_.NewTensor(2, 3);
  const AdapterSegment segment{
      .first_row = 1, .end_row = 2, .layout = &layout, .pages = pages, .weight = 0.5f};
  backend_.Linear(
      {.rows = 2, .x = x.get(), .w = w.get(), .y = y.get(), .site = 0, .segments = {&segment, 1}});
  // A x = (8, 2), B A x = (28, 56), times 1.5.
  EXPECT_THAT(rig_.Download(*y, 2).values, ElementsAre(0, 0, 0, 0, 42, 84));
}

TEST_F(Reference, RmsNormAndSwiGlu) {
  const auto x = rig_.Upload(Of(1, 2, {3, -4}));
  const auto y = backend_.NewTensor(1, 2);
  const auto weight = backend_.NewVector(std::vector<float>{2, 0.5f});
  backend_.RmsNorm(1, *x, *weight, 0.5f, *y);  // mean of squares 12.5
  const float inverse = 1.0f / std::sqrt(13.0f);
  EXPECT_THAT(rig_.Download(*y, 1).values,
              Pointwise(FloatNear(1e-6f), {6 * inverse, -2 * inverse}));

  const auto gate_up = rig_.Upload(Of(1, 4, {0, 1, 7, 2}));
  backend_.SwiGlu(1, *gate_up, *y);
  EXPECT_THAT(rig_.Download(*y, 1).values,
              Pointwise(FloatNear(1e-6f), {0.0f, 2.0f / (1.0f + std::exp(-1.0f))}));
}

TEST_F(Reference, RotationByAQuarterTurn) {
  const AttentionShape shape{.heads = 1, .kv_heads = 1, .head_dim = 2, .scale = 1, .window = 0};
  const auto qkv = rig_.Upload(Of(1, 6, {1, 2, 3, 4, 5, 6}));
  const auto angles = backend_.NewTensor(1, 2);
  const auto inv_freq = backend_.NewVector(std::vector<float>{1.57079637f});
  const std::vector<int32_t> position = {1};
  backend_.RopeAngles(position, *inv_freq, *angles);
  const auto pages = rig_.TakePages(1);
  const SequenceRows sequence{.first_row = 0, .end_row = 1, .first_position = 1, .kv_pages = pages};
  backend_.RopeAppend({.rows = 1,
                       .layer = 0,
                       .shape = shape,
                       .qkv = qkv.get(),
                       .angles = angles.get(),
                       .sequences = {&sequence, 1}});
  EXPECT_THAT(rig_.Download(*qkv, 1).values,
              Pointwise(FloatNear(1e-6f), {-2.0f, 1.0f, -4.0f, 3.0f, 5.0f, 6.0f}));
}

TEST_F(Reference, AttentionOfTwoKeys) {
  // Scores of the second row: ln 3 and 0, so that the weights are 3/4 and 1/4.
  const float ln3 = std::log(3.0f);
  const AttentionShape shape{.heads = 1, .kv_heads = 1, .head_dim = 2, .scale = 0.5f, .window = 0};
  const auto qkv = rig_.Upload(Of(2, 6,
                                  {9, 9, ln3, 0, 8, 0,  //
                                   2, 7, 0, 0, 0, 4}));
  const auto angles = backend_.NewTensor(2, 2);
  const auto inv_freq = backend_.NewVector(std::vector<float>{0});
  const std::vector<int32_t> positions = {0, 1};
  backend_.RopeAngles(positions, *inv_freq, *angles);
  const auto pages = rig_.TakePages(1);
  const SequenceRows sequence{.first_row = 0, .end_row = 2, .first_position = 0, .kv_pages = pages};
  backend_.RopeAppend({.rows = 2,
                       .layer = 0,
                       .shape = shape,
                       .qkv = qkv.get(),
                       .angles = angles.get(),
                       .sequences = {&sequence, 1}});
  const auto out = backend_.NewTensor(2, 2);
  AttentionArgs args{.rows = 2,
                     .layer = 0,
                     .shape = shape,
                     .qkv = qkv.get(),
                     .out = out.get(),
                     .sequences = {&sequence, 1}};
  backend_.Attention(args);
  EXPECT_THAT(rig_.Download(*out, 2).values, Pointwise(FloatNear(1e-6f), {8.0f, 0.0f, 6.0f, 1.0f}));
  args.shape.window = 1;
  backend_.Attention(args);
  EXPECT_THAT(rig_.Download(*out, 2).values, Pointwise(FloatNear(1e-6f), {8.0f, 0.0f, 0.0f, 4.0f}));
}

TEST_F(Reference, GatherTakesRowsInTheGivenOrder) {
  const auto x = rig_.Upload(Of(3, 1, {10, 20, 30}));
  const auto y = backend_.NewTensor(3, 1);
  const std::vector<int32_t> rows = {2, 0, 2};
  backend_.GatherRows(rows, *x, *y);
  EXPECT_THAT(rig_.Download(*y, 3).values, ElementsAre(30, 10, 30));
}

TEST_F(Reference, RefusesAllocationsThatDoNotFit) {
  EXPECT_FALSE(backend_.Allocate(SIZE_MAX - 100).ok());
}

}  // namespace
}  // namespace lorad::kernels::conformance
