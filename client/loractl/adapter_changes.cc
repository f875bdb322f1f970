// loractl adapters update, pin, unpin, rollback, delete: changes that send no files.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "client/error.h"
#include "client/loractl/adapter_commands.h"

namespace lorad::loractl {
namespace {

constexpr int kAttempts = 5;

struct UpdateOptions {
  std::vector<std::string> names;
  std::vector<std::string> labels, remove_labels, aliases, remove_aliases;
  std::optional<std::string> description;
  bool pin = false;
  bool unpin = false;
};

// What to change, as a mask and what it does to the settings that are there.
struct Change {
  google::protobuf::FieldMask mask;
  std::map<std::string, std::string> labels;
  const UpdateOptions* options = nullptr;

  void Apply(v1::AdapterSettings* settings) const {
    for (const auto& [key, value] : labels) (*settings->mutable_labels())[key] = value;
    for (const std::string& key : options->remove_labels) settings->mutable_labels()->erase(key);
    if (options->description.has_value()) settings->set_description(*options->description);
    if (options->pin || options->unpin) settings->set_pinned(options->pin);
    auto* aliases = settings->mutable_aliases();
    for (const std::string& alias : options->aliases) {
      if (std::find(aliases->begin(), aliases->end(), alias) == aliases->end()) {
        *aliases->Add() = alias;
      }
    }
    for (const std::string& alias : options->remove_aliases) {
      aliases->erase(std::remove(aliases->begin(), aliases->end(), alias), aliases->end());
    }
  }
};

absl::StatusOr<Change> Plan(const UpdateOptions& options) {
  Change change{.options = &options};
  auto labels = ParseLabels(options.labels);
  if (!labels.ok()) return labels.status();
  change.labels = *std::move(labels);
  for (const std::string& key : options.remove_labels) {
    if (change.labels.count(key) > 0) {
      return absl::InvalidArgumentError(
          fmt::format("--remove-label: --label sets \"{}\" at the same time", key));
    }
  }
  if (!options.labels.empty() || !options.remove_labels.empty()) change.mask.add_paths("labels");
  if (options.description.has_value()) change.mask.add_paths("description");
  if (options.pin || options.unpin) change.mask.add_paths("pinned");
  if (!options.aliases.empty() || !options.remove_aliases.empty()) {
    change.mask.add_paths("aliases");
  }
  if (change.mask.paths().empty()) {
    return absl::InvalidArgumentError("nothing to change: give an option (see --help)");
  }
  return change;
}

// Reads, changes and writes; again if somebody else changed the adapter in between.
absl::StatusOr<v1::Adapter> Update(const std::string& name, const Change& change,
                                   Session* session) {
  absl::Status status;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto before = session->client().GetAdapter(name, session->call());
    if (!before.ok()) return before.status();
    v1::UpdateAdapterRequest request;
    request.set_name(name);
    request.set_etag(before->etag());
    *request.mutable_update_mask() = change.mask;
    *request.mutable_settings() = before->settings();
    change.Apply(request.mutable_settings());
    auto after = session->client().UpdateAdapter(request, session->call());
    if (after.ok() || !IsEtagMismatch(after.status())) return after;
    status = after.status();
  }
  return status;
}

ExitCode RunUpdate(const UpdateOptions& options, Session* session) {
  const auto change = Plan(options);
  if (!change.ok()) return session->Usage(std::string(change.status().message()));
  for (const std::string& name : options.names) {
    const ExitCode code = Show(Update(name, *change, session), session);
    if (code != kOk) return code;
  }
  return kOk;
}

void AddUpdate(CLI::App* group, Session* session) {
  auto options = std::make_shared<UpdateOptions>();
  CLI::App* update = group->add_subcommand("update", "Change settings; makes no new version");
  update->add_option("name", options->names, "Adapters")->required();
  update->add_option("-l,--label", options->labels, "Set a label, KEY=VALUE; repeatable")
      ->allow_extra_args(false);
  update->add_option("--remove-label", options->remove_labels, "Remove a label; repeatable")
      ->allow_extra_args(false);
  update->add_option("--description", options->description, "A text for people; '' removes it");
  update
      ->add_option("--alias", options->aliases,
                   "Add another name; repeatable. One that is in use moves here")
      ->allow_extra_args(false);
  update->add_option("--remove-alias", options->remove_aliases, "Remove a name; repeatable")
      ->allow_extra_args(false);
  CLI::Option* pin =
      update->add_flag("--pin", options->pin, "Load it at once and keep it in the pool");
  update->add_flag("--unpin", options->unpin, "Let the pool evict it when it is idle")
      ->excludes(pin);
  update->footer(
      "What is not named stays as it is, also if others change the adapter at the same time.\n"
      "Example:\n"
      "  loractl adapters update pirate -l tier=gold --remove-label beta --alias corsair");
  update->callback([=] { session->run = [=] { return RunUpdate(*options, session); }; });

  for (const bool pin_it : {true, false}) {
    auto pin_options = std::make_shared<UpdateOptions>();
    (pin_it ? pin_options->pin : pin_options->unpin) = true;
    CLI::App* command =
        pin_it ? group->add_subcommand("pin", "Load adapters at once and keep them in the pool")
               : group->add_subcommand("unpin", "Let the pool evict adapters when they are idle");
    command->add_option("name", pin_options->names, "Adapters")->required();
    command->callback([=] { session->run = [=] { return RunUpdate(*pin_options, session); }; });
  }
}

void AddRollback(CLI::App* group, Session* session) {
  auto request = std::make_shared<v1::RollbackAdapterRequest>();
  CLI::App* rollback = group->add_subcommand("rollback", "Make a kept version current again");
  rollback
      ->add_option_function<std::string>(
          "name", [request](const std::string& name) { request->set_name(name); }, "Adapter")
      ->required();
  rollback->add_option_function<int64_t>(
      "--version", [request](int64_t version) { request->set_version(version); },
      "The version to return to [the newest replaced one]");
  rollback->add_option_function<std::string>(
      "--etag", [request](const std::string& etag) { request->set_etag(etag); },
      "Roll back only from this state of it (see `adapters get`)");
  rollback->footer(
      "It becomes a new version with the old one's files; settings stay. Rolling back twice thus\n"
      "returns to where you were.");
  rollback->callback([=] {
    session->run = [=] {
      return Show(session->client().RollbackAdapter(*request, session->call()), session);
    };
  });
}

struct DeleteOptions {
  std::vector<std::string> names;
  std::string etag;
  bool allow_missing = false;
};

ExitCode Delete(const DeleteOptions& options, Session* session) {
  if (!options.etag.empty() && options.names.size() > 1) {
    return session->Usage("--etag: only with one adapter");
  }
  for (const std::string& name : options.names) {
    const absl::Status status =
        session->client().DeleteAdapter(name, options.allow_missing, options.etag, session->call());
    if (!status.ok()) return session->Fail(status);
    if (!session->json) session->terminal.out() << "deleted " << name << "\n";
  }
  return kOk;
}

void AddDelete(CLI::App* group, Session* session) {
  auto options = std::make_shared<DeleteOptions>();
  CLI::App* remove = group->add_subcommand("delete", "Delete adapters with all their versions");
  remove->add_option("name", options->names, "Adapters")->required();
  remove->add_flag("--allow-missing", options->allow_missing, "Succeed if there is none");
  remove->add_option("--etag", options->etag, "Delete only this state of it (see `adapters get`)");
  remove->callback([=] { session->run = [=] { return Delete(*options, session); }; });
}

}  // namespace

void AddAdapterChanges(CLI::App* group, Session* session) {
  AddUpdate(group, session);
  AddRollback(group, session);
  AddDelete(group, session);
}

}  // namespace lorad::loractl
