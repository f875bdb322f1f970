// Which instruction sets the cpu backend has.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "tests/unit/kernels/conformance.h"

namespace lorad::kernels::conformance {
namespace {

TEST(CpuBackend, RefusesInstructionSetsThatDoNotExist) {
  for (const char* isa : {"mmx", "AVX2", ""}) {
    EXPECT_TRUE(absl::IsInvalidArgument(NewCpuBackend({.isa = isa}).status())) << isa;
  }
}

TEST(CpuBackend, AutoIsOneOfThoseThatTheMachineHas) {
  const auto backend = NewCpuBackend({.threads = 1});
  ASSERT_TRUE(backend.ok());
  const auto variants = Variants();
  const bool known = std::ranges::any_of(
      variants, [&](const std::string& isa) { return (*backend)->name() == "cpu/" + isa; });
  EXPECT_TRUE(known) << (*backend)->name();
  EXPECT_GE(variants.size(), 1u);
}

}  // namespace
}  // namespace lorad::kernels::conformance
