#include "server/adapter_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "memory/stored_version.h"
#include "model/json.h"
#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxKeyBytes = 63;
constexpr size_t kMaxValueCharacters = 256;
constexpr size_t kMaxDescriptionBytes = 1024;
constexpr size_t kMaxAliases = 16;

bool IsLetterOrDigit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

bool IsLabelKey(std::string_view key) {
  if (key.empty() || key.size() > kMaxKeyBytes) return false;
  if (!IsLetterOrDigit(key.front()) || !IsLetterOrDigit(key.back())) return false;
  return std::all_of(key.begin(), key.end(), [](char c) {
    return IsLetterOrDigit(c) || c == '.' || c == '_' || c == '/' || c == '-';
  });
}

// REQUIRES: valid UTF-8.
size_t CountCharacters(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; }));
}

absl::Status ValidateLabels(const std::map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) {
    return InvalidField("settings.labels", fmt::format("at most {} labels", kMaxLabels));
  }
  for (const auto& [key, value] : labels) {
    if (!IsLabelKey(key)) {
      return InvalidField("settings.labels",
                          "a key must have 1 to 63 characters of [a-z0-9._/-] and begin and end "
                          "with a letter or digit");
    }
    if (!IsValidUtf8(value) || CountCharacters(value) > kMaxValueCharacters) {
      return InvalidField(
          fmt::format("settings.labels[{}]", key),
          fmt::format("must have at most {} characters of UTF-8", kMaxValueCharacters));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateAliases(const std::vector<std::string>& aliases) {
  if (aliases.size() > kMaxAliases) {
    return InvalidField("settings.aliases", fmt::format("at most {} aliases", kMaxAliases));
  }
  std::set<std::string_view> seen;
  for (size_t i = 0; i < aliases.size(); ++i) {
    const std::string field = fmt::format("settings.aliases[{}]", i);
    if (aliases[i].find('/') != std::string::npos || !ValidateAdapterId(aliases[i]).ok()) {
      return InvalidField(field,
                          "must be like a name of an adapter without a tenant: 1 to 128 characters "
                          "of [a-z0-9._-], the first a letter or digit");
    }
    if (!seen.insert(aliases[i]).second) return InvalidField(field, "is given twice");
  }
  return absl::OkStatus();
}

absl::Status Damaged(std::string_view why) {
  return WithReason(absl::DataLossError(fmt::format("the adapter's settings are damaged: {}", why)),
                    "ADAPTER_CORRUPT");
}

absl::Status ReadLabels(const JsonValue& value, AdapterSettings* out) {
  if (value.object() == nullptr) return Damaged("\"labels\" is not an object");
  for (const auto& [key, label] : *value.object()) {
    if (label.string() == nullptr) return Damaged("a label is not a text");
    out->labels[key] = *label.string();
  }
  return absl::OkStatus();
}

absl::Status ReadAliases(const JsonValue& value, AdapterSettings* out) {
  if (value.array() == nullptr) return Damaged("\"aliases\" is not an array");
  for (const JsonValue& alias : *value.array()) {
    if (alias.string() == nullptr) return Damaged("an alias is not a text");
    out->aliases.push_back(*alias.string());
  }
  return absl::OkStatus();
}

}  // namespace

bool AdapterSettings::HasLabels(const std::map<std::string, std::string>& wanted) const {
  return std::all_of(wanted.begin(), wanted.end(), [this](const auto& label) {
    const auto found = labels.find(label.first);
    return found != labels.end() && found->second == label.second;
  });
}

AdapterSettings MergeSettings(const AdapterSettings& now, const AdapterSettings& wanted,
                              const SettingsMask& mask) {
  AdapterSettings merged = now;
  if (mask.labels) merged.labels = wanted.labels;
  if (mask.description) merged.description = wanted.description;
  if (mask.pinned) merged.pinned = wanted.pinned;
  if (mask.aliases) merged.aliases = wanted.aliases;
  return merged;
}

AdapterSettingsPtr ShareSettings(AdapterSettings settings) {
  static const auto& none = *new AdapterSettingsPtr(std::make_shared<const AdapterSettings>());
  if (settings == *none) return none;
  return std::make_shared<const AdapterSettings>(std::move(settings));
}

absl::Status ValidateSettings(const AdapterSettings& settings) {
  LORAD_RETURN_IF_ERROR(ValidateLabels(settings.labels));
  if (settings.description.size() > kMaxDescriptionBytes || !IsValidUtf8(settings.description)) {
    return InvalidField("settings.description",
                        fmt::format("must have at most {} bytes of UTF-8", kMaxDescriptionBytes));
  }
  return ValidateAliases(settings.aliases);
}

absl::StatusOr<std::string> SettingsToText(const StoredSettings& stored) {
  const AdapterSettings& settings = stored.settings;
  nlohmann::ordered_json json;
  if (!settings.labels.empty()) json["labels"] = settings.labels;
  if (!settings.description.empty()) json["description"] = settings.description;
  if (settings.pinned) json["pinned"] = true;
  if (!settings.aliases.empty()) json["aliases"] = settings.aliases;
  json["sequence"] = stored.sequence;
  std::string text =
      json.dump(-1, ' ', /*ensure_ascii=*/false, nlohmann::ordered_json::error_handler_t::replace);
  if (text.size() > kMaxSettingsBytes) {
    return InvalidField("settings", fmt::format("take {} bytes as they are stored; the limit is {}",
                                                text.size(), kMaxSettingsBytes));
  }
  return text;
}

absl::StatusOr<StoredSettings> SettingsFromText(std::string_view text) {
  StoredSettings stored;
  if (text.empty()) return stored;
  const auto json = JsonValue::Parse(text, {.max_depth = 3, .max_values = 1024});
  if (!json.ok()) return Damaged(std::string(json.status().message()));
  JsonFields fields(*json);
  stored.sequence = fields.Int("sequence", 0, INT64_MAX);
  stored.settings.description = fields.String("description", "");
  stored.settings.pinned = fields.Bool("pinned", false);
  const JsonValue* labels = fields.Get("labels");
  const JsonValue* aliases = fields.Get("aliases");
  if (const absl::Status read = fields.Finish("INVALID_FIELD"); !read.ok()) {
    return Damaged(std::string(read.message()));
  }
  if (labels != nullptr) LORAD_RETURN_IF_ERROR(ReadLabels(*labels, &stored.settings));
  if (aliases != nullptr) LORAD_RETURN_IF_ERROR(ReadAliases(*aliases, &stored.settings));
  if (const absl::Status valid = ValidateSettings(stored.settings); !valid.ok()) {
    return Damaged(std::string(valid.message()));
  }
  return stored;
}

}  // namespace lorad
