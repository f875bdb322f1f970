// Tenants: on whose behalf a call is made, and what each may have. A call says so in its metadata,
// "x-lorad-tenant: acme"; one that does not speaks for the operator. The server believes it: who
// may reach it is the business of the proxy in front.
//
// Values and pure functions; a TenantTable does not change once it is made. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lorad {

inline constexpr char kTenantMetadata[] = "x-lorad-tenant";

// The tenant that the values of the metadata name; none: "", the operator. InvalidArgument
// INVALID_TENANT if there are several or it is no tenant's name.
absl::StatusOr<std::string> TenantOfMetadata(std::span<const std::string_view> values);

// What a tenant may have.
struct TenantLimits {
  int64_t max_adapters = 0;     // stored; 0: no limit
  int64_t max_bytes = 0;        // of them; 0: no limit
  std::string default_adapter;  // of its requests that name none; empty: the base model
  double weight = 1;            // its share of the server against others'
  int64_t max_waiting = 0;      // requests in the queue; 0: no limit but the queue's

  bool operator==(const TenantLimits&) const = default;
};

// "acme,max-adapters=10,max-bytes=1GiB,default-adapter=foo,weight=2,max-waiting=50": a name, then
// any of these; what is left out is as in `defaults`. InvalidArgument says what is wrong.
absl::StatusOr<std::pair<std::string, TenantLimits>> ParseTenant(std::string_view text,
                                                                 const TenantLimits& defaults);

// "10", "64KiB", "2mb", "1GiB": as the other options of the command line take them, where k is
// always 1024.
absl::StatusOr<int64_t> ParseByteCount(std::string_view text);

class TenantTable {
 public:
  using Map = std::map<std::string, TenantLimits, std::less<>>;

  TenantTable() = default;
  TenantTable(Map named, TenantLimits defaults)
      : named_(std::move(named)), defaults_(std::move(defaults)) {}

  // Of any tenant, named or not. The operator and public adapters ("") have no limits.
  const TenantLimits& Of(std::string_view tenant) const;
  const Map& named() const { return named_; }

 private:
  Map named_;
  TenantLimits defaults_;
  TenantLimits none_;
};

}  // namespace lorad
