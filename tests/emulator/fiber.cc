#include "tests/emulator/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "tests/emulator/race_check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace lorad::emulator {

#if defined(__x86_64__)

// Saves what a call must keep, parks the stack at *from and goes on where `to` was parked.
extern "C" void lorad_switch_stack(void** from, void* to);
asm(R"(
.text
.globl lorad_switch_stack
.type lorad_switch_stack, @function
lorad_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size lorad_switch_stack, .-lorad_switch_stack
)");

#endif

struct Fiber::State {
  std::function<void()> body;
  bool done = true;
  void* stack = nullptr;
  size_t unused = 0;  // bytes at the top of the stack
  void* race_thread = race_check::NewThread();
  void* race_resumer = nullptr;
#if defined(__x86_64__)
  void* parked = nullptr;   // the fiber's stack pointer while it does not run
  void* resumer = nullptr;  // whoever resumed it
#else
  ucontext_t parked;
  ucontext_t resumer;
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  const void* resumer_bottom = nullptr;
  size_t resumer_size = 0;
#endif

  void SwitchOut(bool for_good);
  static void Main();
};

namespace {

constexpr size_t kGuardBytes = 4096;
thread_local Fiber* current = nullptr;

}  // namespace

void Fiber::State::SwitchOut([[maybe_unused]] bool for_good) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, resumer_bottom, resumer_size);
#endif
  race_check::SwitchTo(race_resumer);
#if defined(__x86_64__)
  lorad_switch_stack(&parked, resumer);
#else
  swapcontext(&parked, &resumer);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, &resumer_bottom, &resumer_size);
#endif
}

void Fiber::State::Main() {
  State& state = *current->state_;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &state.resumer_bottom, &state.resumer_size);
#endif
  state.body();
  state.done = true;
  state.SwitchOut(/*for_good=*/true);
  std::abort();  // a fiber that ended was resumed
}

Fiber::Fiber() : state_(std::make_unique<State>()) {
  void* stack =
      mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack == MAP_FAILED) {
    std::fprintf(stderr, "emulator: no memory for a stack\n");
    std::abort();
  }
  mprotect(stack, kGuardBytes, PROT_NONE);  // a stack that grows too far crashes
  state_->stack = stack;
  // Tops at the same place of a page would fall into the same few lines of the cache.
  static thread_local size_t fibers = 0;
  state_->unused = fibers++ * 448 % 8192;
}

Fiber::~Fiber() {
  race_check::EndThread(state_->race_thread);
  munmap(state_->stack, kStackBytes);
}

void Fiber::Reset(std::function<void()> body) {
  if (!state_->done) std::abort();
#if defined(__SANITIZE_ADDRESS__)
  // What its last call, which never returned from Main, left marked.
  __asan_unpoison_memory_region(state_->stack, kStackBytes);
#endif
  state_->body = std::move(body);
  state_->done = false;
#if defined(__x86_64__)
  auto* top = reinterpret_cast<uintptr_t*>(static_cast<std::byte*>(state_->stack) + kStackBytes -
                                           state_->unused);
  *--top = 0;  // a return address for Main, which never returns; keeps the stack aligned
  *--top = reinterpret_cast<uintptr_t>(&State::Main);
  for (int i = 0; i < 6; ++i) *--top = 0;
  state_->parked = top;
#else
  getcontext(&state_->parked);
  state_->parked.uc_stack.ss_sp = state_->stack;
  state_->parked.uc_stack.ss_size = kStackBytes;
  state_->parked.uc_link = nullptr;
  makecontext(&state_->parked, &State::Main, 0);
#endif
}

void Fiber::Resume() {
  Fiber* const outer = std::exchange(current, this);
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, state_->stack, kStackBytes);
#endif
  state_->race_resumer = race_check::ThisThread();
  race_check::SwitchTo(state_->race_thread);
#if defined(__x86_64__)
  lorad_switch_stack(&state_->resumer, state_->parked);
#else
  swapcontext(&state_->resumer, &state_->parked);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  current = outer;
}

bool Fiber::done() const { return state_->done; }

void Fiber::Stop() { current->state_->SwitchOut(/*for_good=*/false); }

}  // namespace lorad::emulator
