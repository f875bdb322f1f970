// Paged attention in the vocabulary of simd.h: an online softmax over tiles of kAttendKeys keys.
//
// A result must have the same bits however its row is batched. Hence:
// - tiles begin at absolute positions, never at the row's or the chunk's own;
// - for one query the order of operations is fixed: scores sum over dimensions in order, weighted
// values over keys in order.
//   The template parameters choose how many queries share a load, not what is done for any of them;
// - keys that a row does not see are left out (by ranges) or masked before they can count: what
// lies in a page beyond the
//   row's position may be anything, NaN too.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd.h"

namespace lorad::kernels::cpu {
namespace {

constexpr int kTileBlocks = kAttendKeys / kKeyBlock;
constexpr int kChunkDims = 2 * kLanes;  // dimensions of a value row that one load of pairs holds
constexpr float kNever = -3.0e38f;      // below every score; e^(kNever - score) is zero

// Parts of a state.
constexpr int kStateSum = 16;
constexpr int kStateValues = 32;

// Where one tile's keys and values lie.
struct Tile {
  const uint16_t* keys[kTileBlocks];    // each [head_dim/2][16][2]
  const uint16_t* values[kTileBlocks];  // each [16][ValueStride]
};

// REQUIRES: first_key is below end. Blocks from `end` on repeat the last one before it.
Tile TileAt(const AttendTask& task, int first_key, int end) {
  const int page_blocks = task.page_tokens / kKeyBlock;
  const int last = (end - 1) / kKeyBlock;
  Tile tile;
  for (int b = 0; b < kTileBlocks; ++b) {
    const int wanted = first_key / kKeyBlock + b;
    const int block = wanted < last ? wanted : last;
    const int in_page = block % page_blocks;
    const auto* page = reinterpret_cast<const uint16_t*>(
        task.slab + task.pages[block / page_blocks] * task.page_bytes + task.offset);
    tile.keys[b] = page + in_page * kKeyBlock * task.head_dim;
    tile.values[b] =
        page + task.page_tokens * task.head_dim + in_page * kKeyBlock * ValueStride(task.head_dim);
  }
  return tile;
}

// What the steps of one tile need of the task. Queries are numbered within the task.
struct Work {
  int head_dim;
  float* q;       // [queries, head_dim], scaled
  float* scores;  // [queries, kAttendKeys], then the weights
  float* decay;   // [queries] factor of what was summed before this tile
  float* states;
  int state_floats;
  Tile tile;
  Tile next;  // to prefetch
};

// Scores of Q queries from `query` on with U * kLanes keys from unit `unit` (kLanes keys each) on.
template <int Q, int U>
LORAD_SIMD_INLINE void ScoreUnits(const Work& work, int query, int unit) {
  const uint16_t* keys[U];
  const uint16_t* next[U];
  for (int u = 0; u < U; ++u) {
    const int key = (unit + u) * kLanes;
    keys[u] = work.tile.keys[key / kKeyBlock] + key % kKeyBlock * 2;
    next[u] = work.next.keys[key / kKeyBlock] + key % kKeyBlock * 2;
  }
  const float* q = work.q + query * work.head_dim;
  Vec sums[Q][U];
  for (int i = 0; i < Q; ++i) {
    for (int u = 0; u < U; ++u) sums[i][u] = Zero();
  }
  for (int d = 0; d < work.head_dim; d += 2) {
    Vec even[U];
    Vec odd[U];
    for (int u = 0; u < U; ++u) {
      const Pairs pairs = LoadPairs(keys[u] + d * kKeyBlock);
      Prefetch(next[u] + d * kKeyBlock);
      even[u] = Even(pairs);
      odd[u] = Odd(pairs);
    }
    for (int i = 0; i < Q; ++i) {
      const Vec first = Set(q[i * work.head_dim + d]);
      const Vec second = Set(q[i * work.head_dim + d + 1]);
      for (int u = 0; u < U; ++u) {
        sums[i][u] = Fma(odd[u], second, Fma(even[u], first, sums[i][u]));
      }
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int u = 0; u < U; ++u) {
      Store(work.scores + (query + i) * kAttendKeys + (unit + u) * kLanes, sums[i][u]);
    }
  }
}

template <int Q>
void ScoreQueries(const Work& work, int query, int unit, int end_unit) {
  constexpr int kTogether = Q <= 2   ? 4
                            : Q <= 4 ? 2
                                     : 1;  // enough independent sums to hide the latency
  for (; unit + kTogether <= end_unit; unit += kTogether) {
    ScoreUnits<Q, kTogether>(work, query, unit);
  }
  for (; unit < end_unit; ++unit) ScoreUnits<Q, 1>(work, query, unit);
}

void Score(const Work& work, int query, int count, int unit, int end_unit) {
  for (; count >= 8; count -= 8, query += 8) ScoreQueries<8>(work, query, unit, end_unit);
  switch (count) {
    case 7:
      return ScoreQueries<7>(work, query, unit, end_unit);
    case 6:
      return ScoreQueries<6>(work, query, unit, end_unit);
    case 5:
      return ScoreQueries<5>(work, query, unit, end_unit);
    case 4:
      return ScoreQueries<4>(work, query, unit, end_unit);
    case 3:
      return ScoreQueries<3>(work, query, unit, end_unit);
    case 2:
      return ScoreQueries<2>(work, query, unit, end_unit);
    case 1:
      return ScoreQueries<1>(work, query, unit, end_unit);
    default:
      return;
  }
}

// Turns one query's scores of keys [first, end) of the tile into weights and moves its state's
// maximum and sum.
void Weigh(const Work& work, int query, int first, int end) {
  float* scores = work.scores + query * kAttendKeys;
  float* state = work.states + query * work.state_floats;
  const int unit = first / kLanes;
  const int end_unit = (end + kLanes - 1) / kLanes;
  for (int i = unit * kLanes; i < first; ++i) scores[i] = kNever;
  for (int i = end; i < end_unit * kLanes; ++i) scores[i] = kNever;
  Vec highest = Set(state[0]);
  for (int u = unit; u < end_unit; ++u) highest = Max(highest, Load(scores + u * kLanes));
  const float maximum = MaxLane(highest);
  const Vec decay = Exp(Set(state[0] - maximum));
  Vec sum = Mul(Load(state + kStateSum), decay);
  for (int u = unit; u < end_unit; ++u) {
    const Vec weight = Exp(Sub(Load(scores + u * kLanes), Set(maximum)));
    Store(scores + u * kLanes, weight);
    sum = Add(sum, weight);
  }
  Store(state + kStateSum, sum);
  state[0] = maximum;
  StorePartial(work.decay + query, decay, 1);
}

// Adds the weighted values of keys [first, end) to C chunks of dimensions of Q queries.
template <int Q, int C>
LORAD_SIMD_INLINE void AddValueChunks(const Work& work, int query, int chunk, int first, int end) {
  const int stride = ValueStride(work.head_dim);
  const float* weights = work.scores + query * kAttendKeys;
  float* sums = work.states + query * work.state_floats + kStateValues + chunk * kChunkDims;
  Vec even[Q][C];
  Vec odd[Q][C];
  for (int i = 0; i < Q; ++i) {
    const Vec decay = Set(work.decay[query + i]);
    for (int c = 0; c < C; ++c) {
      const float* at = sums + i * work.state_floats + c * kChunkDims;
      even[i][c] = Mul(Load(at), decay);
      odd[i][c] = Mul(Load(at + kLanes), decay);
    }
  }
  for (int block = first / kKeyBlock; block * kKeyBlock < end; ++block) {
    const int begin = block * kKeyBlock;
    const int from = first > begin ? first - begin : 0;
    const int to = end - begin < kKeyBlock ? end - begin : kKeyBlock;
    const uint16_t* values = work.tile.values[block] + chunk * kChunkDims;
    const uint16_t* next = work.next.values[block] + chunk * kChunkDims;
    for (int j = from; j < to; ++j) {
      Vec value_even[C];
      Vec value_odd[C];
      for (int c = 0; c < C; ++c) {
        const Pairs pairs = LoadPairs(values + j * stride + c * kChunkDims);
        Prefetch(next + j * stride + c * kChunkDims);
        value_even[c] = Even(pairs);
        value_odd[c] = Odd(pairs);
      }
      for (int i = 0; i < Q; ++i) {
        const Vec weight = Set(weights[i * kAttendKeys + begin + j]);
        for (int c = 0; c < C; ++c) {
          even[i][c] = Fma(value_even[c], weight, even[i][c]);
          odd[i][c] = Fma(value_odd[c], weight, odd[i][c]);
        }
      }
    }
  }
  for (int i = 0; i < Q; ++i) {
    for (int c = 0; c < C; ++c) {
      float* at = sums + i * work.state_floats + c * kChunkDims;
      Store(at, even[i][c]);
      Store(at + kLanes, odd[i][c]);
    }
  }
}

template <int Q>
void AddValuesOf(const Work& work, int query, int first, int end) {
  // As many sums as there are registers for: 32 with AVX-512, else 16.
  constexpr int kMost = Q == 1 ? 4 : Q == 2 || kLanes == 16 ? 2 : 1;
  const int chunks = ValueStride(work.head_dim) / kChunkDims;
  int chunk = 0;
  for (; chunk + kMost <= chunks; chunk += kMost) {
    AddValueChunks<Q, kMost>(work, query, chunk, first, end);
  }
  if constexpr (kMost == 4) {
    for (; chunk + 2 <= chunks; chunk += 2) AddValueChunks<Q, 2>(work, query, chunk, first, end);
  }
  for (; chunk < chunks; ++chunk) AddValueChunks<Q, 1>(work, query, chunk, first, end);
}

void AddValues(const Work& work, int query, int count, int first, int end) {
  for (; count >= 4; count -= 4, query += 4) AddValuesOf<4>(work, query, first, end);
  switch (count) {
    case 3:
      return AddValuesOf<3>(work, query, first, end);
    case 2:
      return AddValuesOf<2>(work, query, first, end);
    case 1:
      return AddValuesOf<1>(work, query, first, end);
    default:
      return;
  }
}

// Queries that all see exactly keys [first, end) of the tile.
void AttendTile(const Work& work, int query, int count, int first, int end) {
  Score(work, query, count, first / kLanes, (end + kLanes - 1) / kLanes);
  for (int i = 0; i < count; ++i) Weigh(work, query + i, first, end);
  AddValues(work, query, count, first, end);
}

LORAD_SIMD_INLINE int FirstSeen(const AttendTask& task, int position) {
  return task.window > 0 && position >= task.window ? position - task.window + 1 : 0;
}

void StartAttend(const AttendTask& task, const Work& work) {
  for (int row = 0; row < task.rows; ++row) {
    const float* q = task.q + row * task.q_stride;
    float* scaled = work.q + row * task.group * task.head_dim;
    const int n = task.group * task.head_dim;
    for (int i = 0; i < n; ++i) scaled[i] = q[i] * task.scale;
  }
  for (int query = 0; query < task.rows * task.group; ++query) {
    float* state = work.states + query * work.state_floats;
    for (int i = 0; i < work.state_floats; i += kLanes) Store(state + i, Zero());
    state[0] = kNever;
  }
}

void AttendKernel(const AttendTask& task) {
  Work work;
  work.head_dim = task.head_dim;
  work.scores = task.scratch;
  work.q = work.scores + kAttendQueries * kAttendKeys;
  work.decay = work.q + kAttendQueries * task.head_dim;
  work.states = task.states;
  work.state_floats = AttendStateFloats(task.head_dim);
  StartAttend(task, work);

  const int last_position = task.first_position + task.rows - 1;
  const int end = task.end_key < last_position + 1 ? task.end_key : last_position + 1;
  const int seen = FirstSeen(task, task.first_position) / kAttendKeys * kAttendKeys;
  for (int key = seen > task.first_key ? seen : task.first_key; key < end; key += kAttendKeys) {
    work.tile = TileAt(task, key, end);
    work.next = key + kAttendKeys < end ? TileAt(task, key + kAttendKeys, end) : work.tile;
    if (key + kAttendKeys <= task.first_position + 1 && key >= FirstSeen(task, last_position)) {
      AttendTile(work, 0, task.rows * task.group, 0, kAttendKeys);
      continue;
    }
    for (int row = 0; row < task.rows; ++row) {
      const int position = task.first_position + row;
      const int from = FirstSeen(task, position) - key;
      const int to = position + 1 - key;
      const int first_key = from > 0 ? from : 0;
      const int end_key = to < kAttendKeys ? to : kAttendKeys;
      if (first_key >= end_key) continue;
      AttendTile(work, row * task.group, task.group, first_key, end_key);
    }
  }
}

void FoldKernel(const FoldTask& task) {
  const int floats = AttendStateFloats(task.head_dim);
  for (int query = 0; query < task.queries; ++query) {
    float* into = task.into + query * floats;
    const float* from = task.from + query * floats;
    if (from[0] == kNever) continue;  // no key seen
    if (into[0] == kNever) {
      for (int i = 0; i < floats; i += kLanes) Store(into + i, Load(from + i));
      continue;
    }
    const float maximum = into[0] > from[0] ? into[0] : from[0];
    const Vec keep = Exp(Set(into[0] - maximum));
    const Vec add = Exp(Set(from[0] - maximum));
    for (int i = kStateSum; i < floats; i += kLanes) {
      Store(into + i, Fma(Load(from + i), add, Mul(Load(into + i), keep)));
    }
    into[0] = maximum;
  }
}

void FinishKernel(const FinishTask& task) {
  const int floats = AttendStateFloats(task.head_dim);
  for (int head = 0; head < task.group; ++head) {
    const float* state = task.states + head * floats;
    float* out = task.out + head * task.head_dim;
    const float inverse = 1.0f / Sum(Load(state + kStateSum));
    for (int d = 0; d < task.head_dim; ++d) {
      const int in_chunk = d % kChunkDims;
      const int lane = in_chunk / 2 + (in_chunk % 2) * kLanes;
      out[d] = state[kStateValues + d - in_chunk + lane] * inverse;
    }
  }
}

}  // namespace
}  // namespace lorad::kernels::cpu
