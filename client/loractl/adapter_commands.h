// The commands below `loractl adapters`, and what they share. One thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/loractl/session.h"
#include "lorad/v1/adapters.pb.h"

namespace lorad::loractl {

// Each adds its commands to `group`; AddAdapters calls them.
void AddAdapterUpload(CLI::App* group, Session* session);   // upload, create
void AddAdapterChanges(CLI::App* group, Session* session);  // update, pin, unpin, rollback, delete
void AddAdapterSync(CLI::App* group, Session* session);
void AddAdapterWatch(CLI::App* group, Session* session);

// Prints an adapter, or why there is none.
ExitCode Show(const absl::StatusOr<v1::Adapter>& adapter, Session* session);

// "team=sea" -> {"team", "sea"}; the value may hold more '='. InvalidArgument names what is wrong.
absl::StatusOr<std::map<std::string, std::string>> ParseLabels(
    const std::vector<std::string>& pairs);

// -l,--label as a filter, for commands that list.
void AddLabelFilter(CLI::App* command, std::vector<std::string>* pairs);

// The options that give an adapter its settings when it is stored.
struct SettingsOptions {
  std::vector<std::string> labels;
  std::optional<std::string> description;
  std::vector<std::string> aliases;
  bool pin = false;

  void AddTo(CLI::App* command);
  // None if no option was given: the adapter keeps what it has.
  absl::StatusOr<std::optional<v1::AdapterSettings>> Settings() const;
};

}  // namespace lorad::loractl
