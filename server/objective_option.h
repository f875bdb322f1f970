// The --objective option: what the operator wants requests of a class to see. Pure functions.
#pragma once

#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "memory/base/clock.h"
#include "scheduler/objective.h"

namespace lorad {

// "interactive,ttft=500ms,itl=50ms,refuse": a class, then any of these; `refuse` needs a ttft.
// InvalidArgument says what is wrong.
absl::StatusOr<std::pair<Priority, Objective>> ParseObjective(std::string_view text);

// "50ms", "1.5s": above 0, at most a day.
absl::StatusOr<Duration> ParseDuration(std::string_view text);

}  // namespace lorad
