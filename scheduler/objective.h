// Objective: what the operator wants requests of a class to see. Plain data.
#pragma once

#include <array>

#include "memory/base/clock.h"
#include "scheduler/priority.h"

namespace lorad {

struct Objective {
  Duration first_token{};  // from arrival; zero: none
  Duration inter_token{};  // between two tokens of a request, on average; zero: none
  // Who could not meet first_token because of the queue is refused, not let wait in vain.
  bool refuse = false;

  bool operator==(const Objective&) const = default;
};

// By Priority.
using Objectives = std::array<Objective, kPriorities>;

}  // namespace lorad
