// The version of this build.
#pragma once

namespace lorad {

inline constexpr char kVersion[] = LORAD_VERSION;

}  // namespace lorad
