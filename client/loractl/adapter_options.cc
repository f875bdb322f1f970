#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "client/loractl/adapter_commands.h"

namespace lorad::loractl {

absl::StatusOr<std::map<std::string, std::string>> ParseLabels(
    const std::vector<std::string>& pairs) {
  std::map<std::string, std::string> labels;
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(
          fmt::format("--label: \"{}\" is not of the form KEY=VALUE", pair));
    }
    const std::string key = pair.substr(0, equals);
    if (!labels.emplace(key, pair.substr(equals + 1)).second) {
      return absl::InvalidArgumentError(fmt::format("--label: \"{}\" is given twice", key));
    }
  }
  return labels;
}

void AddLabelFilter(CLI::App* command, std::vector<std::string>* pairs) {
  command
      ->add_option("-l,--label", *pairs,
                   "Only adapters with this label, KEY=VALUE; repeatable: all of them")
      ->allow_extra_args(false);
}

void SettingsOptions::AddTo(CLI::App* command) {
  command->add_option("-l,--label", labels, "A label, KEY=VALUE; repeatable")
      ->allow_extra_args(false);
  command->add_option("--description", description, "A text for people");
  command->add_option("--alias", aliases, "Another name for it; repeatable")
      ->allow_extra_args(false);
  command->add_flag("--pin", pin, "Load it at once and keep it in the pool");
}

absl::StatusOr<std::optional<v1::AdapterSettings>> SettingsOptions::Settings() const {
  if (labels.empty() && !description.has_value() && aliases.empty() && !pin) return std::nullopt;
  const auto parsed = ParseLabels(labels);
  if (!parsed.ok()) return parsed.status();
  v1::AdapterSettings settings;
  settings.mutable_labels()->insert(parsed->begin(), parsed->end());
  settings.set_description(description.value_or(""));
  settings.set_pinned(pin);
  for (const std::string& alias : aliases) settings.add_aliases(alias);
  return settings;
}

}  // namespace lorad::loractl
