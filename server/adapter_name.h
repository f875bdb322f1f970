// AdapterName: how a call names an adapter: "[adapters/][tenant/]name[@version]". Which adapter
// that is depends on who asks: see server/adapter_directory.h. Values and pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace lorad {

inline constexpr std::string_view kBaseModelName = "-";

struct AdapterName {
  std::string tenant;   // empty: it names none
  std::string name;     // of an adapter, or an alias
  int64_t version = 0;  // 0: the current one

  std::string id() const;  // without the version: "acme/foo"
};

// InvalidArgument (field `field`) if there is no name or what follows "@" is no version's number.
// A name that no adapter can have is fine: there will be none of that name.
absl::StatusOr<AdapterName> ParseAdapterName(std::string_view text, std::string_view field);

// An id of the store ("acme/foo"), of a name in `tenant`; empty: of a public one.
std::string AdapterIdIn(std::string_view tenant, std::string_view name);

}  // namespace lorad
