// A row of attention has the same bits however its sequence was advanced, whoever else is in the
// batch, wherever pages are, and in whatever order threads run.
#include <algorithm>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/attention_ops.h"
#include "tests/unit/kernels/cuda/attention_rig.h"

namespace lorad::kernels::cuda {
namespace {

AttentionProblem Problem(int group, int head_dim, int window, KvFormat format = KvFormat::kBf16) {
  return {.shape = {.heads = group,
                    .kv_heads = 1,
                    .head_dim = head_dim,
                    .scale = 2.0f / float(head_dim),
                    .window = window},
          .positions = 200,
          .norms = true,
          .format = format};
}

std::vector<uint16_t> InChunks(const AttentionProblem& problem, int chunk) {
  AttentionRig rig(problem);
  rig.RunInChunks(chunk);
  return rig.outputs();
}

bool IsNan(uint16_t bf16) { return (bf16 & 0x7fff) > 0x7f80; }

TEST(CudaAttentionBits, ChunksOfAnySize) {
  for (const AttentionProblem& problem :
       {Problem(3, 64, 0), Problem(1, 80, 50), Problem(8, 18, 70), Problem(2, 256, 90),
        Problem(4, 128, 33, KvFormat::kFp8)}) {
    const auto decoded = InChunks(problem, 1);
    EXPECT_FALSE(std::ranges::any_of(decoded, IsNan));
    for (const int chunk : {3, 16, 17, 64, 100, 200}) {
      EXPECT_TRUE(InChunks(problem, chunk) == decoded)
          << "heads of " << problem.shape.head_dim << ", chunks of " << chunk;
    }
  }
}

// Positions beyond one chunk of keys, where tiles are cut or not by how large the device is.
TEST(CudaAttentionBits, TilesCutOrWholeOrDecoded) {
  for (const auto& [group, head_dim, window, format] :
       {std::tuple{4, 64, 0, KvFormat::kBf16}, std::tuple{3, 128, 300, KvFormat::kBf16},
        std::tuple{20, 32, 0, KvFormat::kFp8}, std::tuple{1, 256, 500, KvFormat::kBf16}}) {
    AttentionProblem problem = Problem(group, head_dim, window, format);
    problem.positions = 600;
    const int tokens = 66 / std::min(group, 16) + 1;
    AttentionRig decoded(problem);
    decoded.Step({{0, 600 - tokens}}, false);
    for (int i = 0; i < tokens; ++i) decoded.Step({{0, 1}});
    EXPECT_TRUE(decoded.work().tiles.empty());
    for (const int multiprocessors : {1, 1000}) {
      problem.multiprocessors = multiprocessors;
      AttentionRig together(problem);
      together.Step({{0, 600 - tokens}}, false);
      together.Step({{0, tokens}});
      EXPECT_FALSE(together.work().tiles.empty());
      EXPECT_EQ(together.work().merges.empty(), multiprocessors == 1);
      EXPECT_TRUE(together.outputs() == decoded.outputs()) << head_dim << " on " << multiprocessors;
    }
  }
}

TEST(CudaAttentionBits, ItemsCutOrWhole) {
  for (const int window : {0, 300}) {
    AttentionProblem problem = Problem(5, 64, window);
    problem.sequences = 14;
    problem.positions = 600;
    std::vector<uint16_t> want;
    for (const int multiprocessors : {1, 1000}) {
      problem.multiprocessors = multiprocessors;
      AttentionRig rig(problem);
      std::vector<Advance> parts;
      for (int s = 0; s < 14; ++s) parts.push_back({s, 592 + s % 8});
      rig.Step(parts, false);
      for (Advance& part : parts) part.tokens = 1;
      rig.Step(parts);
      EXPECT_EQ(rig.work().merges.empty(), multiprocessors == 1);
      if (want.empty()) want = rig.outputs();
      EXPECT_TRUE(rig.outputs() == want);
    }
  }
}

TEST(CudaAttentionBits, MixturesOfPrefillAndDecode) {
  for (const KvFormat format : {KvFormat::kBf16, KvFormat::kFp8}) {
    AttentionProblem problem = Problem(3, 64, 0, format);
    problem.shape.kv_heads = 2;
    problem.shape.heads = 6;
    problem.sequences = 3;
    problem.positions = 290;
    AttentionRig mixed(problem);
    mixed.Step({{1, 250}});
    mixed.Step({{0, 31}, {1, 1}});
    for (int i = 0; i < 10; ++i) mixed.Step({{2, 1 + i % 3}, {0, 1}, {1, 1}});
    mixed.Step({{0, 249}, {2, 271}, {1, 29}});
    EXPECT_TRUE(InChunks(problem, 290) == mixed.outputs());
  }
}

TEST(CudaAttentionBits, OrderOfThreadsAndPlacesOfPages) {
  AttentionProblem problem = Problem(6, 96, 0);
  problem.page_tokens = 48;
  problem.sequences = 2;
  problem.positions = 270;
  const auto want = InChunks(problem, 45);
  for (const uint64_t seed : {2u, 3u, 4u}) {
    problem.order_seed = problem.placement = seed;
    EXPECT_TRUE(InChunks(problem, 45) == want) << seed;
  }
}

TEST(CudaAttentionBits, CopiedPagesAreAsGoodAsTheOldOnes) {
  for (const KvFormat format : {KvFormat::kBf16, KvFormat::kFp8}) {
    const AttentionProblem problem = Problem(4, 64, 0, format);
    AttentionRig rig(problem);
    rig.Step({{0, 37}});  // ends within a page
    rig.CopyToFreshPages(0);
    rig.RunInChunks(41);
    EXPECT_TRUE(InChunks(problem, 200) == rig.outputs());
  }
}

TEST(CudaAttentionBits, NothingBeyondARowsPositionCounts) {
  for (const int head_dim : {64, 128}) {
    const AttentionProblem problem = Problem(3, head_dim, 0);
    AttentionRig shorter(problem);
    shorter.Step({{0, 77}});
    AttentionRig longer(problem);
    longer.Step({{0, 200}});
    for (int p = 0; p < 77; ++p) {
      EXPECT_TRUE(std::ranges::equal(shorter.Output(0, p), longer.Output(0, p))) << p;
    }
  }
}

}  // namespace
}  // namespace lorad::kernels::cuda
