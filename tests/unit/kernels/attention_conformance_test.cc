#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/kernels/attention_case.h"

namespace lorad::kernels::conformance {
namespace {

// fp32 arithmetic on keys and values that bf16 holds exactly.
constexpr Deviation kAttentionBound{5e-6, 5e-5};

AttentionShape Shape(int heads, int kv_heads, int head_dim, int window = 0) {
  return {.heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .scale = 1.0f / float(head_dim),
          .window = window};
}

class AttentionConformance : public testing::TestWithParam<std::string> {
 protected:
  void ExpectLike(const AttentionCase& problem, int chunk, const Deviation& bound) {
    const Rows want = RunAttention(problem.Options("reference"), problem, problem.positions);
    const Rows got = RunAttention(problem.Options(GetParam()), problem, chunk);
    EXPECT_TRUE(Within(got, want, Stored(GetParam(), bound)))
        << problem.shape.heads << "/" << problem.shape.kv_heads << " heads of "
        << problem.shape.head_dim << ", window " << problem.shape.window << ", chunks of " << chunk;
  }
};

TEST_P(AttentionConformance, GroupedHeadsOverContextsOneToThreeHundred) {
  for (const int group : {1, 3, 8}) {
    ExpectLike({.shape = Shape(2 * group, 2, 64), .positions = 300, .rotate = false}, 300,
               kAttentionBound);
    ExpectLike({.shape = Shape(2 * group, 2, 64),
                .positions = Fit(GetParam(), 300, 20 * group),
                .rotate = false},
               1, kAttentionBound);
  }
}

TEST_P(AttentionConformance, HeadSizes) {
  for (const int head_dim : {2, 6, 16, 18, 32, 48, 64, 80, 96, 128, 160, 256}) {
    ExpectLike({.shape = Shape(6, 3, head_dim), .positions = 70, .rotate = false}, 9,
               kAttentionBound);
  }
}

TEST_P(AttentionConformance, LargePages) {
  for (const int page_tokens : {32, 48, 64, 128}) {
    ExpectLike({.shape = Shape(4, 2, 32),
                .page_tokens = page_tokens,
                .sequences = 2,
                .positions = 150,
                .rotate = false},
               40, kAttentionBound);
  }
}

TEST_P(AttentionConformance, SlidingWindow) {
  for (const int window : {1, 2, 16, 17, 63, 64, 65, 100, 400}) {
    for (const int chunk : {1, 13, 200}) {
      const int positions = chunk == 1 ? Fit(GetParam(), 200, std::min(window + 6, 30)) : 200;
      ExpectLike({.shape = Shape(6, 2, 32, window), .positions = positions, .rotate = false}, chunk,
                 kAttentionBound);
    }
  }
}

TEST_P(AttentionConformance, CopiedPagesAreAsGoodAsTheOldOnes) {
  for (const int head_dim : {18, 64}) {
    const AttentionCase problem{.shape = Shape(6, 2, head_dim), .sequences = 2, .positions = 75};
    RigOptions options = problem.Options(GetParam());
    options.pages += 20;
    Rig rig(options);
    RunningAttention running(rig, problem);
    const std::vector<Advance> both = {{0, 37}, {1, 20}};  // both end within a page
    running.Step(both);
    running.CopyToFreshPages(0);
    running.CopyToFreshPages(1);
    running.RunInChunks(5);
    EXPECT_TRUE(SameBits(running.outputs(), RunAttention(problem.Options(GetParam()), problem, 9)));
  }
}

TEST_P(AttentionConformance, RotatedKeysInBf16) {
  for (const Values values : {Values::kGrid, Values::kDense}) {
    ExpectLike({.shape = Shape(8, 2, 64), .sequences = 3, .positions = 130, .values = values}, 130,
               kBf16Bound);
    ExpectLike({.shape = Shape(8, 2, 64),
                .sequences = 3,
                .positions = 130,
                .head_norms = true,
                .values = values},
               17, kBf16Bound);
  }
}

TEST_P(AttentionConformance, QueriesAreRotatedInPlace) {
  for (const int head_dim : {2, 18, 64, 80}) {
    for (const bool norms : {false, true}) {
      const AttentionCase problem{
          .shape = Shape(5, 1, head_dim), .sequences = 2, .positions = 50, .head_norms = norms};
      Rig reference(problem.Options("reference"));
      Rig tested(problem.Options(GetParam()));
      RunningAttention want(reference, problem);
      RunningAttention got(tested, problem);
      want.RunInChunks(50);
      got.RunInChunks(7);
      EXPECT_TRUE(Within(got.queries(), want.queries(), Stored(GetParam(), kF32Bound))) << head_dim;
    }
  }
}

TEST_P(AttentionConformance, LongContextsAreCutAndMerged) {
  for (const int window : {0, 1500}) {
    const AttentionCase problem{
        .shape = Shape(4, 2, 32, window), .sequences = 2, .positions = 3100, .rotate = false};
    Rig reference(problem.Options("reference"));
    Rig tested(problem.Options(GetParam()));
    RunningAttention want(reference, problem);
    RunningAttention got(tested, problem);
    for (auto* running : {&want, &got}) {
      for (const int before : {1020, 1000, 1060}) {
        running->Step(std::vector<Advance>{{0, before}, {1, before - 7}}, false);
        running->Step(std::vector<Advance>{{0, 1}, {1, 5}});
        running->Step(std::vector<Advance>{{1, 1}, {0, 4}});
      }
    }
    EXPECT_TRUE(Within(got.Attended(), want.Attended(), Stored(GetParam(), kAttentionBound)))
        << window;
  }
}

TEST_P(AttentionConformance, LargeScoresDoNotOverflow) {
  AttentionCase problem{.shape = Shape(4, 2, 64), .positions = 150, .rotate = false};
  problem.shape.scale = 40.0f;  // scores of thousands: the softmax is nearly one-hot
  ExpectLike(problem, 150, {1e-3, 1e-1});
}

INSTANTIATE_TEST_SUITE_P(All, AttentionConformance, testing::ValuesIn(Variants()), VariantName);

// --- Bit-identical however a sequence was advanced, and whoever else is in the batch ---

class AttentionInvariance : public testing::TestWithParam<std::string> {
 protected:
  static AttentionCase Problem(int window = 0, int head_dim = 64, int group = 3,
                               int positions = 200) {
    return {.shape = Shape(2 * group, 2, head_dim, window),
            .sequences = 3,
            .positions = positions,
            .head_norms = true,
            .values = Values::kDense};
  }
  // Each sequence alone, token by token.
  Rows Decoded(const AttentionCase& problem) {
    Rig rig(problem.Options(GetParam()));
    RunningAttention running(rig, problem);
    for (int s = 0; s < problem.sequences; ++s) {
      for (int p = 0; p < problem.positions; ++p) running.Step({{{s, 1}}});
    }
    return running.outputs();
  }
};

TEST_P(AttentionInvariance, ChunksOfAnySize) {
  const int positions = Fit(GetParam(), 200, 45);
  for (const AttentionCase& problem :
       {Problem(0, 64, 3, positions), Problem(positions / 4, 64, 3, positions),
        Problem(0, 80, 1, positions), Problem(positions / 3, 18, 8, positions)}) {
    const Rows decoded = Decoded(problem);
    for (const int chunk : {1, 3, 16, 17, 64, 100, 200}) {
      if (chunk > positions) continue;
      EXPECT_TRUE(SameBits(RunAttention(problem.Options(GetParam()), problem, chunk), decoded))
          << "chunks of " << chunk;
    }
  }
}

TEST_P(AttentionInvariance, UnevenMixturesOfPrefillAndDecode) {
  const AttentionCase problem = Problem();
  Rig rig(problem.Options(GetParam()));
  RunningAttention running(rig, problem);
  running.Step(std::vector<Advance>{{1, 150}});
  running.Step(std::vector<Advance>{{0, 31}, {1, 1}});
  for (int i = 0; i < 20; ++i) running.Step(std::vector<Advance>{{2, 1 + i % 3}, {0, 1}, {1, 1}});
  running.Step(std::vector<Advance>{{0, 149}, {2, 161}, {1, 29}});
  const bool slow = TraitsOf(GetParam()).slow;
  EXPECT_TRUE(SameBits(running.outputs(),
                       slow ? RunAttention(problem.Options(GetParam()), problem, problem.positions)
                            : Decoded(problem)));
}

TEST_P(AttentionInvariance, ThreadsAndPlacement) {
  const AttentionCase problem = Problem();
  const Rows want = RunAttention(problem.Options(GetParam()), problem, 40);
  for (const int threads : {1, 3, 5}) {
    const auto options = problem.Options(GetParam(), threads, uint64_t(threads) * 17);
    EXPECT_TRUE(SameBits(RunAttention(options, problem, 40), want)) << threads;
  }
}

TEST_P(AttentionInvariance, LongContexts) {
  for (const int window : {0, 1100}) {
    const AttentionCase problem{.shape = Shape(4, 2, 32, window),
                                .sequences = 6,
                                .positions = 2200,
                                .values = Values::kDense};
    // The last positions of sequence 0: alone in steps of one, or together among five others.
    const int last = Fit(GetParam(), 80, 8);
    Rig alone_rig(problem.Options(GetParam()));
    RunningAttention alone(alone_rig, problem);
    alone.Step(std::vector<Advance>{{0, 2120}}, false);
    for (int i = 0; i < last; ++i) alone.Step(std::vector<Advance>{{0, 1}});
    Rig rig(problem.Options(GetParam(), 3, 5));
    RunningAttention crowd(rig, problem);
    for (int s = 0; s < 6; ++s) crowd.Step(std::vector<Advance>{{s, 2120}}, false);
    crowd.Step(std::vector<Advance>{{3, 5}, {0, last}, {1, 40}, {2, 1}, {4, 3}, {5, 40}});
    for (int p = 2120; p < 2120 + last; ++p) {
      ASSERT_TRUE(SameBits(crowd.outputs().At(p), alone.outputs().At(p))) << p;
    }
  }
}

TEST_P(AttentionInvariance, NothingBeyondARowsPositionCounts) {
  // The same tokens over pages of NaN, and while later tokens of the sequence are already there.
  const AttentionCase problem = Problem();
  Rig fresh(problem.Options(GetParam()));
  RunningAttention shorter(fresh, problem);
  shorter.Step(std::vector<Advance>{{0, 77}});
  Rig used(problem.Options(GetParam()));
  RunningAttention longer(used, problem);
  longer.Step(std::vector<Advance>{{0, 200}});
  for (int p = 0; p < 77; ++p) {
    ASSERT_TRUE(SameBits(shorter.outputs().At(p), longer.outputs().At(p))) << p;
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionInvariance, testing::ValuesIn(Variants()), VariantName);

}  // namespace
}  // namespace lorad::kernels::conformance
