// KernelRef: a kernel as a value, so that host code names, checks and launches kernels without
// being compiled by nvcc. Launcher: where launches go (a program that is being recorded, a stream,
// the emulator).
#pragma once

#include <cstddef>
#include <type_traits>

namespace lorad::kernels::cuda {

struct KernelRef {
  const char* name = "";
  const void* function = nullptr;  // the __global__ function
  int threads = 0;                 // a block
  size_t args_bytes = 0;           // of its one argument, a plain struct
  // Runs one thread of the kernel; null in a build for the device.
  void (*emulate)(const void* function, const void* args) = nullptr;
};

// inline/const objects of a .cu file:  const KernelRef kShrink = MakeKernel("shrink", &Shrink,
// 128);
template <typename Args>
KernelRef MakeKernel(const char* name, void (*kernel)(Args), int threads) {
  static_assert(std::is_trivially_copyable_v<Args>);
  static_assert(sizeof(Args) <= 1024);
  KernelRef ref{name, reinterpret_cast<const void*>(kernel), threads, sizeof(Args), nullptr};
#if !defined(__CUDACC__)
  ref.emulate = [](const void* function, const void* args) {
    reinterpret_cast<void (*)(Args)>(const_cast<void*>(function))(*static_cast<const Args*>(args));
  };
#endif
  return ref;
}

struct Grid {
  int x = 1;
  int y = 1;
  size_t shared_bytes = 0;  // dynamic shared memory a block
};

class Launcher {
 public:
  virtual ~Launcher() = default;
  // `args` holds kernel.args_bytes, copied before the call returns. An empty grid launches nothing.
  virtual void Launch(const KernelRef& kernel, const Grid& grid, const void* args) = 0;

  template <typename Args>
  void operator()(const KernelRef& kernel, const Grid& grid, const Args& args) {
    static_assert(std::is_trivially_copyable_v<Args>);
    Args plain = args;
    __builtin_clear_padding(&plain);  // equal arguments are equal bytes
    Launch(kernel, grid, &plain);
  }
};

}  // namespace lorad::kernels::cuda
