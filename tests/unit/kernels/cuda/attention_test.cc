// Attention and RopeAppend against exact attention in double.
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/attention_ops.h"
#include "tests/unit/kernels/cuda/attention_rig.h"

namespace lorad::kernels::cuda {
namespace {

AttentionShape Shape(int heads, int kv_heads, int head_dim, int window = 0) {
  return {.heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .scale = 1.0f / float(head_dim),
          .window = window};
}

// Within what bf16 gives: weights and outputs of eight bits.
void ExpectGood(const AttentionProblem& problem, int chunk) {
  AttentionRig rig(problem);
  rig.RunInChunks(chunk);
  const auto queries = rig.OfQueries();
  EXPECT_LT(queries.norm, 1.0 / 160);
  EXPECT_LT(queries.highest, 1.0 / 16);
  const auto outputs = rig.OfOutputs();
  const AttentionShape& shape = problem.shape;
  const bool fp8 = problem.format == KvFormat::kFp8;
  EXPECT_LT(outputs.norm, fp8 ? 0.035 : 1.0 / 160)
      << shape.heads << "/" << shape.kv_heads << " heads of " << shape.head_dim << ", window "
      << shape.window << ", pages of " << problem.page_tokens << ", chunks of " << chunk;
  EXPECT_LT(outputs.highest, fp8 ? 0.7 : 1.0 / 16);
}

TEST(CudaAttention, Groups) {
  for (const int group : {1, 3, 8, 20}) {
    for (const int chunk : {1, 300}) {
      ExpectGood({.shape = Shape(group, 1, 64), .positions = chunk == 1 ? 40 : 150}, chunk);
    }
  }
}

TEST(CudaAttention, HeadSizes) {
  for (const int head_dim : {2, 6, 16, 18, 32, 48, 64, 80, 96, 128, 160, 192, 256}) {
    for (const int chunk : {2, 50}) {
      ExpectGood({.shape = Shape(6, 3, head_dim), .positions = 70, .norms = head_dim % 3 != 0},
                 chunk);
    }
  }
}

TEST(CudaAttention, Pages) {
  for (const int page_tokens : {32, 48, 128}) {
    ExpectGood(
        {.shape = Shape(4, 2, 32), .page_tokens = page_tokens, .sequences = 2, .positions = 150},
        40);
  }
}

TEST(CudaAttention, Windows) {
  for (const int window : {1, 2, 16, 17, 63, 100, 400}) {
    for (const int chunk : {7, 200}) {
      ExpectGood({.shape = Shape(3, 1, 32, window), .positions = 200}, chunk);
    }
  }
}

TEST(CudaAttention, ChunksOfKeys) {
  for (const int window : {0, 300}) {
    for (const int head_dim : {32, 64, 128, 256}) {
      AttentionRig rig({.shape = Shape(4, 2, head_dim, window), .sequences = 2, .positions = 700});
      rig.Step({{0, 600}, {1, 500}}, false);
      rig.Step({{0, 1}, {1, 2}});
      rig.Step({{0, 40}, {1, 1}});
      rig.Step({{0, 1}, {1, 17}});
      const auto outputs = rig.OfOutputs();
      EXPECT_LT(outputs.norm, 1.0 / 160);
      EXPECT_LT(outputs.highest, 1.0 / 16);
    }
  }
}

TEST(CudaAttention, LargeScores) {
  AttentionProblem problem{.shape = Shape(4, 2, 64), .positions = 150, .grid = true};
  problem.shape.scale = 40.0f;
  for (const int chunk : {1, 150}) ExpectGood(problem, chunk);
}

TEST(CudaAttention, Fp8) {
  for (const int head_dim : {18, 64, 96, 128, 256}) {
    for (const int chunk : {3, 100}) {
      ExpectGood({.shape = Shape(6, 3, head_dim), .positions = 100, .format = KvFormat::kFp8},
                 chunk);
    }
  }
}

}  // namespace
}  // namespace lorad::kernels::cuda
