// How people write priorities on a command line: "interactive", "standard", "batch".
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lorad/v1/inference.pb.h"

namespace lorad {

inline constexpr std::array<std::pair<std::string_view, v1::Priority>, 3> kPriorityNames = {
    {{"interactive", v1::PRIORITY_INTERACTIVE},
     {"standard", v1::PRIORITY_STANDARD},
     {"batch", v1::PRIORITY_BATCH}}};

inline std::vector<std::string> PriorityNames() {
  std::vector<std::string> names;
  for (const auto& [name, priority] : kPriorityNames) names.emplace_back(name);
  return names;
}

// Unspecified if it is none of them.
inline v1::Priority PriorityNamed(std::string_view wanted) {
  for (const auto& [name, priority] : kPriorityNames) {
    if (name == wanted) return priority;
  }
  return v1::PRIORITY_UNSPECIFIED;
}

}  // namespace lorad
