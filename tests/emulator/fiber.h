// Fiber: a call that can stop in the middle and go on later, on the thread that made it. The
// smallest that the emulator needs: switching costs a few nanoseconds, stacks are reused.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace lorad::emulator {

class Fiber {
 public:
  static constexpr size_t kStackBytes = 128 << 10;

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes it ready to run `body` from the start. REQUIRES: it is not in the middle of another.
  void Reset(std::function<void()> body);
  // Runs it until it stops or ends.
  void Resume();
  bool done() const;
  // From inside a fiber: back to who resumed it.
  static void Stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lorad::emulator
