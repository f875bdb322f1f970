// Adapters and their settings between the catalog and the wire. Pure; any thread.
#pragma once

#include <lorad/v1/adapters.pb.h>

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "server/adapter_directory.h"
#include "server/adapter_settings.h"

namespace lorad {

v1::Adapter::State WireState(AdapterState state);

// All that is known of one version of an adapter. `page_bytes`: of the pool.
void FillAdapter(const AdapterInfo& info, size_t page_bytes, v1::Adapter* out);

// InvalidArgument names the field ("settings.labels").
absl::StatusOr<AdapterSettings> SettingsOf(const v1::AdapterSettings& wire);
// None are all. InvalidArgument names "update_mask".
absl::StatusOr<SettingsMask> MaskOf(const google::protobuf::FieldMask& wire);

std::map<std::string, std::string> LabelsOf(
    const google::protobuf::Map<std::string, std::string>& wire);

}  // namespace lorad
