#include "memory/store_errors.h"

#include <fmt/format.h>

#include <utility>

#include "memory/base/error_detail.h"
#include "memory/store_manifest.h"

namespace lorad {

absl::Status OfAdapter(absl::Status status, std::string_view reason, std::string_view id) {
  return WithResource(WithReason(std::move(status), reason), "lorad.dev/Adapter",
                      fmt::format("adapters/{}", id));
}

absl::Status AdapterNotFound(std::string_view id) {
  if (!ValidateAdapterId(id).ok()) {
    return WithReason(absl::NotFoundError("there is no such adapter"), "ADAPTER_NOT_FOUND");
  }
  return OfAdapter(absl::NotFoundError(fmt::format("there is no adapter {}", id)),
                   "ADAPTER_NOT_FOUND", id);
}

absl::Status VersionNotFound(std::string_view id, int64_t version) {
  return OfAdapter(absl::NotFoundError(fmt::format("adapter {} has no version {}", id, version)),
                   "VERSION_NOT_FOUND", fmt::format("{}@{}", id, version));
}

absl::Status AdapterCorrupt(const StoredVersion& version, std::string_view problem) {
  return OfAdapter(absl::DataLossError(fmt::format("adapter {} version {} is damaged: {}",
                                                   version.id, version.version, problem)),
                   "ADAPTER_CORRUPT", version.id);
}

absl::Status CheckExpected(std::string_view id, const StoredAdapter* adapter,
                           const Expected& expected) {
  if (adapter != nullptr && adapter->current.version == expected.version &&
      adapter->revision == expected.revision) {
    return absl::OkStatus();
  }
  const std::string found = adapter == nullptr
                                ? "it is not there"
                                : fmt::format("it has version {}, revision {}",
                                              adapter->current.version, adapter->revision);
  return OfAdapter(absl::AbortedError(
                       fmt::format("adapter {} is not as expected: {}, not version {}, revision {}",
                                   id, found, expected.version, expected.revision)),
                   "ETAG_MISMATCH", id);
}

absl::Status CheckNumber(std::string_view id, int64_t number) {
  if (number <= kMaxVersionNumber) return absl::OkStatus();
  return OfAdapter(absl::ResourceExhaustedError(fmt::format("adapter {} has no more numbers", id)),
                   "NUMBERS_EXHAUSTED", id);
}

absl::Status CheckText(std::string_view text, size_t max_bytes, std::string_view field) {
  if (text.size() > max_bytes) {
    return InvalidField(field, fmt::format("has {} bytes, more than {}", text.size(), max_bytes));
  }
  return IsUtf8(text) ? absl::OkStatus() : InvalidField(field, "is not UTF-8");
}

}  // namespace lorad
