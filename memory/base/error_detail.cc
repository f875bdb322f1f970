#include "memory/base/error_detail.h"

#include <fmt/format.h>

#include <charconv>

#include "absl/strings/cord.h"

namespace lorad {
namespace {

constexpr char kReasonUrl[] = "lorad.dev/reason";
constexpr char kFieldUrl[] = "lorad.dev/field";
constexpr char kResourceTypeUrl[] = "lorad.dev/resource_type";
constexpr char kResourceNameUrl[] = "lorad.dev/resource_name";
constexpr char kRetryUrl[] = "lorad.dev/retry_after_ms";

absl::Status With(absl::Status status, const char* url, std::string_view text) {
  status.SetPayload(url, absl::Cord(absl::string_view(text.data(), text.size())));
  return status;
}

std::string Get(const absl::Status& status, const char* url) {
  auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace

absl::Status WithReason(absl::Status status, std::string_view reason) {
  return With(std::move(status), kReasonUrl, reason);
}

absl::Status WithField(absl::Status status, std::string_view field) {
  return With(std::move(status), kFieldUrl, field);
}

absl::Status WithResource(absl::Status status, std::string_view type, std::string_view name) {
  return With(With(std::move(status), kResourceTypeUrl, type), kResourceNameUrl, name);
}

absl::Status WithRetryAfter(absl::Status status, std::chrono::milliseconds delay) {
  return With(std::move(status), kRetryUrl, fmt::format("{}", delay.count()));
}

absl::Status InvalidField(std::string_view field, std::string_view problem,
                          std::string_view reason) {
  return WithReason(
      WithField(absl::InvalidArgumentError(fmt::format("{}: {}", field, problem)), field), reason);
}

absl::Status Explain(std::string_view what, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), fmt::format("{}: {}", what, std::string(status.message())));
}

ErrorDetail GetErrorDetail(const absl::Status& status) {
  ErrorDetail detail{.reason = Get(status, kReasonUrl),
                     .field = Get(status, kFieldUrl),
                     .resource_type = Get(status, kResourceTypeUrl),
                     .resource_name = Get(status, kResourceNameUrl),
                     .retry_after = std::nullopt};
  const std::string retry = Get(status, kRetryUrl);
  int64_t ms = 0;
  if (!retry.empty() &&
      std::from_chars(retry.data(), retry.data() + retry.size(), ms).ec == std::errc()) {
    detail.retry_after = std::chrono::milliseconds(ms);
  }
  return detail;
}

}  // namespace lorad
