// LORAD_RETURN_IF_ERROR and LORAD_ASSIGN_OR_RETURN: early return for absl::Status and
// absl::StatusOr.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define LORAD_RETURN_IF_ERROR(expr)                                                  \
  do {                                                                               \
    if (absl::Status lorad_status = (expr); !lorad_status.ok()) return lorad_status; \
  } while (false)

#define LORAD_CONCAT_INNER(a, b) a##b
#define LORAD_CONCAT(a, b) LORAD_CONCAT_INNER(a, b)

// LORAD_ASSIGN_OR_RETURN(auto x, MakeX()); `lhs` must not contain an unparenthesised comma.
#define LORAD_ASSIGN_OR_RETURN(lhs, expr) \
  LORAD_ASSIGN_OR_RETURN_INNER(LORAD_CONCAT(lorad_status_or_, __LINE__), lhs, expr)
#define LORAD_ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) return std::move(tmp).status();     \
  lhs = std::move(tmp).value()
