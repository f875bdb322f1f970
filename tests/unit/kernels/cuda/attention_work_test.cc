// PlanAttention: every query row is computed once over all the keys that it sees, whatever the
// batch and the device.
#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/attention_ops.h"

namespace lorad::kernels::cuda {
namespace {

struct Batch {
  std::vector<std::vector<uint32_t>> pages;  // of each sequence
  std::vector<SequenceRows> sequences;
  int rows = 0;

  void Add(int position, int tokens, int page_tokens) {
    std::vector<uint32_t> own;
    // One page more than is needed so far.
    for (int i = 0; i <= (position + tokens) / page_tokens + 1; ++i) {
      own.push_back(uint32_t(1000 * pages.size() + 7 * size_t(i)));
    }
    pages.push_back(own);
    sequences.push_back({rows, rows + tokens, position, {}});
    rows += tokens;
  }
  std::span<const SequenceRows> Get() {
    for (size_t i = 0; i < pages.size(); ++i) sequences[i].kv_pages = pages[i];
    return sequences;
  }
};

AttentionShape Shape(int heads, int kv_heads, int window = 0) {
  return {.heads = heads, .kv_heads = kv_heads, .head_dim = 64, .scale = 1.0f, .window = window};
}

// Checks that the lists say what has to be done, no more and no less.
void ExpectComplete(const Batch& batch, const AttentionShape& shape, const AttentionWork& work) {
  const int group = shape.heads / shape.kv_heads;
  // (batch row, head) -> chunks that are computed for it.
  std::map<std::pair<int, int>, std::multiset<int>> done;
  std::map<std::pair<int, int>, int> written;  // how often the output is
  std::map<int, std::set<std::pair<int, int>>> partials;
  std::map<int, int> chunk_of_partial;
  std::vector<int> position_of(size_t(batch.rows)), sequence_of(size_t(batch.rows));
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const SequenceRows& sequence = batch.sequences[s];
    for (int row = sequence.first_row; row < sequence.end_row; ++row) {
      position_of[size_t(row)] = sequence.first_position + row - sequence.first_row;
      sequence_of[size_t(row)] = int(s);
    }
  }
  for (const bool tiles : {false, true}) {
    for (const AttentionItem& item : tiles ? work.tiles : work.items) {
      ASSERT_GT(item.tokens, 0);
      ASSERT_GT(item.heads, 0);
      ASSERT_LE(item.tokens * item.heads, tiles ? kTileRows : kItemRows);
      ASSERT_LE(item.head_begin + item.heads, group);
      ASSERT_LT(item.chunk_begin, item.chunk_end);
      ASSERT_TRUE(item.partial < 0 || item.chunk_end == item.chunk_begin + 1);
      for (int i = 0; i < item.tokens * item.heads; ++i) {
        const int row = item.first_row + i / item.heads;
        const int head = item.kv_head * group + item.head_begin + i % item.heads;
        ASSERT_EQ(position_of[size_t(row)], item.first_position + i / item.heads);
        const auto& pages = batch.pages[size_t(sequence_of[size_t(row)])];
        ASSERT_EQ(work.pages[size_t(item.first_page)], pages[0]);
        for (int c = item.chunk_begin; c < item.chunk_end; ++c) done[{row, head}].insert(c);
        if (item.partial < 0) {
          ++written[{row, head}];
        } else {
          const int partial = item.partial + i / kItemRows;
          ASSERT_LT(partial, work.partials);
          partials[partial].insert({row, head});
          const auto [at, is_new] = chunk_of_partial.try_emplace(partial, item.chunk_begin);
          ASSERT_TRUE(is_new || i % kItemRows != 0) << "two items write one partial";
          ASSERT_EQ(at->second, item.chunk_begin);
        }
      }
    }
  }
  for (const MergeItem& merge : work.merges) {
    for (int p = 0; p < merge.partials; ++p) {
      std::set<std::pair<int, int>> rows;
      for (int i = merge.row_begin;
           i < std::min(merge.row_begin + kItemRows, merge.tokens * merge.heads); ++i) {
        const int row = merge.first_row + i / merge.heads;
        const int head = merge.kv_head * group + merge.head_begin + i % merge.heads;
        rows.insert({row, head});
        if (p == 0) ++written[{row, head}];
      }
      const int partial = merge.partial + p * merge.stride;
      ASSERT_EQ(partials[partial], rows);
      if (p > 0) {
        ASSERT_EQ(chunk_of_partial[partial], chunk_of_partial[partial - merge.stride] + 1);
      }
      partials.erase(partial);
    }
  }
  ASSERT_TRUE(partials.empty()) << "partials that nobody merges";
  for (int row = 0; row < batch.rows; ++row) {
    const int position = position_of[size_t(row)];
    const int first = shape.window > 0 ? std::max(0, position - shape.window + 1) : 0;
    for (int head = 0; head < shape.heads; ++head) {
      ASSERT_EQ((written[{row, head}]), 1) << row << " " << head;
      const auto& chunks = done[{row, head}];
      for (int c = first / kKeyChunk; c <= position / kKeyChunk; ++c) {
        ASSERT_EQ(chunks.count(c), 1u);
      }
      for (const int c : chunks) ASSERT_EQ(chunks.count(c), 1u);
    }
  }
}

TEST(CudaAttentionWork, RandomBatches) {
  std::mt19937_64 random(5);
  AttentionWork work;  // one for all: what is left of a step must not show
  for (int round = 0; round < 60; ++round) {
    const auto draw = [&](int below) { return int(random() % uint64_t(below)); };
    const int page_tokens = 16 * (1 + draw(4));
    Batch batch;
    for (int s = 0, n = 1 + draw(6); s < n; ++s) {
      batch.Add(draw(1500), draw(3) == 0 ? 1 + draw(200) : 1 + draw(3), page_tokens);
    }
    const int kv_heads = 1 + draw(3);
    const int groups[] = {1, 2, 3, 8, 16, 17, 20, 32, 40};
    const AttentionShape shape =
        Shape(kv_heads * groups[draw(9)], kv_heads, draw(2) ? 0 : 1 + draw(600));
    const DeviceFacts device{.multiprocessors = 1 << draw(10)};
    const int spare = draw(5);
    PlanAttention(batch.Get(), batch.rows + spare, shape, page_tokens, device, &work);
    ASSERT_NO_FATAL_FAILURE(ExpectComplete(batch, shape, work)) << round;
    ASSERT_EQ(work.places.size(), size_t(batch.rows + spare));
    for (const SequenceRows& sequence : batch.Get()) {
      for (int row = sequence.first_row; row < sequence.end_row; ++row) {
        const int position = sequence.first_position + row - sequence.first_row;
        const RowPlace& place = work.places[size_t(row)];
        ASSERT_EQ(place.position, position);
        ASSERT_EQ(place.slot, position % page_tokens);
        ASSERT_EQ(uint32_t(place.page), sequence.kv_pages[size_t(position / page_tokens)]);
      }
    }
    for (int row = batch.rows; row < batch.rows + spare; ++row) {
      ASSERT_LT(work.places[size_t(row)].page, 0);
    }
  }
}

TEST(CudaAttentionWork, FewRowsAreItemsAndManyAreTiles) {
  AttentionWork work;
  Batch batch;
  batch.Add(100, 8, 16);  // 32 query rows of a KV head
  batch.Add(100, 9, 16);  // 36
  PlanAttention(batch.Get(), batch.rows, Shape(8, 2), 16, {.multiprocessors = 100}, &work);
  EXPECT_EQ(work.items.size(), 4u);  // two for each KV head
  EXPECT_EQ(work.tiles.size(), 2u);
  EXPECT_EQ(work.partials, 0);  // one chunk of keys
}

TEST(CudaAttentionWork, LongestFirst) {
  AttentionWork work;
  Batch batch;
  for (int i = 0; i < 20; ++i) {
    batch.Add(i * 97 % 1000, 1, 16);
    batch.Add(i * 57 % 900, 70, 16);
  }
  PlanAttention(batch.Get(), batch.rows, Shape(4, 2), 16, {.multiprocessors = 1}, &work);
  for (const auto* list : {&work.items, &work.tiles}) {
    ASSERT_GT(list->size(), 20u);
    EXPECT_TRUE(std::ranges::is_sorted(*list, std::ranges::greater(), [](const AttentionItem& i) {
      return i.chunk_end - i.chunk_begin;
    }));
  }
}

// Decode of few sequences leaves a large device idle unless it is cut; many sequences fill it, and
// partials would only cost.
TEST(CudaAttentionWork, CutsWhatWouldLeaveTheDeviceIdle) {
  AttentionWork work;
  Batch one;
  one.Add(4000, 1, 16);
  PlanAttention(one.Get(), one.rows, Shape(32, 8), 16, {.multiprocessors = 132}, &work);
  EXPECT_EQ(work.items.size(), 8u * 16u);
  EXPECT_EQ(work.merges.size(), 8u);
  EXPECT_EQ(work.partials, 8 * 16);
  Batch many;
  for (int i = 0; i < 2000; ++i) many.Add(600, 1, 16);
  PlanAttention(many.Get(), many.rows, Shape(32, 8), 16, {.multiprocessors = 132}, &work);
  EXPECT_TRUE(work.merges.empty());
  EXPECT_EQ(work.partials, 0);
}

TEST(CudaAttentionWork, AWindowLeavesOutWhatNoRowSees) {
  AttentionWork work;
  Batch batch;
  batch.Add(5000, 1, 16);
  PlanAttention(batch.Get(), batch.rows, Shape(4, 1, 256), 16, {.multiprocessors = 1}, &work);
  int chunks = 0;
  for (const AttentionItem& item : work.items) chunks += item.chunk_end - item.chunk_begin;
  EXPECT_EQ(chunks, 2);
}

}  // namespace
}  // namespace lorad::kernels::cuda
