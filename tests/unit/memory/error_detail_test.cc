#include "memory/base/error_detail.h"

#include <gtest/gtest.h>

#include "memory/base/status_macros.h"

namespace lorad {
namespace {

TEST(ErrorDetail, IsEmptyOnAPlainStatus) {
  for (const absl::Status& status : {absl::OkStatus(), absl::InternalError("x")}) {
    const ErrorDetail detail = GetErrorDetail(status);
    EXPECT_EQ(detail.reason, "");
    EXPECT_EQ(detail.field, "");
    EXPECT_EQ(detail.resource_type, "");
    EXPECT_EQ(detail.resource_name, "");
    EXPECT_EQ(detail.retry_after, std::nullopt);
  }
}

TEST(ErrorDetail, CarriesAllThatWasAddedAndLeavesTheStatusAlone) {
  absl::Status status = absl::ResourceExhaustedError("too many");
  status = WithReason(status, "QUEUE_FULL");
  status = WithField(status, "adapter");
  status = WithResource(status, "lorad.dev/Adapter", "adapters/a");
  status = WithRetryAfter(status, std::chrono::milliseconds(1500));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "too many");
  const ErrorDetail detail = GetErrorDetail(status);
  EXPECT_EQ(detail.reason, "QUEUE_FULL");
  EXPECT_EQ(detail.field, "adapter");
  EXPECT_EQ(detail.resource_type, "lorad.dev/Adapter");
  EXPECT_EQ(detail.resource_name, "adapters/a");
  EXPECT_EQ(detail.retry_after, std::chrono::milliseconds(1500));
}

TEST(ErrorDetail, ALaterValueReplacesAnEarlierOne) {
  absl::Status status = WithReason(absl::InternalError("x"), "FIRST");
  status = WithReason(status, "SECOND");
  EXPECT_EQ(GetErrorDetail(status).reason, "SECOND");
}

TEST(ErrorDetail, InvalidFieldNamesTheFieldInMessageAndDetail) {
  const absl::Status status = InvalidField("sampling.top_k", "must not be negative");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "sampling.top_k: must not be negative");
  EXPECT_EQ(GetErrorDetail(status).field, "sampling.top_k");
  EXPECT_EQ(GetErrorDetail(status).reason, "INVALID_FIELD");
  EXPECT_EQ(GetErrorDetail(InvalidField("a", "b", "OTHER")).reason, "OTHER");
}

TEST(ErrorDetail, TextWithAnyBytesSurvives) {
  const std::string bytes("a\0b\n\xff", 5);
  EXPECT_EQ(GetErrorDetail(WithReason(absl::InternalError("x"), bytes)).reason, bytes);
}

absl::StatusOr<int> Twice(absl::StatusOr<int> in) {
  LORAD_ASSIGN_OR_RETURN(const int value, std::move(in));
  LORAD_RETURN_IF_ERROR(value < 0 ? absl::OutOfRangeError("negative") : absl::OkStatus());
  return 2 * value;
}

TEST(StatusMacros, ReturnEarlyWithTheStatusAsItIs) {
  EXPECT_EQ(Twice(21).value(), 42);
  EXPECT_EQ(Twice(-1).status(), absl::OutOfRangeError("negative"));
  const absl::Status failure = WithReason(absl::AbortedError("no"), "WHY");
  EXPECT_EQ(Twice(failure).status(), failure);
}

}  // namespace
}  // namespace lorad
