// Work lists: what blocks do for the adapters of a step. How finely work is cut depends on how much
// there is and on the device; the results do not.
#include <algorithm>
#include <array>
#include <limits>

#include "kernels/cuda/adapter_index.h"
#include "kernels/cuda/adapter_ops.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kFewRows = 16;
constexpr int kManyRows = 64;
// Up to so many rows are cut into entries of 16: the second reads the weights from L2, and splits
// sums over inputs among warps, so that it takes a fraction of the time of a block of 64 rows.
constexpr int kMostFewRows = 32;
// Blocks of 128 threads that a multiprocessor holds.
constexpr int kBlocks = 4;
// Rank tiles that a shrink item may have, most first.
constexpr std::array<int, 5> kTileChoices = {6, 4, 3, 2, 1};
// Groups of outputs that an item has at least, and a multiple of: one for each warp.
constexpr int kGroupStep = 4;

// Where part `part` of `parts` equal ones of [0, count) begins.
int PartBegin(int count, int parts, int part) {
  return static_cast<int>(int64_t{count} * part / parts);
}

}  // namespace

void AdapterWork::Begin(std::span<const AdapterSegment> segments, const DeviceFacts& device) {
  entries_.clear();
  pages_.clear();
  layouts_.clear();
  shapes_.clear();
  used_ = 0;
  scratch_floats_ = 0;
  multiprocessors_ = std::max(1, device.multiprocessors);
  for (const AdapterSegment& segment : segments) {
    const AdapterLayout* layout = segment.layout;
    if (layout == nullptr || layout->modules.empty()) continue;
    LORAD_CHECK(segment.pages.size() >= layout->pages);
    LORAD_CHECK(layout->site_shape.size() + 1 == layout->site_begin.size());
    AddEntries(segment);
    // Adapters of one kind, and there may be hundreds of them, group the sites alike.
    const bool known = std::ranges::any_of(shapes_, [&](const AdapterLayout* other) {
      return other == layout || other->site_shape == layout->site_shape;
    });
    if (!known) shapes_.push_back(layout);
  }
}

void AdapterWork::AddEntries(const AdapterSegment& segment) {
  const auto first_page = static_cast<int32_t>(pages_.size());
  pages_.insert(pages_.end(), segment.pages.begin(), segment.pages.end());
  for (int row = segment.first_row; row < segment.end_row;) {
    const int left = segment.end_row - row;
    const int rows = std::min(left, left <= kMostFewRows ? kFewRows : kManyRows);
    entries_.push_back(
        {.first_row = row, .rows = rows, .first_page = first_page, .weight = segment.weight});
    layouts_.push_back(segment.layout);
    row += rows;
  }
}

const SiteWork& AdapterWork::At(uint32_t site) { return Find(site).work; }

AdapterWork::KnownSite& AdapterWork::Find(uint32_t site) {
  key_.clear();
  for (const AdapterLayout* layout : shapes_) {
    key_.push_back(site < layout->site_shape.size() ? layout->site_shape[site]
                                                    : std::numeric_limits<uint32_t>::max());
  }
  for (size_t i = 0; i < used_; ++i) {
    if (known_[i]->shapes == key_) return *known_[i];
  }
  if (used_ == known_.size()) known_.push_back(std::make_unique<KnownSite>());
  KnownSite& fresh = *known_[used_++];
  fresh.shapes = key_;
  fresh.swiglu_rows = 0;
  Build(site, fresh.work);
  return fresh;
}

size_t AdapterWork::PlanScratch(uint32_t site) {
  at_site_.clear();
  size_t floats = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    EntrySite at;
    uint32_t inputs = 0;
    for (const AdapterModule& m : layouts_[i]->At(site)) {
      at.tiles += static_cast<int32_t>(RankTiles(m.rank));
      inputs = std::max(inputs, m.d_in);
    }
    at.k_tiles = static_cast<int32_t>(DivideUp(inputs, kTileInputs));
    at.spans = static_cast<int32_t>(DivideUp(inputs, kSpanInputs));
    at.scratch = static_cast<int32_t>(floats);
    at_site_.push_back(at);
    floats += size_t(entries_[i].rows) * size_t(at.spans) * size_t(at.tiles) * kTileRanks;
    LORAD_CHECK(floats <= size_t{std::numeric_limits<int32_t>::max()});
  }
  return floats;
}

