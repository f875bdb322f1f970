// Priority: how urgent a request is, by the kind of user who waits for it.
#pragma once

#include <cstdint>
#include <string_view>

namespace lorad {

// In order of urgency: a smaller value goes first.
enum class Priority : uint8_t {
  kInteractive,  // somebody watches the tokens arrive
  kStandard,
  kBatch,  // nobody waits: what is left over will do
};
inline constexpr int kPriorities = 3;

constexpr std::string_view NameOf(Priority priority) {
  return priority == Priority::kInteractive ? "interactive"
         : priority == Priority::kStandard  ? "standard"
                                            : "batch";
}

}  // namespace lorad
