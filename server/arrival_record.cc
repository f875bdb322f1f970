#include "server/arrival_record.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <optional>

namespace lorad {
namespace {

constexpr std::string_view kMagic = "# lorad arrivals 1";
constexpr std::string_view kColumns =
    "arrival_us,tenant,adapter,adapter_bytes,prompt_tokens,cached_tokens,max_tokens,output_tokens,"
    "priority,weight,deadline_us,outcome,queue_us,first_token_us,total_us";
constexpr std::array<std::string_view, kArrivalOutcomes> kOutcomes = {
    "finished", "refused", "cancelled", "deadline", "failed"};

template <typename T>
bool Parse(std::string_view text, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

std::optional<ArrivalOutcome> OutcomeOf(std::string_view name) {
  for (size_t i = 0; i < kOutcomes.size(); ++i) {
    if (kOutcomes[i] == name) return static_cast<ArrivalOutcome>(i);
  }
  return std::nullopt;
}

}  // namespace

std::string ArrivalHeader(int64_t start_unix_us) {
  return fmt::format("{} start_unix_us={}\n{}\n", kMagic, start_unix_us, kColumns);
}

bool IsArrivalHeader(std::string_view first_line) { return first_line.starts_with(kMagic); }

std::string ToLine(const ArrivalRecord& r) {
  return fmt::format("{},{:x},{},{},{},{},{},{},{},{},{},{},{},{},{}", r.arrival_us, r.tenant,
                     r.adapter, r.adapter_bytes, r.prompt_tokens, r.cached_tokens, r.max_tokens,
                     r.output_tokens, r.priority, r.weight, r.deadline_us,
                     kOutcomes[static_cast<size_t>(r.outcome)], r.queue_us, r.first_token_us,
                     r.total_us);
}

absl::StatusOr<ArrivalRecord> FromLine(std::string_view line) {
  constexpr size_t kFields = 15;
  std::array<std::string_view, kFields> fields;
  size_t count = 0;
  for (std::string_view rest = line;;) {
    const size_t comma = rest.find(',');
    if (count < kFields) fields[count] = rest.substr(0, comma);
    ++count;
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  ArrivalRecord r;
  const auto [tenant_end, tenant_error] =
      std::from_chars(fields[1].data(), fields[1].data() + fields[1].size(), r.tenant, 16);
  const std::optional<ArrivalOutcome> outcome = OutcomeOf(fields[11]);
  const bool parsed = count == kFields && tenant_error == std::errc() &&
                      tenant_end == fields[1].data() + fields[1].size() && outcome.has_value() &&
                      Parse(fields[0], &r.arrival_us) && Parse(fields[2], &r.adapter) &&
                      Parse(fields[3], &r.adapter_bytes) && Parse(fields[4], &r.prompt_tokens) &&
                      Parse(fields[5], &r.cached_tokens) && Parse(fields[6], &r.max_tokens) &&
                      Parse(fields[7], &r.output_tokens) && Parse(fields[8], &r.priority) &&
                      Parse(fields[9], &r.weight) && Parse(fields[10], &r.deadline_us) &&
                      Parse(fields[12], &r.queue_us) && Parse(fields[13], &r.first_token_us) &&
                      Parse(fields[14], &r.total_us);
  if (!parsed) return absl::InvalidArgumentError("the line is no record of an arrival");
  r.outcome = *outcome;
  return r;
}

}  // namespace lorad
