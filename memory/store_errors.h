// What the store says when it refuses, or finds something damaged. Each status names the adapter as
// its resource.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "memory/stored_version.h"

namespace lorad {

// ADAPTER_NOT_FOUND. An id that is none is not repeated: it may hold anything.
absl::Status AdapterNotFound(std::string_view id);
// VERSION_NOT_FOUND. REQUIRES: the id is valid.
absl::Status VersionNotFound(std::string_view id, int64_t version);
// OK if `adapter` (null: there is none) is as expected, else Aborted ETAG_MISMATCH. REQUIRES: the
// id is valid.
absl::Status CheckExpected(std::string_view id, const StoredAdapter* adapter,
                           const Expected& expected);
// OK if `number`, of a version or revision, can be read again; else ResourceExhausted
// NUMBERS_EXHAUSTED: somebody planted one that was near the end.
absl::Status CheckNumber(std::string_view id, int64_t number);
// OK if a caller's `text` can be stored; else InvalidArgument with the field.
absl::Status CheckText(std::string_view text, size_t max_bytes, std::string_view field);
// ADAPTER_CORRUPT.
absl::Status AdapterCorrupt(const StoredVersion& version, std::string_view problem);
// `status` about the adapter `id`, with `reason`. REQUIRES: the id is valid.
absl::Status OfAdapter(absl::Status status, std::string_view reason, std::string_view id);

}  // namespace lorad
