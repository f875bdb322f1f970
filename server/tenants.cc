#include "server/tenants.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <limits>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "memory/stored_version.h"
#include "scheduler/tenant_ledger.h"
#include "server/adapter_name.h"

namespace lorad {
namespace {

// "adapters/foo" is how a public adapter's resource is called: a tenant of that name would have
// names that mean two things.
constexpr std::string_view kReserved = "adapters";

bool IsTenant(std::string_view name) { return ValidateTenantId(name).ok() && name != kReserved; }

absl::StatusOr<int64_t> ParseCount(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    return absl::InvalidArgumentError(fmt::format("\"{}\" is no number of 0 or more", text));
  }
  return value;
}

absl::StatusOr<double> ParseWeight(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // Written so that NaN is refused too.
  const bool within = value >= kMinTenantWeight && value <= kMaxTenantWeight;
  if (error != std::errc() || end != text.data() + text.size() || !within) {
    return absl::InvalidArgumentError(fmt::format("weight \"{}\" is no number in [{}, {}]", text,
                                                  kMinTenantWeight, kMaxTenantWeight));
  }
  return value;
}

absl::Status ParseLimit(std::string_view key, std::string_view value, TenantLimits* limits) {
  if (key == "max-adapters") {
    LORAD_ASSIGN_OR_RETURN(limits->max_adapters, ParseCount(value));
    return absl::OkStatus();
  }
  if (key == "max-bytes") {
    LORAD_ASSIGN_OR_RETURN(limits->max_bytes, ParseByteCount(value));
    return absl::OkStatus();
  }
  if (key == "default-adapter") {
    limits->default_adapter = value;
    return ParseAdapterName(value, "default-adapter").status();
  }
  if (key == "weight") {
    LORAD_ASSIGN_OR_RETURN(limits->weight, ParseWeight(value));
    return absl::OkStatus();
  }
  if (key == "max-waiting") {
    LORAD_ASSIGN_OR_RETURN(limits->max_waiting, ParseCount(value));
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "\"{}\" is not one of max-adapters, max-bytes, default-adapter, weight, max-waiting", key));
}

}  // namespace

absl::StatusOr<std::string> TenantOfMetadata(std::span<const std::string_view> values) {
  if (values.empty()) return std::string();
  if (values.size() > 1 || !IsTenant(values[0])) {
    return InvalidField(kTenantMetadata, "must be one name of a tenant", "INVALID_TENANT");
  }
  return std::string(values[0]);
}

absl::StatusOr<int64_t> ParseByteCount(std::string_view text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  LORAD_ASSIGN_OR_RETURN(const int64_t count, ParseCount(text.substr(0, digits)));
  std::string unit(text.substr(digits));
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::array<char, 4> kPrefixes = {'k', 'm', 'g', 't'};
  int64_t factor = 1;
  bool known = unit.empty() || unit == "b";
  for (size_t i = 0; i < kPrefixes.size() && !known; ++i) {
    factor *= 1024;
    const std::string prefix(1, kPrefixes[i]);
    known = unit == prefix || unit == prefix + "b" || unit == prefix + "ib";
  }
  if (!known || count > std::numeric_limits<int64_t>::max() / factor) {
    return absl::InvalidArgumentError(fmt::format("\"{}\" is no number of bytes", text));
  }
  return count * factor;
}

absl::StatusOr<std::pair<std::string, TenantLimits>> ParseTenant(std::string_view text,
                                                                 const TenantLimits& defaults) {
  std::string_view rest = text;
  const auto next = [&rest] {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view word = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    return word;
  };
  std::pair<std::string, TenantLimits> out{next(), defaults};
  if (!IsTenant(out.first)) {
    return absl::InvalidArgumentError(fmt::format("\"{}\" is no name of a tenant", out.first));
  }
  while (!rest.empty()) {
    const std::string_view word = next();
    const size_t equals = std::min(word.find('='), word.size());
    LORAD_RETURN_IF_ERROR(ParseLimit(word.substr(0, equals),
                                     word.substr(std::min(equals + 1, word.size())), &out.second));
  }
  return out;
}

const TenantLimits& TenantTable::Of(std::string_view tenant) const {
  if (tenant.empty()) return none_;
  const auto found = named_.find(tenant);
  return found == named_.end() ? defaults_ : found->second;
}

}  // namespace lorad
