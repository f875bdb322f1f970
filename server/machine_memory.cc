#include "server/machine_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace lorad {
namespace {

// The group's path in the unified hierarchy, from "0::/some/group".
std::string OwnGroup(const std::filesystem::path& root) {
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.starts_with("0::/")) return line.substr(4);
  }
  return "";
}

}  // namespace

uint64_t MachineMemoryBytes(const std::filesystem::path& root) {
  uint64_t bytes = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                   static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  // A limit of any group above counts. Inside a container its own group may be the root.
  const std::filesystem::path top = root / "sys/fs/cgroup";
  std::filesystem::path group = top / OwnGroup(root);
  while (true) {
    uint64_t limit = 0;
    if (std::ifstream(group / "memory.max") >> limit) bytes = std::min(bytes, limit);  // or "max"
    if (group == top || !group.has_relative_path()) break;
    group = group.parent_path();
  }
  return bytes;
}

}  // namespace lorad
