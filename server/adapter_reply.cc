#include "server/adapter_reply.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "server/reply.h"

namespace lorad {
namespace {

void FillSettings(const AdapterSettings& settings, v1::AdapterSettings* out) {
  for (const auto& [key, value] : settings.labels) (*out->mutable_labels())[key] = value;
  out->set_description(settings.description);
  out->set_pinned(settings.pinned);
  for (const std::string& alias : settings.aliases) out->add_aliases(alias);
}

void FillFacts(const AdapterFacts& facts, v1::Adapter* out) {
  out->set_rank(facts.max_rank);
  out->mutable_ranks()->Assign(facts.ranks.begin(), facts.ranks.end());
  for (const std::string& module : facts.target_modules) out->add_target_modules(module);
  out->set_alpha(facts.alpha);
  out->set_base_model(facts.base_model);
  out->set_image_bytes(static_cast<int64_t>(facts.image_bytes));
  out->set_image_pages(facts.pages);
}

void FillActivity(const AdapterVersion& version, size_t page_bytes, v1::Adapter* out) {
  const AdapterActivity& activity = *version.activity;
  const AdapterState state = activity.state.load();
  out->set_state(WireState(state));
  if (state == AdapterState::kLoading || state == AdapterState::kResident) {
    out->set_resident_pages(version.pages);
    out->set_resident_bytes(static_cast<int64_t>(version.pages * page_bytes));
  }
  out->set_staged_bytes(activity.staged_bytes.load());
  if (const int64_t last = activity.last_unix_ms.load(); last != 0) {
    const std::chrono::system_clock::time_point time{std::chrono::milliseconds(last)};
    SetTimestamp(time, out->mutable_last_use_time());
  }
  out->set_active_requests(activity.active.load());
  out->set_total_requests(activity.requests.load());
  out->set_last_error(activity.LastError());
}

}  // namespace

v1::Adapter::State WireState(AdapterState state) {
  switch (state) {
    case AdapterState::kResident:
      return v1::Adapter::RESIDENT;
    case AdapterState::kLoading:
      return v1::Adapter::LOADING;
    case AdapterState::kStored:
    case AdapterState::kNone:
      return v1::Adapter::STORED;
  }
  return v1::Adapter::STORED;
}

void FillAdapter(const AdapterInfo& info, size_t page_bytes, v1::Adapter* out) {
  const AdapterVersion& version = *info.version;
  out->set_name("adapters/" + version.name);
  out->set_version(version.version);
  out->set_tenant(std::string(version.tenant()));
  out->set_etag(info.etag());
  out->set_size_bytes(version.file_bytes);
  out->set_sha256(version.sha256);
  out->set_config_sha256(version.config_sha256);
  out->set_origin_version(version.origin_version);
  SetTimestamp(version.create_time, out->mutable_create_time());
  if (version.facts != nullptr) FillFacts(*version.facts, out);
  FillActivity(version, page_bytes, out);
  FillSettings(*info.settings, out->mutable_settings());
}

absl::StatusOr<AdapterSettings> SettingsOf(const v1::AdapterSettings& wire) {
  AdapterSettings settings{.labels = LabelsOf(wire.labels()),
                           .description = wire.description(),
                           .pinned = wire.pinned(),
                           .aliases = {wire.aliases().begin(), wire.aliases().end()}};
  LORAD_RETURN_IF_ERROR(ValidateSettings(settings));
  return settings;
}

absl::StatusOr<SettingsMask> MaskOf(const google::protobuf::FieldMask& wire) {
  if (wire.paths().empty()) return SettingsMask();
  SettingsMask mask{.labels = false, .description = false, .pinned = false, .aliases = false};
  const std::pair<std::string_view, bool*> fields[] = {{"labels", &mask.labels},
                                                       {"description", &mask.description},
                                                       {"pinned", &mask.pinned},
                                                       {"aliases", &mask.aliases}};
  for (const std::string& path : wire.paths()) {
    bool known = false;
    for (const auto& [name, taken] : fields) {
      if (path != name) continue;
      known = *taken = true;
    }
    if (!known) {
      return InvalidField("update_mask",
                          "may name labels, description, pinned and aliases, and nothing else");
    }
  }
  return mask;
}

std::map<std::string, std::string> LabelsOf(
    const google::protobuf::Map<std::string, std::string>& wire) {
  return {wire.begin(), wire.end()};
}

}  // namespace lorad
