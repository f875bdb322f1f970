#include "kernels/cpu/sequence_ops.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "memory/base/check.h"

namespace lorad::kernels::cpu {
namespace {

constexpr int kRowsOfAnItem =
    16;  // enough to use a tile of keys many times while it is in the cache
constexpr int kItemsAThread = 4;  // fewer items than this, and long ones are split
constexpr size_t kAlignFloats = 16;

size_t HeadBytes(const KvGeometry& g) {
  return size_t(g.page_tokens) * size_t(g.head_dim + ValueStride(g.head_dim)) * sizeof(uint16_t);
}

int FirstSeen(const AttentionShape& shape, int position) {
  return shape.window > 0 ? std::max(0, position - shape.window + 1) : 0;
}

int PositionOf(const SequenceRows& sequence, int row) {
  return sequence.first_position + row - sequence.first_row;
}

}  // namespace

SequenceOps::SequenceOps(const KernelTable& kernels, int threads, RunItems run)
    : kernels_(kernels), threads_(threads), run_(std::move(run)) {}

size_t SequenceOps::PageBytes(const KvGeometry& geometry) {
  return size_t(geometry.layers) * size_t(geometry.kv_heads) * HeadBytes(geometry);
}

void SequenceOps::SetPool(const PageSlab& slab, const KvGeometry& geometry) {
  LORAD_CHECK(geometry.head_dim % 2 == 0 && geometry.head_dim <= kMaxHeadDim);
  LORAD_CHECK(geometry.page_tokens > 0 && geometry.page_tokens % kKeyBlock == 0);
  LORAD_CHECK(PageBytes(geometry) <= slab.page_bytes);
  slab_ = slab;
  geometry_ = geometry;
  const size_t floats = size_t(AttendScratchFloats(geometry.head_dim)) +
                        2 * size_t(kAttendQueries * AttendStateFloats(geometry.head_dim));
  scratch_floats_ = (floats + kAlignFloats - 1) / kAlignFloats * kAlignFloats;
  scratch_.assign(scratch_floats_ * size_t(threads_) + kAlignFloats, 0.0f);
}

uint64_t SequenceOps::HeadOffset(int layer, int kv_head) const {
  return (uint64_t(layer) * uint64_t(geometry_.kv_heads) + uint64_t(kv_head)) *
         HeadBytes(geometry_);
}

float* SequenceOps::Scratch(int thread) {
  const size_t misaligned =
      reinterpret_cast<uintptr_t>(scratch_.data()) / sizeof(float) % kAlignFloats;
  return scratch_.data() + (kAlignFloats - misaligned) % kAlignFloats +
         size_t(thread) * scratch_floats_;
}

void SequenceOps::RopeAngles(std::span<const int32_t> positions, std::span<const float> inv_freq,
                             RowsView angles) {
  run_(int(positions.size()), [&](int i, int) {
    float* row = angles.Row(i);
    for (size_t f = 0; f < inv_freq.size(); ++f) {
      // Rounded to fp32 as in training: at long positions that rounding is part of the model.
      const float angle = static_cast<float>(positions[size_t(i)]) * inv_freq[f];
      row[f] = std::cos(angle);
      row[f + inv_freq.size()] = std::sin(angle);
    }
  });
}

void SequenceOps::RopeAppend(const RopeAppendArgs& args, RowsView qkv, RowsView angles,
                             const float* q_norm, const float* k_norm) {
  const auto [heads, kv_heads, dim, scale, window] = args.shape;
  LORAD_CHECK(dim == geometry_.head_dim && kv_heads == geometry_.kv_heads);
  // Tokens of one block of keys share cache lines: one thread writes them.
  struct Block {
    const SequenceRows* sequence;
    int first_row;
    int end_row;
  };
  std::vector<Block> blocks;
  for (const SequenceRows& sequence : args.sequences) {
    for (int row = sequence.first_row; row < sequence.end_row;) {
      const int in_block = PositionOf(sequence, row) % kKeyBlock;
      const int end = std::min(sequence.end_row, row + kKeyBlock - in_block);
      blocks.push_back({&sequence, row, end});
      row = end;
    }
  }
  run_(int(blocks.size()), [&](int i, int) {
    const Block& block = blocks[size_t(i)];
    for (int row = block.first_row; row < block.end_row; ++row) {
      const int position = PositionOf(*block.sequence, row);
      float* at = qkv.Row(row);
      for (int h = 0; h < heads + kv_heads; ++h) {
        kernels_.rope({.head = at + h * dim,
                       .angles = angles.Row(row),
                       .norm = h < heads ? q_norm : k_norm,
                       .eps = args.norm_eps,
                       .head_dim = dim});
      }
      std::byte* page =
          slab_.Page(block.sequence->kv_pages[size_t(position / geometry_.page_tokens)]);
      for (int h = 0; h < kv_heads; ++h) {
        kernels_.append({.key = at + (heads + h) * dim,
                         .value = at + (heads + kv_heads + h) * dim,
                         .page = page + HeadOffset(args.layer, h),
                         .token = position % geometry_.page_tokens,
                         .page_tokens = geometry_.page_tokens,
                         .head_dim = dim});
      }
    }
  });
}

size_t SequenceOps::ItemStateFloats(const Item& item) const {
  return size_t(item.rows * item.heads) * size_t(AttendStateFloats(geometry_.head_dim));
}

void SequenceOps::CutAttention(const AttentionArgs& args) {
  const AttentionShape& shape = args.shape;
  const int group = shape.heads / shape.kv_heads;
  const int heads = std::min(group, kAttendQueries);
  const int rows = std::clamp(kAttendQueries / heads, 1, kRowsOfAnItem);
  items_.clear();
  for (const SequenceRows& sequence : args.sequences) {
    for (int row = sequence.first_row; row < sequence.end_row; row += rows) {
      const int end = std::min(row + rows, sequence.end_row);
      const int first_part = FirstSeen(shape, PositionOf(sequence, row)) / kAttendSplit;
      const int end_part = PositionOf(sequence, end - 1) / kAttendSplit + 1;
      for (int head = 0; head < shape.heads;) {
        const int kv_head = head / group;
        const int end_head = std::min(head + heads, (kv_head + 1) * group);
        items_.push_back({&sequence, row, end - row, kv_head, head, end_head - head, first_part,
                          end_part, nullptr});
        head = end_head;
      }
    }
  }
  // Splitting changes who computes, never what is computed: the parts are always folded one by one.
  const bool split = items_.size() < size_t(threads_) * kItemsAThread;
  units_.clear();
  size_t floats = 0;
  for (int i = 0; i < int(items_.size()); ++i) {
    const Item& item = items_[size_t(i)];
    const int parts = item.end_part - item.first_part;
    const int together = split ? 1 : parts;
    for (int part = item.first_part; part < item.end_part; part += together) {
      units_.push_back({i, part, part + together});
    }
    if (split && parts > 1) floats += size_t(parts) * ItemStateFloats(item);
  }
  if (split_states_.size() < floats) split_states_.resize(floats);
  floats = 0;
  for (Item& item : items_) {
    const int parts = item.end_part - item.first_part;
    if (!split || parts == 1) continue;
    item.states = split_states_.data() + floats;
    floats += size_t(parts) * ItemStateFloats(item);
  }
  // Long ones first, so that the last thread to finish is not late by much.
  std::ranges::stable_sort(units_, std::greater<>(), [this](const Unit& unit) {
    return (unit.end_part - unit.first_part) * items_[size_t(unit.item)].rows;
  });
}

void SequenceOps::Attend(const AttentionArgs& args, const Item& item, int part, RowsView qkv,
                         float* states, int thread) {
  const int dim = args.shape.head_dim;
  kernels_.attend({.q = qkv.Row(item.first_row) + item.first_head * dim,
                   .q_stride = qkv.stride,
                   .rows = item.rows,
                   .group = item.heads,
                   .head_dim = dim,
                   .scale = args.shape.scale,
                   .first_position = PositionOf(*item.sequence, item.first_row),
                   .window = args.shape.window,
                   .first_key = part * kAttendSplit,
                   .end_key = (part + 1) * kAttendSplit,
                   .slab = slab_.data,
                   .page_bytes = slab_.page_bytes,
                   .pages = item.sequence->kv_pages.data(),
                   .offset = HeadOffset(args.layer, item.kv_head),
                   .page_tokens = geometry_.page_tokens,
                   .states = states,
                   .scratch = Scratch(thread)});
}

void SequenceOps::Finish(const AttentionArgs& args, const Item& item, const float* states,
                         RowsView out) {
  const int dim = args.shape.head_dim;
  for (int row = 0; row < item.rows; ++row) {
    kernels_.finish({.states = states + row * item.heads * AttendStateFloats(dim),
                     .out = out.Row(item.first_row + row) + item.first_head * dim,
                     .group = item.heads,
                     .head_dim = dim});
  }
}

void SequenceOps::RunUnit(const AttentionArgs& args, const Unit& unit, RowsView qkv, RowsView out,
                          int thread) {
  const Item& item = items_[size_t(unit.item)];
  if (item.states != nullptr) {
    float* states = item.states + size_t(unit.first_part - item.first_part) * ItemStateFloats(item);
    Attend(args, item, unit.first_part, qkv, states, thread);
    return;
  }
  const int dim = args.shape.head_dim;
  float* total = Scratch(thread) + AttendScratchFloats(dim);
  float* next = total + kAttendQueries * AttendStateFloats(dim);
  for (int part = unit.first_part; part < unit.end_part; ++part) {
    Attend(args, item, part, qkv, part == unit.first_part ? total : next, thread);
    if (part == unit.first_part) continue;
    kernels_.fold(
        {.into = total, .from = next, .queries = item.rows * item.heads, .head_dim = dim});
  }
  Finish(args, item, total, out);
}

void SequenceOps::Attention(const AttentionArgs& args, RowsView qkv, RowsView out) {
  const AttentionShape& shape = args.shape;
  LORAD_CHECK(shape.head_dim == geometry_.head_dim && shape.kv_heads == geometry_.kv_heads);
  LORAD_CHECK(shape.heads % shape.kv_heads == 0);
  CutAttention(args);
  run_(int(units_.size()),
       [&](int i, int thread) { RunUnit(args, units_[size_t(i)], qkv, out, thread); });
  if (std::ranges::none_of(items_, [](const Item& item) { return item.states != nullptr; })) return;
  run_(int(items_.size()), [&](int i, int) {
    const Item& item = items_[size_t(i)];
    if (item.states == nullptr) return;
    const size_t floats = ItemStateFloats(item);
    for (int part = 1; part < item.end_part - item.first_part; ++part) {
      kernels_.fold({.into = item.states,
                     .from = item.states + size_t(part) * floats,
                     .queries = item.rows * item.heads,
                     .head_dim = shape.head_dim});
    }
    Finish(args, item, item.states, out);
  });
}

}  // namespace lorad::kernels::cpu