void AdapterWork::Build(uint32_t site, SiteWork& work) {
  scratch_floats_ = std::max(scratch_floats_, PlanScratch(site));
  BuildShrink(/*many=*/false, work.shrink_few);
  BuildShrink(/*many=*/true, work.shrink_many);
  BuildExpand(site, /*many=*/false, work.expand_few);
  BuildExpand(site, /*many=*/true, work.expand_many);
}

void AdapterWork::BuildShrink(bool many, std::vector<ShrinkItem>& items) {
  items.clear();
  // With few rows the weights count, and enough blocks must read them; with many rows x does, and
  // an item with all rank tiles reads it once. The most tiles an item that still make enough items:
  const int wanted = many ? multiprocessors_ * 3 / 4 : kBlocks * multiprocessors_;
  int tiles = 0;
  int64_t count = 0;
  for (const int choice : kTileChoices) {
    tiles = choice;
    count = 0;
    for (size_t i = 0; i < entries_.size(); ++i) {
      if ((entries_[i].rows > kFewRows) != many) continue;
      count += int64_t{DivideUp(at_site_[i].tiles, tiles)} * at_site_[i].spans;
    }
    if (count >= wanted) break;
  }
  // Two rounds of blocks, if there is more: longer items keep loads under way.
  const auto spans_each =
      static_cast<int>(std::clamp<int64_t>(count / (2 * kBlocks * multiprocessors_), 1, 1 << 20));
  for (size_t i = 0; i < entries_.size(); ++i) {
    const EntrySite& at = at_site_[i];
    if ((entries_[i].rows > kFewRows) != many || at.tiles == 0) continue;
    const int span_parts = DivideUp(at.spans, spans_each);
    const int tile_parts = DivideUp(at.tiles, tiles);
    for (int s = 0; s < span_parts; ++s) {
      for (int t = 0; t < tile_parts; ++t) {
        items.push_back({.segment = static_cast<int32_t>(i),
                         .first_page = entries_[i].first_page,
                         .site_modules = static_cast<int32_t>(layouts_[i]->site_modules),
                         .site_tiles = at.tiles,
                         .tile_begin = PartBegin(at.tiles, tile_parts, t),
                         .tile_end = PartBegin(at.tiles, tile_parts, t + 1),
                         .k_tiles = at.k_tiles,
                         .span_begin = PartBegin(at.spans, span_parts, s),
                         .span_end = PartBegin(at.spans, span_parts, s + 1),
                         .scratch = at.scratch});
      }
    }
  }
}

void AdapterWork::BuildExpand(uint32_t site, bool many, std::vector<ExpandItem>& items) {
  items.clear();
  // What a group of outputs costs: its B tiles, or with many rows mostly its share of y.
  const auto cost_of = [&](int rank_tiles) { return many ? 16 + rank_tiles : rank_tiles; };
  int64_t cost = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if ((entries_[i].rows > kFewRows) != many) continue;
    for (const AdapterModule& m : layouts_[i]->At(site)) {
      cost += int64_t{DivideUp(m.out_cols, kTileOutputs)} * cost_of(int(RankTiles(m.rank)));
    }
  }
  const int64_t cost_each = DivideUp<int64_t>(cost, 2 * kBlocks * multiprocessors_);
  for (size_t i = 0; i < entries_.size(); ++i) {
    if ((entries_[i].rows > kFewRows) != many) continue;
    const EntrySite& at = at_site_[i];
    int module = 0, first_tile = 0;
    for (const AdapterModule& m : layouts_[i]->At(site)) {
      const int rank_tiles = static_cast<int>(RankTiles(m.rank));
      const int groups = static_cast<int>(DivideUp(m.out_cols, kTileOutputs));
      const int steps = DivideUp(groups, kGroupStep);
      const auto steps_each = std::max<int64_t>(
          1, DivideUp<int64_t>(cost_each, int64_t{cost_of(rank_tiles)} * kGroupStep));
      const auto parts = static_cast<int>(DivideUp<int64_t>(steps, steps_each));
      for (int part = 0; part < parts; ++part) {
        items.push_back(
            {.segment = static_cast<int32_t>(i),
             .first_page = entries_[i].first_page,
             .site_modules = static_cast<int32_t>(layouts_[i]->site_modules),
             .module = module,
             .group_begin = PartBegin(steps, parts, part) * kGroupStep,
             .group_end = std::min(groups, PartBegin(steps, parts, part + 1) * kGroupStep),
             .rank_tiles = rank_tiles,
             .spans = at.spans,
             .rank_stride = at.tiles * int{kTileRanks},
             .scratch = at.scratch + first_tile * int{kTileRanks}});
      }
      ++module;
      first_tile += rank_tiles;
    }
  }
}

