// The GPU as kernels see it: who am I, barriers, shuffles, tensor-core products, loads with hints.
// Kernel sources (*.cu) use these names only, never CUDA's own, so the same source also compiles as
// plain C++ against tests/emulator, where every kernel runs in ordinary tests under sanitizers.
//
// Blocks are one-dimensional; a warp has 32 lanes. Functions named Sync*, Shuffle*, Any, Ballot,
// Mma* and LoadMatrix* are collective: every lane of the warp (SyncBlock: every thread of the
// block) must call them together.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/host_device.h"

#if !defined(__CUDACC__)

#include "tests/emulator/gpu.h"  // the same names, emulated

#else

#define LORAD_DEVICE __device__ __forceinline__
// LORAD_KERNEL(256, 2) void Name(NameArgs args): threads a block at most, blocks a multiprocessor
// at least.
#define LORAD_KERNEL(threads, blocks) __global__ __launch_bounds__(threads, blocks)
// LORAD_SHARED(float[4][32], sums): an array in the block's shared memory, not initialised.
#define LORAD_SHARED(Type, name) __shared__ ::lorad::kernels::cuda::Identity<Type> name
// LORAD_UNROLL for (...): arrays that the loop indexes may stay in registers.
#define LORAD_UNROLL _Pragma("unroll")
// LORAD_ROLLED for (...): stays a loop.
#define LORAD_ROLLED _Pragma("unroll 1")

