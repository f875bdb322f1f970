// AdapterSettings: what may be changed about an adapter without making a new version of it. The
// store keeps them as a text whose meaning is known here only.
//
// Values and pure functions; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lorad {

struct AdapterSettings {
  std::map<std::string, std::string> labels;
  std::string description;
  bool pinned = false;
  std::vector<std::string> aliases;  // in the adapter's tenant, and without its name; distinct

  bool operator==(const AdapterSettings&) const = default;
  bool HasLabels(const std::map<std::string, std::string>& wanted) const;  // all of them
};

// Which settings a change is about.
struct SettingsMask {
  bool labels = true, description = true, pinned = true, aliases = true;
};
// `now` with those of `wanted` that the mask names.
AdapterSettings MergeSettings(const AdapterSettings& now, const AdapterSettings& wanted,
                              const SettingsMask& mask);

// Never null. Adapters without settings share one object.
using AdapterSettingsPtr = std::shared_ptr<const AdapterSettings>;
AdapterSettingsPtr ShareSettings(AdapterSettings settings);

// The limits of proto/lorad/v1/adapters.proto. InvalidArgument names the field
// ("settings.aliases[2]").
absl::Status ValidateSettings(const AdapterSettings& settings);

// Settings as the store keeps them.
struct StoredSettings {
  AdapterSettings settings;
  // Orders the writings of settings of all adapters: should two name the same alias, which only a
  // crash between two writes can leave behind, it belongs to the one that was written last.
  int64_t sequence = 0;
};

// InvalidArgument (field "settings") if that takes more than the store keeps (kMaxSettingsBytes).
absl::StatusOr<std::string> SettingsToText(const StoredSettings& stored);
// The empty text is no settings. DataLoss if it is not a text of ours or breaks a limit.
absl::StatusOr<StoredSettings> SettingsFromText(std::string_view text);

}  // namespace lorad