const SwiGluWork* AdapterWork::SwiGlu(uint32_t site, int rows, int ffn) {
  KnownSite& known = Find(site);
  if (known.swiglu_rows == 0) {
    known.swiglu_rows = rows;
    known.swiglu_ffn = ffn;
    known.swiglu_possible = ffn % 8 == 0 && ListSwiGluRows(site, rows, ffn);
    if (known.swiglu_possible) {
      BuildSwiGlu(ffn, /*many=*/false, known.swiglu.few);
      BuildSwiGlu(ffn, /*many=*/true, known.swiglu.many);
    }
  }
  // A list that was handed out does not change.
  const bool same = known.swiglu_rows == rows && known.swiglu_ffn == ffn;
  return known.swiglu_possible && same ? &known.swiglu : nullptr;
}

bool AdapterWork::ListSwiGluRows(uint32_t site, int rows, int ffn) {
  PlanScratch(site);
  swiglu_rows_.clear();
  int row = 0;
  const auto base_rows_to = [&](int end) {
    while (row < end) {
      swiglu_rows_.push_back({.first_row = row, .rows = std::min(end - row, kManyRows)});
      row += swiglu_rows_.back().rows;
    }
  };
  for (size_t i = 0; i < entries_.size(); ++i) {
    const SegmentEntry& entry = entries_[i];
    const EntrySite& at = at_site_[i];
    base_rows_to(entry.first_row);
    row += entry.rows;
    SwiGluItem item{.segment = static_cast<int32_t>(i),
                    .first_row = entry.first_row,
                    .rows = entry.rows,
                    .first_page = entry.first_page,
                    .site_modules = static_cast<int32_t>(layouts_[i]->site_modules),
                    .spans = at.spans,
                    .rank_stride = at.tiles * int{kTileRanks}};
    const int most_ranks = entry.rows > kFewRows ? kSwiGluManyRanks : kSwiGluFewRanks;
    int module = 0, scratch = at.scratch;
    for (const AdapterModule& m : layouts_[i]->At(site)) {
      if (int(m.out_cols) != ffn || (m.out_begin != 0 && int(m.out_begin) != ffn)) return false;
      const int tiles = static_cast<int>(RankTiles(m.rank));
      if (tiles * int{kTileRanks} > most_ranks) return false;
      if (m.out_begin == 0) {
        item.gate_module = module;
        item.gate_tiles = tiles;
        item.gate_scratch = scratch;
      } else {
        item.up_module = module;
        item.up_tiles = tiles;
        item.up_scratch = scratch;
      }
      scratch += tiles * int{kTileRanks};
      ++module;
    }
    swiglu_rows_.push_back(item);
  }
  base_rows_to(rows);
  return true;
}

void AdapterWork::BuildSwiGlu(int ffn, bool many, std::vector<SwiGluItem>& items) {
  items.clear();
  const int groups = DivideUp(ffn, int{kTileOutputs});
  const int steps = DivideUp(groups, kGroupStep);
  // What a group costs: its B tiles, and its share of gate, up and the result.
  const auto cost_of = [&](const SwiGluItem& item) {
    return item.gate_tiles + item.up_tiles + (many ? 24 : 6);
  };
  int64_t cost = 0;
  for (const SwiGluItem& item : swiglu_rows_) {
    if ((item.rows > kFewRows) == many) cost += int64_t{groups} * cost_of(item);
  }
  const int64_t cost_each = DivideUp<int64_t>(cost, 2 * kBlocks * multiprocessors_);
  for (SwiGluItem item : swiglu_rows_) {
    if ((item.rows > kFewRows) != many) continue;
    const auto steps_each =
        std::max<int64_t>(1, DivideUp<int64_t>(cost_each, int64_t{cost_of(item)} * kGroupStep));
    const auto parts = static_cast<int>(DivideUp<int64_t>(steps, steps_each));
    for (int part = 0; part < parts; ++part) {
      item.group_begin = PartBegin(steps, parts, part) * kGroupStep;
      item.group_end = std::min(groups, PartBegin(steps, parts, part + 1) * kGroupStep);
      items.push_back(item);
    }
  }
}

size_t MaxScratchFloats(int max_rows, int max_total_rank, int max_inputs) {
  return size_t(max_rows) * DivideUp<size_t>(size_t(max_total_rank), kTileRanks) * kTileRanks *
         DivideUp<size_t>(size_t(max_inputs), kSpanInputs);
}

}  // namespace lorad::kernels::cuda
