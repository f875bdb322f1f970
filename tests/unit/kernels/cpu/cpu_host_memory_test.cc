#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "gtest/gtest.h"
#include "kernels/cpu/host_memory.h"

namespace lorad::kernels::cpu {
namespace {

TEST(HostMemory, IsZeroedAlignedAndWritableToItsLastByte) {
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{100000}, (size_t{5} << 20) + 3}) {
    auto memory = HostMemory::Allocate(bytes);
    ASSERT_TRUE(memory.ok());
    EXPECT_EQ(memory->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % (bytes >= (2u << 20) ? 2u << 20 : 4096),
              0u);
    EXPECT_TRUE(std::all_of(memory->data(), memory->data() + bytes,
                            [](std::byte b) { return b == std::byte{0}; }));
    std::fill(memory->data(), memory->data() + bytes, std::byte{7});
    EXPECT_EQ(memory->data()[bytes - 1], std::byte{7});
  }
}

TEST(HostMemory, MovesLeaveOneOwner) {
  HostMemory a = *HostMemory::Allocate(8192);
  std::byte* const at = a.data();
  HostMemory b = std::move(a);
  EXPECT_EQ(b.data(), at);
  EXPECT_EQ(a.data(), nullptr);  // NOLINT(bugprone-use-after-move)
  HostMemory c = *HostMemory::Allocate(100);
  c = std::move(b);
  EXPECT_EQ(c.data(), at);
  c.data()[8191] = std::byte{1};
}

TEST(HostMemory, WhatCannotBeHadIsAnError) {
  EXPECT_EQ(HostMemory::Allocate(size_t{1} << 60).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(HostMemory::Allocate(std::numeric_limits<size_t>::max() - 100).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace lorad::kernels::cpu
