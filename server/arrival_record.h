// ArrivalRecord: what a recording of arrivals keeps of one request: lengths, times, and numbers
// that stand for its tenant and its adapter. Never text, token ids or names. A recording is a text
// file, one line a request, comma-separated under a line of column names; lorad-sim replays it.
//
// Pure functions; values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace lorad {

enum class ArrivalOutcome : uint8_t {
  kFinished,
  kRefused,  // RESOURCE_EXHAUSTED
  kCancelled,
  kDeadline,
  kFailed,
};
inline constexpr int kArrivalOutcomes = 5;

struct ArrivalRecord {
  int64_t arrival_us = 0;      // since the recording began
  uint64_t tenant = 0;         // equal for equal tenants, within one recording; 0: none
  uint64_t adapter = 0;        // equal for equal versions, within one recording; 0: the base model
  uint64_t adapter_bytes = 0;  // of its packed image
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of them, that the prefix cache had at the first admission
  int64_t max_tokens = 0;     // that the client allowed; 0: the prompt was scored
  int64_t output_tokens = 0;  // that came
  int64_t priority = 0;       // scheduler/priority.h
  double weight = 1;          // of the tenant
  int64_t deadline_us = -1;   // from the arrival; -1: none
  ArrivalOutcome outcome = ArrivalOutcome::kFinished;
  // From the arrival; -1: it did not come to that.
  int64_t queue_us = -1, first_token_us = -1, total_us = -1;

  bool operator==(const ArrivalRecord&) const = default;
};

// The first lines of a file: what it is, and the columns. Ends with a newline.
std::string ArrivalHeader(int64_t start_unix_us);
bool IsArrivalHeader(std::string_view first_line);
// One line without its newline, and back. InvalidArgument: it is not one.
std::string ToLine(const ArrivalRecord& record);
absl::StatusOr<ArrivalRecord> FromLine(std::string_view line);

}  // namespace lorad