namespace lorad::kernels::cuda {

template <typename T>
struct IdentityOf {
  using type = T;
};
template <typename T>
using Identity = typename IdentityOf<T>::type;

inline constexpr int kWarp = 32;

LORAD_DEVICE int Thread() { return static_cast<int>(threadIdx.x); }  // in the block
LORAD_DEVICE int Threads() { return static_cast<int>(blockDim.x); }  // of the block
LORAD_DEVICE int Lane() { return static_cast<int>(threadIdx.x) & 31; }
LORAD_DEVICE int Warp() { return static_cast<int>(threadIdx.x) >> 5; }
LORAD_DEVICE int BlockX() { return static_cast<int>(blockIdx.x); }
LORAD_DEVICE int BlockY() { return static_cast<int>(blockIdx.y); }
LORAD_DEVICE int BlocksX() { return static_cast<int>(gridDim.x); }
LORAD_DEVICE int BlocksY() { return static_cast<int>(gridDim.y); }

// The launch's dynamic shared memory, 16-byte aligned.
LORAD_DEVICE std::byte* DynamicShared() {
  extern __shared__ __align__(16) unsigned char lorad_dynamic_shared[];
  return reinterpret_cast<std::byte*>(lorad_dynamic_shared);
}

LORAD_DEVICE void SyncBlock() { __syncthreads(); }
LORAD_DEVICE void SyncWarp() { __syncwarp(); }
LORAD_DEVICE void Fence() { __threadfence(); }  // what was written is seen by all blocks

// T: int, unsigned, float, uint64_t.
template <typename T>
LORAD_DEVICE T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <typename T>
LORAD_DEVICE T Shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <typename T>
LORAD_DEVICE T ShuffleUp(T value, int delta) {  // lanes below delta keep their own
  return __shfl_up_sync(0xffffffffu, value, static_cast<unsigned>(delta));
}
LORAD_DEVICE bool Any(bool value) { return __any_sync(0xffffffffu, value) != 0; }
LORAD_DEVICE uint32_t Ballot(bool value) { return __ballot_sync(0xffffffffu, value); }

// Returns the value before. For tickets and histograms, never for sums of floats: their order would
// show.
LORAD_DEVICE int AtomicAdd(int* at, int value) { return atomicAdd(at, value); }
LORAD_DEVICE unsigned AtomicAdd(unsigned* at, unsigned value) { return atomicAdd(at, value); }

// 16 bytes, aligned.
struct alignas(16) Vec4 {
  uint32_t x, y, z, w;
};

LORAD_DEVICE Vec4 Load16(const void* at) {
  const uint4 v = *static_cast<const uint4*>(at);
  return {v.x, v.y, v.z, v.w};
}
// For weights, which are read once: kept out of L1.  REQUIRES: nothing writes there while the
// kernel runs.
LORAD_DEVICE Vec4 LoadOnce16(const void* at) {
  Vec4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}
// For what is read again by this block.  REQUIRES: nothing writes there while the kernel runs. Like
// LoadOnce16 it stays where it is written among products and other such loads.
LORAD_DEVICE Vec4 LoadAgain16(const void* at) {
  Vec4 v;
  asm volatile("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}
LORAD_DEVICE void Store16(void* at, Vec4 v) {
  *static_cast<uint4*>(at) = make_uint4(v.x, v.y, v.z, v.w);
}

// 8 bytes, aligned.
struct alignas(8) Vec2 {
  uint32_t x, y;
};
LORAD_DEVICE Vec2 Load8(const void* at) {
  const uint2 v = *static_cast<const uint2*>(at);
  return {v.x, v.y};
}
LORAD_DEVICE void Store8(void* at, Vec2 v) { *static_cast<uint2*>(at) = make_uint2(v.x, v.y); }
LORAD_DEVICE Vec2 LoadOnce8(const void* at) {  // as LoadOnce16
  Vec2 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v2.u32 {%0,%1}, [%2];"
               : "=r"(v.x), "=r"(v.y)
               : "l"(at));
  return v;
}

// 2^x by the special function unit, 2 ulp; exact for 0, 0 for -inf and results below 2^-126.
LORAD_DEVICE float Exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// Two bf16 in one word, `low` at the lower address; rounds to nearest even.
LORAD_DEVICE uint32_t PackBf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
LORAD_DEVICE float LowBf16(uint32_t packed) { return __uint_as_float(packed << 16); }
LORAD_DEVICE float HighBf16(uint32_t packed) { return __uint_as_float(packed & 0xffff0000u); }
LORAD_DEVICE uint16_t ToBf16(float value) {
  return static_cast<uint16_t>(PackBf16(value, 0.0f) & 0xffffu);
}
LORAD_DEVICE float FromBf16(uint16_t bits) { return __uint_as_float(uint32_t{bits} << 16); }
LORAD_DEVICE float BitsToFloat(uint32_t bits) { return __uint_as_float(bits); }
LORAD_DEVICE uint32_t FloatToBits(float value) { return __float_as_uint(value); }

// a * b + c for each of two bf16, rounded once; subnormals are kept.
LORAD_DEVICE uint32_t FmaBf16(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// d += a b on one warp: a [16 rows, 16 k], b [16 k, 8 columns], bf16, sums in fp32. With g = lane/4
// and t = lane%4 a lane holds
//   a[0] = a(g, 2t..2t+1)   a[1] = a(g+8, 2t..)   a[2] = a(g, 2t+8..)   a[3] = a(g+8, 2t+8..)
//   b0   = b(2t..2t+1, g)   b1   = b(2t+8..2t+9, g)
//   d[0..1] = d(g, 2t..2t+1)   d[2..3] = d(g+8, 2t..2t+1)
// (PTX ISA, "Matrix fragments for mma.m16n8k16".) A permutation of k that is the same in a and b
// changes nothing but the order of the sum.
LORAD_DEVICE void Mma16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 bytes from global to shared memory, both aligned, without waiting; `keep` false writes zeros
// and reads nothing.
LORAD_DEVICE void CopyAsync16(void* shared, const void* global, bool keep = true) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = keep ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes)
               : "memory");
}
LORAD_DEVICE void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `kPending` of this thread's last groups are under way. Other threads' copies
// are seen after a SyncBlock.
template <int kPending>
LORAD_DEVICE void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 matrices of 16-bit elements from shared memory: lane i gives the address of row i%8 of
// matrix i/8 (16 bytes, aligned); r[j] gets matrix j's elements (lane/4, 2*(lane%4)..+1).
LORAD_DEVICE void LoadMatrix4(uint32_t (&r)[4], const void* shared_row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(shared_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

}  // namespace lorad::kernels::cuda

#endif  // __CUDACC__
