// LORAD_CHECK: an invariant of our own books, checked in every build. A failure is a bug in lorad,
// never a user's mistake (those are absl::Status): it prints where and what, and aborts so that no
// wrong answer leaves the process.
#pragma once

#include <cstdio>
#include <cstdlib>

#define LORAD_CHECK(condition)                                                               \
  do {                                                                                       \
    if (!(condition)) [[unlikely]] {                                                         \
      std::fprintf(stderr, "%s:%d: invariant broken: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)

namespace lorad {

// Whether checks run that are too slow for every day, such as proving all books after every step.
#ifdef LORAD_DEBUG
inline constexpr bool kDebugBuild = true;
#else
inline constexpr bool kDebugBuild = false;
#endif

}  // namespace lorad
