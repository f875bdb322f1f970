// The texts in which a store remembers: the manifest of a version, which is written last of its
// files (a version without one was never finished), and the settings file of an adapter.
//
// Pure functions; any thread. What is read may be anything: it is DataLoss or what it should be.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "memory/stored_version.h"

namespace lorad {

struct Manifest {
  StoredVersion version;
  // Of the adapter when the version was committed. Format 1 had none: "" and 1.
  std::string settings;
  int64_t revision = 1;
};

struct SettingsRecord {
  int64_t version = 0;  // the current one when they were changed
  int64_t revision = 0;
  std::string settings;
};

// More than any of the two can have: each byte of text may be six of JSON.
inline constexpr size_t kMaxManifestBytes = 6 * (kMaxFactsBytes + kMaxSettingsBytes) + (16 << 10);

// Whether `text` can be written; it must be UTF-8. REQUIRES of the functions that write: it can.
bool IsUtf8(std::string_view text);

std::string ToManifest(const Manifest& manifest);
// DataLoss if `text` is not a manifest of version `version` of `id`.
absl::StatusOr<Manifest> ParseManifest(std::string_view text, std::string_view id, int64_t version);

std::string ToSettingsFile(const SettingsRecord& record);
absl::StatusOr<SettingsRecord> ParseSettingsFile(std::string_view text);

}  // namespace lorad
