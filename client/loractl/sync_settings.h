// The file lorad.json, which gives an adapter of a synchronized directory its settings. Pure.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "lorad/v1/adapters.pb.h"

namespace lorad::loractl {

inline constexpr char kSettingsFile[] = "lorad.json";
// Label by which `adapters sync` knows what it manages; its value is --source.
inline constexpr char kManagedLabel[] = "lorad.dev/managed-by";

// One object with any of "labels" (an object of strings), "description" (a string), "pinned" (true
// or false) and "aliases" (an array of strings). What is not there is empty or false. Anything
// else, a key that is there twice, and kManagedLabel are InvalidArgument, which says where.
absl::StatusOr<v1::AdapterSettings> ParseSettings(std::string_view json);

// Whether two adapters have the same settings; the order of aliases means nothing.
bool SameSettings(const v1::AdapterSettings& a, const v1::AdapterSettings& b);

}  // namespace lorad::loractl
