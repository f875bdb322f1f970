#include "client/loractl/sync_settings.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

namespace lorad::loractl {
namespace {

using Json = nlohmann::json;

// Parses, and finds the keys that nlohmann would silently take the last of.
absl::StatusOr<Json> ParseStrictly(std::string_view text) {
  std::vector<std::set<std::string>> open;  // keys of the objects around the parser
  std::string twice;
  const Json::parser_callback_t see = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key && !open.back().insert(value.get<std::string>()).second) {
      twice = value.get<std::string>();
    }
    return true;
  };
  try {
    Json json = Json::parse(text.begin(), text.end(), see);
    if (!twice.empty()) {
      return absl::InvalidArgumentError(fmt::format("\"{}\" is there twice", twice));
    }
    return json;
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(fmt::format("not JSON: {}", error.what()));
  }
}

absl::Status TakeLabels(const Json& value, v1::AdapterSettings* settings) {
  if (!value.is_object()) return absl::InvalidArgumentError("labels: not an object");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) {
      return absl::InvalidArgumentError(fmt::format("labels.{}: not a string", key));
    }
    if (key == kManagedLabel) {
      return absl::InvalidArgumentError(fmt::format("labels.{}: sync sets it (--source)", key));
    }
    (*settings->mutable_labels())[key] = text.get<std::string>();
  }
  return absl::OkStatus();
}

absl::Status TakeAliases(const Json& value, v1::AdapterSettings* settings) {
  if (!value.is_array()) return absl::InvalidArgumentError("aliases: not an array");
  for (const Json& alias : value) {
    if (!alias.is_string()) return absl::InvalidArgumentError("aliases: not all are strings");
    settings->add_aliases(alias.get<std::string>());
  }
  return absl::OkStatus();
}

absl::Status Take(const std::string& key, const Json& value, v1::AdapterSettings* settings) {
  if (key == "labels") return TakeLabels(value, settings);
  if (key == "aliases") return TakeAliases(value, settings);
  if (key == "description") {
    if (!value.is_string()) return absl::InvalidArgumentError("description: not a string");
    settings->set_description(value.get<std::string>());
    return absl::OkStatus();
  }
  if (key == "pinned") {
    if (!value.is_boolean()) return absl::InvalidArgumentError("pinned: neither true nor false");
    settings->set_pinned(value.get<bool>());
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("\"{}\": no such key (labels, description, pinned, aliases)", key));
}

}  // namespace

absl::StatusOr<v1::AdapterSettings> ParseSettings(std::string_view json) {
  const auto parsed = ParseStrictly(json);
  if (!parsed.ok()) return parsed.status();
  if (!parsed->is_object()) return absl::InvalidArgumentError("not an object");
  v1::AdapterSettings settings;
  for (const auto& [key, value] : parsed->items()) {
    if (const absl::Status status = Take(key, value, &settings); !status.ok()) return status;
  }
  return settings;
}

bool SameSettings(const v1::AdapterSettings& a, const v1::AdapterSettings& b) {
  using Labels = std::map<std::string, std::string>;
  using Aliases = std::set<std::string>;
  return Labels(a.labels().begin(), a.labels().end()) ==
             Labels(b.labels().begin(), b.labels().end()) &&
         Aliases(a.aliases().begin(), a.aliases().end()) ==
             Aliases(b.aliases().begin(), b.aliases().end()) &&
         a.description() == b.description() && a.pinned() == b.pinned();
}

}  // namespace lorad::loractl
