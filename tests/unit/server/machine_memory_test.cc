#include "server/machine_memory.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "tests/unit/server/catalog_fixture.h"

namespace lorad {
namespace {

class MachineMemoryTest : public CatalogTest {
 protected:
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = folder_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  uint64_t Memory() { return MachineMemoryBytes(folder_.path()); }
};

TEST_F(MachineMemoryTest, WithoutGroupsItIsTheMachines) {
  EXPECT_GT(Memory(), uint64_t{1} << 20);
  EXPECT_LE(MachineMemoryBytes(), Memory());
}

TEST_F(MachineMemoryTest, LeastLimitOfTheGroupsAboveCounts) {
  const uint64_t machine = Memory();
  Write("proc/self/cgroup", "1:cpu:/other\n0::/a/b\n");
  Write("sys/fs/cgroup/a/b/memory.max", "max\n");
  EXPECT_EQ(Memory(), machine);
  Write("sys/fs/cgroup/a/memory.max", "3000000\n");
  EXPECT_EQ(Memory(), 3000000u);
  Write("sys/fs/cgroup/a/b/memory.max", "2000000\n");
  EXPECT_EQ(Memory(), 2000000u);
  Write("sys/fs/cgroup/memory.max", "1000000\n");
  EXPECT_EQ(Memory(), 1000000u);
  Write("sys/fs/cgroup/other/memory.max", "5\n");
  EXPECT_EQ(Memory(), 1000000u);
}

TEST_F(MachineMemoryTest, GroupThatIsNotMountedHereIsTheRoot) {
  Write("proc/self/cgroup", "0::/../somewhere\n");
  Write("sys/fs/cgroup/memory.max", "1000000\n");
  EXPECT_EQ(Memory(), 1000000u);
}

}  // namespace
}  // namespace lorad
