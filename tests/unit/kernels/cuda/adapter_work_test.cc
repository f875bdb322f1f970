// Work lists cover what there is to do exactly once, and sites share them when they may.
#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/adapter_index.h"
#include "kernels/cuda/adapter_ops.h"

namespace lorad::kernels::cuda {
namespace {

struct Shape {
  uint32_t site, out_begin;
  int rank, d_in, out_cols;
};

AdapterLayout Layout(const std::vector<Shape>& modules, uint32_t sites = 8,
                     size_t page_bytes = 65536) {
  std::vector<LowRankFactors> factors;
  for (const Shape& m : modules) {
    LowRankFactors f{.site = m.site, .out_begin = m.out_begin};
    f.a = {DType::kBF16, nullptr, m.rank, m.d_in};
    f.b = {DType::kBF16, nullptr, m.out_cols, m.rank};
    factors.push_back(f);
  }
  return PlanAdapterImage(factors, sites, page_bytes);
}

// Layouts and the segments of a step.
struct Step {
  std::vector<AdapterLayout> layouts;
  std::vector<std::vector<uint32_t>> pages;
  std::vector<AdapterSegment> segments;

  // One segment for each of rows, with the layouts in turn; `gap` base rows before each.
  Step(std::vector<AdapterLayout> all, const std::vector<int>& rows, int gap = 1)
      : layouts(std::move(all)) {
    for (size_t i = 0; i < rows.size(); ++i) pages.emplace_back();
    int row = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      const AdapterLayout& layout = layouts[i % layouts.size()];
      for (uint32_t p = 0; p < layout.pages; ++p) pages[i].push_back(uint32_t(1000 * i) + p);
      segments.push_back({.first_row = row + gap,
                          .end_row = row + gap + rows[i],
                          .layout = &layout,
                          .pages = pages[i],
                          .weight = 0.5f + float(i)});
      row += gap + rows[i];
    }
  }
};

DeviceFacts Device(int multiprocessors) {
  DeviceFacts facts;
  facts.multiprocessors = multiprocessors;
  return facts;
}

// The segment that has an entry's first row.
const AdapterSegment& SegmentOf(const Step& step, const SegmentEntry& entry) {
  const auto at = std::ranges::find_if(step.segments, [&](const AdapterSegment& s) {
    return s.first_row <= entry.first_row && entry.first_row < s.end_row;
  });
  EXPECT_NE(at, step.segments.end());
  return *at;
}

void ExpectEntriesCoverRows(const Step& step, const AdapterWork& work) {
  std::set<int> rows;
  for (const SegmentEntry& entry : work.entries()) {
    const AdapterSegment& segment = SegmentOf(step, entry);
    EXPECT_LE(entry.first_row + entry.rows, segment.end_row);
    EXPECT_GE(entry.rows, 1);
    EXPECT_LE(entry.rows, 64);
    EXPECT_EQ(entry.weight, segment.weight);
    for (uint32_t p = 0; p < segment.layout->pages; ++p) {
      EXPECT_EQ(work.pages()[size_t(entry.first_page) + p], segment.pages[p]);
    }
    for (int row = entry.first_row; row < entry.first_row + entry.rows; ++row) {
      EXPECT_TRUE(rows.insert(row).second) << "row " << row << " is in two entries";
    }
  }
  size_t want = 0;
  for (const AdapterSegment& s : step.segments) want += size_t(s.end_row - s.first_row);
  EXPECT_EQ(rows.size(), want);
}

// Every rank tile and span of every entry once, and every group of outputs of every module; each
// kind of kernel has its kind of entry; what shrink writes is what expand reads; nothing overlaps.
void ExpectWorkCovers(const Step& step, AdapterWork& work, uint32_t site) {
  const SiteWork& lists = work.At(site);
  const auto& entries = work.entries();
  std::set<std::tuple<int, int, int>> shrunk;    // entry, rank tile, span
  std::set<std::tuple<int, int, int>> expanded;  // entry, module, group
  std::map<int, int> scratch;                    // of an entry
  const auto shrink = [&](const std::vector<ShrinkItem>& items, bool many) {
    for (const ShrinkItem& item : items) {
      const SegmentEntry& entry = entries[size_t(item.segment)];
      EXPECT_EQ(entry.rows > 16, many);
      EXPECT_EQ(item.first_page, entry.first_page);
      EXPECT_LT(item.tile_begin, item.tile_end);
      EXPECT_LE(item.tile_end - item.tile_begin, 6);
      EXPECT_LT(item.span_begin, item.span_end);
      EXPECT_EQ(scratch.try_emplace(item.segment, item.scratch).first->second, item.scratch);
      for (int tile = item.tile_begin; tile < item.tile_end; ++tile) {
        for (int span = item.span_begin; span < item.span_end; ++span) {
          EXPECT_TRUE(shrunk.emplace(item.segment, tile, span).second);
        }
      }
    }
  };
  shrink(lists.shrink_few, false);
  shrink(lists.shrink_many, true);
  const auto expand = [&](const std::vector<ExpandItem>& items, bool many) {
    for (const ExpandItem& item : items) {
      const SegmentEntry& entry = entries[size_t(item.segment)];
      const AdapterLayout& layout = *SegmentOf(step, entry).layout;
      EXPECT_EQ(entry.rows > 16, many);
      EXPECT_EQ(item.first_page, entry.first_page);
      EXPECT_EQ(item.site_modules, int(layout.site_modules));
      const auto modules = layout.At(site);
      ASSERT_LT(size_t(item.module), modules.size());
      const AdapterModule& m = modules[size_t(item.module)];
      EXPECT_EQ(item.rank_tiles, (int(m.rank) + 7) / 8);
      int first_tile = 0;
      for (int i = 0; i < item.module; ++i) first_tile += (int(modules[size_t(i)].rank) + 7) / 8;
      ASSERT_TRUE(scratch.contains(item.segment));
      EXPECT_EQ(item.scratch, scratch[item.segment] + first_tile * 8);
      EXPECT_LT(item.group_begin, item.group_end);
      for (int group = item.group_begin; group < item.group_end; ++group) {
        EXPECT_TRUE(expanded.emplace(item.segment, item.module, group).second);
      }
    }
  };
  expand(lists.expand_few, false);
  expand(lists.expand_many, true);

  size_t tiles_want = 0, groups_want = 0, floats = 0;
  std::map<int, size_t> ends;  // of scratch, by begin
  for (size_t e = 0; e < entries.size(); ++e) {
    int tiles = 0, inputs = 0, module = 0;
    for (const AdapterModule& m : SegmentOf(step, entries[e]).layout->At(site)) {
      tiles += (int(m.rank) + 7) / 8;
      inputs = std::max(inputs, int(m.d_in));
      const int groups = (int(m.out_cols) + 31) / 32;
      groups_want += size_t(groups);
      for (int g = 0; g < groups; ++g) EXPECT_TRUE(expanded.contains({int(e), module, g}));
      ++module;
    }
    const int spans = (inputs + 1023) / 1024;
    tiles_want += size_t(tiles) * size_t(spans);
    for (int t = 0; t < tiles; ++t) {
      for (int s = 0; s < spans; ++s) EXPECT_TRUE(shrunk.contains({int(e), t, s}));
    }
    const size_t own = size_t(tiles) * 8 * size_t(spans) * size_t(entries[e].rows);
    if (tiles > 0) {
      EXPECT_GE(scratch[int(e)], 0);
      EXPECT_TRUE(ends.emplace(scratch[int(e)], size_t(scratch[int(e)]) + own).second);
    }
    floats += own;
    for (const auto* items : {&lists.shrink_few, &lists.shrink_many}) {
      for (const ShrinkItem& item : *items) {
        if (item.segment != int(e)) continue;
        EXPECT_EQ(item.site_tiles, tiles);
        EXPECT_EQ(item.k_tiles, (inputs + 63) / 64);
      }
    }
    for (const auto* items : {&lists.expand_few, &lists.expand_many}) {
      for (const ExpandItem& item : *items) {
        if (item.segment != int(e)) continue;
        EXPECT_EQ(item.spans, spans);
        EXPECT_EQ(item.rank_stride, tiles * 8);
      }
    }
  }
  EXPECT_EQ(shrunk.size(), tiles_want);
  EXPECT_EQ(expanded.size(), groups_want);
  size_t end = 0;
  for (const auto& [begin, its_end] : ends) {
    EXPECT_GE(size_t(begin), end);
    EXPECT_EQ(begin % 8, 0);
    end = its_end;
  }
  EXPECT_LE(end, work.scratch_floats());
  EXPECT_GE(work.scratch_floats(), floats);
}

TEST(AdapterWorkTest, CoversEverythingOnce) {
  std::mt19937_64 random(11);
  const auto draw = [&](int low, int high) {
    return low + int(random() % uint64_t(high - low + 1));
  };
  AdapterWork work;  // one for all: nothing of a step stays
  for (int trial = 0; trial < 120; ++trial) {
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    std::vector<AdapterLayout> layouts;
    for (int i = draw(1, 5); i > 0; --i) {
      std::vector<Shape> modules;
      for (uint32_t site = 0; site < 8; ++site) {
        for (uint32_t m = 0; m < 3; ++m) {
          if (draw(0, 2) == 0) continue;
          modules.push_back({site, m * 5000, draw(1, 256), draw(1, 3000), draw(1, 5000)});
        }
      }
      layouts.push_back(Layout(modules));
    }
    std::vector<int> rows;
    for (int i = draw(1, 20); i > 0; --i) {
      rows.push_back(draw(0, 2) == 0 ? draw(17, 300) : draw(1, 16));
    }
    const Step step(std::move(layouts), rows, draw(0, 2));
    const int sizes[] = {1, 4, 108, 132};
    work.Begin(step.segments, Device(sizes[trial % 4]));
    ExpectEntriesCoverRows(step, work);
    for (const uint32_t site : {0u, 3u, 7u}) ExpectWorkCovers(step, work, site);
    if (HasFailure()) return;
  }
}

TEST(AdapterWorkTest, BaseRowsAndOtherSitesCostNothing) {
  AdapterWork work;
  work.Begin({}, Device(132));
  EXPECT_TRUE(work.entries().empty());
  EXPECT_TRUE(work.At(0).shrink_few.empty());
  EXPECT_EQ(work.scratch_floats(), 0u);

  const Step step({Layout({{2, 0, 8, 64, 64}}), Layout({}), Layout({{3, 0, 8, 64, 64}})},
                  {5, 40, 40});
  work.Begin(step.segments, Device(132));
  EXPECT_EQ(work.entries().size(), 2u);  // the second has no modules
  EXPECT_TRUE(work.At(0).shrink_few.empty() && work.At(0).expand_many.empty());
  EXPECT_TRUE(work.At(77).shrink_many.empty());  // no layout knows this site
  EXPECT_EQ(work.At(2).shrink_few.size(), 1u);
  EXPECT_TRUE(work.At(2).shrink_many.empty());
  EXPECT_TRUE(work.At(3).shrink_few.empty());
  EXPECT_EQ(work.At(3).shrink_many.size(), 1u);
}

TEST(AdapterWorkTest, SitesOfEqualShapesShareOneList) {
  // Sites 0 and 4 are equal in both; 1 and 5 only in the first; 2 and 6 only in the second.
  const auto module = [](uint32_t site, int rank) { return Shape{site, 0, rank, 64, 64}; };
  const Step step(
      {Layout({module(0, 8), module(4, 8), module(1, 8), module(5, 8), module(2, 8), module(6, 9)}),
       Layout({module(0, 32), module(4, 32), module(1, 8), module(5, 16), module(2, 64),
               module(6, 64)})},
      {3, 3, 3});
  AdapterWork work;
  work.Begin(step.segments, Device(8));
  const SiteWork* first = &work.At(0);
  EXPECT_EQ(&work.At(4), first);
  EXPECT_NE(&work.At(1), &work.At(5));
  EXPECT_NE(&work.At(2), &work.At(6));
  EXPECT_EQ(&work.At(3), &work.At(7));  // nothing at either
  EXPECT_EQ(&work.At(0), first);
  for (uint32_t site = 0; site < 8; ++site) ExpectWorkCovers(step, work, site);
}

// Rows and columns of the fused activation once each, modules where they are.
void ExpectSwiGluCovers(const Step& step, AdapterWork& work, uint32_t site, int rows, int ffn) {
  const SwiGluWork* lists = work.SwiGlu(site, rows, ffn);
  ASSERT_NE(lists, nullptr);
  work.At(site);
  std::set<std::tuple<int, int>> done;  // row, group
  for (const bool many : {false, true}) {
    for (const SwiGluItem& item : many ? lists->many : lists->few) {
      EXPECT_EQ(item.rows > 16, many);
      EXPECT_GE(item.rows, 1);
      EXPECT_LE(item.rows, 64);
      for (int row = item.first_row; row < item.first_row + item.rows; ++row) {
        for (int group = item.group_begin; group < item.group_end; ++group) {
          EXPECT_TRUE(done.emplace(row, group).second);
        }
      }
      int gate_tiles = 0, up_tiles = 0;
      if (item.segment >= 0) {
        const SegmentEntry& entry = work.entries()[size_t(item.segment)];
        EXPECT_EQ(entry.first_row, item.first_row);
        EXPECT_EQ(entry.rows, item.rows);
        EXPECT_EQ(entry.first_page, item.first_page);
        const AdapterLayout& layout = *SegmentOf(step, entry).layout;
        EXPECT_EQ(item.site_modules, int(layout.site_modules));
        int module = 0, tiles = 0;
        const auto& shrinks = many ? work.At(site).shrink_many : work.At(site).shrink_few;
        const auto shrink = std::ranges::find(shrinks, item.segment, &ShrinkItem::segment);
        for (const AdapterModule& m : layout.At(site)) {
          ASSERT_NE(shrink, shrinks.end());
          EXPECT_EQ(item.rank_stride, shrink->site_tiles * 8);
          EXPECT_EQ(item.spans, int(m.d_in + 1023) / 1024);
          const bool gate = m.out_begin == 0;
          (gate ? gate_tiles : up_tiles) = int(m.rank + 7) / 8;
          EXPECT_EQ(gate ? item.gate_module : item.up_module, module);
          EXPECT_EQ(gate ? item.gate_scratch : item.up_scratch, shrink->scratch + 8 * tiles);
          tiles += int(m.rank + 7) / 8;
          ++module;
        }
      } else {
        EXPECT_TRUE(std::ranges::none_of(step.segments, [&](const AdapterSegment& s) {
          return s.first_row < item.first_row + item.rows && item.first_row < s.end_row &&
                 !s.layout->modules.empty();
        }));
      }
      EXPECT_EQ(item.gate_tiles, gate_tiles);
      EXPECT_EQ(item.up_tiles, up_tiles);
    }
  }
  EXPECT_EQ(done.size(), size_t(rows) * size_t((ffn + 31) / 32));
}

TEST(AdapterWorkTest, TheActivationCoversAllRows) {
  const std::vector<Shape> both = {{2, 0, 16, 500, 200}, {2, 200, 16, 500, 200}};
  const Step step(
      {Layout(both), Layout({{2, 200, 40, 1500, 200}}), Layout({{1, 0, 8, 64, 64}}), Layout({})},
      {3, 70, 5, 6, 33, 16}, 20);
  const int rows = 20 * 6 + 3 + 70 + 5 + 6 + 33 + 16;
  AdapterWork work;
  for (const int multiprocessors : {1, 132}) {
    for (const int more : {0, 7}) {  // base rows at the end
      work.Begin(step.segments, Device(multiprocessors));
      ExpectSwiGluCovers(step, work, 2, rows + more, 200);
      ExpectSwiGluCovers(step, work, 0, rows + more, 200);  // no modules at all
    }
    // What was handed out stays as it is.
    const SwiGluWork* lists = work.SwiGlu(2, rows + 7, 200);
    EXPECT_EQ(work.SwiGlu(2, rows, 200), nullptr);
    EXPECT_EQ(work.SwiGlu(2, rows + 7, 208), nullptr);
    EXPECT_EQ(work.SwiGlu(2, rows + 7, 200), lists);
  }
}

TEST(AdapterWorkTest, TheActivationIsFusedOnlyWithAllOfGateOrUp) {
  const auto fused = [](const Shape& module, int ffn) {
    const Step step({Layout({{2, 0, 8, 64, 64}}), Layout({module})}, {1, 1});
    AdapterWork work;
    work.Begin(step.segments, Device(8));
    return work.SwiGlu(2, 4, ffn) != nullptr;
  };
  EXPECT_TRUE(fused({2, 0, 8, 64, 64}, 64));
  EXPECT_TRUE(fused({2, 64, 8, 64, 64}, 64));
  EXPECT_TRUE(fused({1, 3, 8, 64, 5}, 64));
  EXPECT_FALSE(fused({2, 32, 8, 64, 64}, 64));
  EXPECT_FALSE(fused({2, 0, 8, 64, 63}, 64));
  EXPECT_FALSE(fused({2, 0, 8, 64, 128}, 64));
  EXPECT_FALSE(fused({2, 64, 8, 64, 32}, 64));
  // Ranks whose v does not fit a block. Up to 32 rows are cut into entries of 16.
  const auto ranked = [](int rank, int rows) {
    const Step step({Layout({{2, 0, 8, 64, 64}, {2, 64, rank, 64, 64}})}, {rows});
    AdapterWork work;
    work.Begin(step.segments, Device(8));
    return work.SwiGlu(2, rows, 64) != nullptr;
  };
  EXPECT_TRUE(ranked(kSwiGluFewRanks, 1));
  EXPECT_TRUE(ranked(kSwiGluFewRanks, 32));
  EXPECT_FALSE(ranked(kSwiGluFewRanks + 1, 1));
  EXPECT_TRUE(ranked(kSwiGluManyRanks, 33));
  EXPECT_FALSE(ranked(kSwiGluManyRanks + 1, 33));
  const Step odd({Layout({{2, 0, 8, 64, 60}})}, {1});
  AdapterWork work;
  work.Begin(odd.segments, Device(8));
  EXPECT_EQ(work.SwiGlu(2, 1, 60), nullptr);
  // The same shape at other columns is another list.
  const Step columns({Layout({{0, 0, 8, 64, 64}, {1, 64, 8, 64, 64}, {3, 7, 8, 64, 64}})}, {4});
  work.Begin(columns.segments, Device(8));
  EXPECT_NE(work.SwiGlu(0, 4, 64), work.SwiGlu(1, 4, 64));
  EXPECT_EQ(work.SwiGlu(3, 4, 64), nullptr);
}

TEST(AdapterWorkTest, OneSmallAdapterIsSplitAndManyAreNot) {
  // q, k and v of rank 16 of a model with 4096 inputs.
  const std::vector<Shape> qkv = {
      {0, 0, 16, 4096, 4096}, {0, 4096, 16, 4096, 1024}, {0, 5120, 16, 4096, 1024}};
  AdapterWork work;
  const Step one({Layout(qkv)}, {1});
  work.Begin(one.segments, Device(132));
  EXPECT_EQ(work.At(0).shrink_few.size(), 6u * 4);  // a rank tile and a span each
  EXPECT_EQ(work.At(0).expand_few.size(), 192u / 4);
  const Step hundred({Layout(qkv)}, std::vector<int>(100, 1), 0);
  work.Begin(hundred.segments, Device(132));
  EXPECT_GE(work.At(0).shrink_few.size(), 528u);
  EXPECT_LE(work.At(0).shrink_few.size(), 2u * 1056);
  EXPECT_GE(work.At(0).expand_few.size(), 528u);
  EXPECT_LE(work.At(0).expand_few.size(), 2u * 1056);
  // A prompt of 2048 tokens reads x once.
  const Step prompt({Layout(qkv)}, {2048});
  work.Begin(prompt.segments, Device(132));
  EXPECT_EQ(work.At(0).shrink_many.size(), 32u * 4);
}

TEST(AdapterWorkTest, ALaterStepUsesTheMemoryOfAnEarlierOne) {
  const Step step({Layout({{0, 0, 16, 2048, 512}, {1, 0, 24, 512, 2048}})}, {1, 2, 3, 100});
  AdapterWork work;
  work.Begin(step.segments, Device(132));
  const ShrinkItem* shrink = work.At(0).shrink_few.data();
  const ExpandItem* expand = work.At(1).expand_many.data();
  const SegmentEntry* entries = work.entries().data();
  work.Begin(step.segments, Device(132));
  EXPECT_EQ(work.At(0).shrink_few.data(), shrink);
  EXPECT_EQ(work.At(1).expand_many.data(), expand);
  EXPECT_EQ(work.entries().data(), entries);
}

TEST(AdapterWorkTest, ScratchHasABound) {
  const std::vector<Shape> modules = {{0, 0, 17, 3000, 10}, {0, 10, 1, 3000, 10}};
  const Step step({Layout(modules)}, {100, 7, 30});
  AdapterWork work;
  work.Begin(step.segments, Device(132));
  work.At(0);
  EXPECT_EQ(work.scratch_floats(), MaxScratchFloats(137, 24 + 8, 3000));
  EXPECT_EQ(MaxScratchFloats(1, 1, 1), 8u);
}

}  // namespace
}  // namespace lorad::kernels::cuda
