// How much memory this process may use.
#pragma once

#include <cstdint>
#include <filesystem>

namespace lorad {

// The machine's, or what its control group (v2) allows if that is less. `root` stands for "/".
uint64_t MachineMemoryBytes(const std::filesystem::path& root = "/");

}  // namespace lorad
