#include "memory/stored_version.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "memory/base/error_detail.h"

namespace lorad {
namespace {

constexpr size_t kMaxNameLength = 128;
constexpr size_t kMaxTenantLength = 64;

bool IsLowerOrDigit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// One harmless file name. What was sent is not repeated in the error: it may hold anything.
absl::Status ValidatePart(std::string_view part, size_t max_length, std::string_view field,
                          std::string_view what) {
  if (part.size() > max_length) {
    return InvalidField(
        field, fmt::format("{} has {} characters, more than {}", what, part.size(), max_length));
  }
  const bool known = std::all_of(part.begin(), part.end(), [](char c) {
    return IsLowerOrDigit(c) || c == '.' || c == '_' || c == '-';
  });
  if (part.empty() || !known || !IsLowerOrDigit(part[0]) ||
      part.find("..") != std::string_view::npos) {
    return InvalidField(field,
                        fmt::format("{} must be of a-z, 0-9, '.', '_', '-', begin with a letter or "
                                    "digit, and not hold \"..\"",
                                    what));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateAdapterId(std::string_view id) {
  if (id.empty()) return InvalidField("adapter_id", "is required");
  const size_t slash = id.find('/');
  if (slash == std::string_view::npos) {
    return ValidatePart(id, kMaxNameLength, "adapter_id", "the name");
  }
  const absl::Status status =
      ValidatePart(id.substr(0, slash), kMaxTenantLength, "adapter_id", "the tenant");
  if (!status.ok()) return status;
  return ValidatePart(id.substr(slash + 1), kMaxNameLength, "adapter_id", "the name");
}

absl::Status ValidateTenantId(std::string_view tenant) {
  if (tenant.empty()) return InvalidField("tenant", "is required");
  return ValidatePart(tenant, kMaxTenantLength, "tenant", "it");
}

int64_t ParseVersionNumber(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  // The limit keeps a number that somebody planted from exhausting those after it.
  const bool in_range = error == std::errc() && number >= 1 && number <= kMaxVersionNumber;
  return in_range && fmt::format("{}", number) == text ? number : 0;
}

}  // namespace lorad
