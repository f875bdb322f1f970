// The files of a PEFT directory on this machine, as UploadAdapter sends them and as the server
// describes those that it has. Reads files; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "lorad/v1/adapters.pb.h"

namespace lorad {

inline constexpr std::string_view kConfigFile = "adapter_config.json";
inline constexpr std::string_view kWeightsFile = "adapter_model.safetensors";
// All files of an adapter, in the order in which they are sent.
inline constexpr std::array<std::string_view, 2> kAdapterFiles = {kConfigFile, kWeightsFile};

// Bytes in the largest piece of a file that ForEachChunk gives and one message may carry.
inline constexpr size_t kChunkBytes = 1 << 20;

// Calls `take` with consecutive pieces of at most kChunkBytes until it returns false. The bytes
// read; NotFound if the file cannot be opened.
absl::StatusOr<int64_t> ForEachChunk(const std::string& path,
                                     const std::function<bool(std::string_view)>& take);

// Name without directory, size and SHA-256 of one file; reads it from end to end.
absl::StatusOr<v1::UploadFile> DescribeFile(const std::string& path);

}  // namespace lorad
