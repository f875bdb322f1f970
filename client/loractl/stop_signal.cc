#include "client/loractl/stop_signal.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>

namespace lorad::loractl {
namespace {

volatile sig_atomic_t signal_event = -1;  // the living StopSignal's eventfd

void OnSignal(int) {
  const int error = errno;
  const uint64_t one = 1;
  // The counter cannot be full after so few signals, and there is nobody to tell.
  [[maybe_unused]] const ssize_t written = write(signal_event, &one, sizeof(one));
  errno = error;
}

}  // namespace

StopSignal::StopSignal() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  signal_event = event_;
  struct sigaction action {};
  action.sa_handler = &OnSignal;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, &interrupt_before_);
  sigaction(SIGTERM, &action, &terminate_before_);
}

StopSignal::~StopSignal() {
  sigaction(SIGINT, &interrupt_before_, nullptr);
  sigaction(SIGTERM, &terminate_before_, nullptr);
  signal_event = -1;
  close(event_);
}

bool StopSignal::Wait(std::chrono::milliseconds time) const {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + time;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
    pollfd waited{.fd = event_, .events = POLLIN, .revents = 0};
    const int64_t ms = std::clamp<int64_t>(left.count(), 0, INT_MAX);
    if (poll(&waited, 1, static_cast<int>(ms)) > 0) return true;
    if (Clock::now() >= end) return false;
  }
}

}  // namespace lorad::loractl
