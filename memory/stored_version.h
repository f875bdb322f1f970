// What the store knows of adapters, as values: ids and their owners, versions, and an adapter with
// its current version, the versions kept before it, and its settings.
//
// Values and pure functions; any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace lorad {

// The files of an adapter. The store knows their names and nothing of what is in them.
inline constexpr std::string_view kAdapterConfigFile = "adapter_config.json";
inline constexpr std::string_view kAdapterWeightsFile = "adapter_model.safetensors";

// What a caller may keep with a version and with an adapter: UTF-8 text, of no meaning to the
// store.
inline constexpr size_t kMaxFactsBytes = 16 << 10;
inline constexpr size_t kMaxSettingsBytes = 32 << 10;

struct StoredFile {
  int64_t bytes = 0;
  std::string sha256;  // lower-case hexadecimal
  uint64_t inode = 0;  // on this machine's disk, in no manifest; files that are one have the same
};

// Immutable once it is stored. Its files lie in AdapterStore::PathOf.
struct StoredVersion {
  std::string id;
  int64_t version = 0;         // 1, 2, ... for ever, also across deletes
  int64_t origin_version = 0;  // whose files it has, if it was made by a rollback; else 0
  StoredFile config, weights;
  std::chrono::system_clock::time_point create_time;
  std::string facts;  // what the caller found out about the files

  int64_t bytes() const { return config.bytes + weights.bytes; }
};

struct StoredAdapter {
  StoredVersion current;
  std::vector<StoredVersion> kept;  // superseded, newest first: what a rollback may go back to
  std::string settings;             // the caller's; of the adapter, whatever its version
  int64_t revision = 0;  // grows with each new version and each change of settings; with the
                         // version's number it never comes again

  const std::string& id() const { return current.id; }
};

// Compare-and-swap: a change that is given one happens only if the adapter is there with its
// current version and revision as these; else Aborted ETAG_MISMATCH with the adapter's name.
struct Expected {
  int64_t version = 0;
  int64_t revision = 0;
};

// An id is "name" (public) or "tenant/name". Name: [a-z0-9][a-z0-9._-]{0,127} without "..".
// InvalidArgument with field "adapter_id".
absl::Status ValidateAdapterId(std::string_view id);
// [a-z0-9][a-z0-9._-]{0,63} without "..". InvalidArgument with field "tenant".
absl::Status ValidateTenantId(std::string_view tenant);
// The tenant of a valid id; "" if it is public.
inline std::string_view OwnerOf(std::string_view id) {
  const size_t slash = id.find('/');
  return slash == std::string_view::npos ? std::string_view() : id.substr(0, slash);
}

// Of versions and of revisions.
inline constexpr int64_t kMaxVersionNumber = 1'000'000'000'000'000;
// A version's number, written as we write it (no sign, no leading zero); 0: it is not one.
int64_t ParseVersionNumber(std::string_view text);

}  // namespace lorad
