// StoredVersion: one version of one adapter as it lies on disk, and the manifest that says so. A
// manifest is written last of a version's files: a version without one was never finished.
//
// Values and pure functions; any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lorad {

// The files of an adapter. The store knows their names and nothing of what is in them.
inline constexpr std::string_view kAdapterConfigFile = "adapter_config.json";
inline constexpr std::string_view kAdapterWeightsFile = "adapter_model.safetensors";

struct StoredFile {
  int64_t bytes = 0;
  std::string sha256;  // lower-case hexadecimal
};

struct StoredVersion {
  std::string id;
  int64_t version = 0;         // 1, 2, ... for ever, also across deletes
  std::filesystem::path path;  // the directory with the two files
  StoredFile config, weights;
  std::chrono::system_clock::time_point create_time;

  int64_t bytes() const { return config.bytes + weights.bytes; }
};

// [a-z0-9][a-z0-9._-]{0,127} without "..". Such an id is one harmless file name. InvalidArgument
// with field "adapter_id".
absl::Status ValidateAdapterId(std::string_view id);

// A version's number, 1 to 10^15, written as we write it (no sign, no leading zero); 0: it is not
// one.
int64_t ParseVersionNumber(std::string_view text);

std::string ToManifest(const StoredVersion& version);
// DataLoss if `text` is not a manifest of version `version` of `id`. `path` is left empty.
absl::StatusOr<StoredVersion> ParseManifest(std::string_view text, std::string_view id,
                                            int64_t version);

}  // namespace lorad
