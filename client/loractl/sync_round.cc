#include "client/loractl/sync_round.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "client/error.h"
#include "client/loractl/sync_settings.h"

namespace lorad::loractl {
namespace {

constexpr int kAttempts = 5;

// Who manages an adapter; empty: nobody.
std::string ManagerOf(const v1::Adapter& adapter) {
  const auto label = adapter.settings().labels().find(kManagedLabel);
  return label == adapter.settings().labels().end() ? "" : label->second;
}

SyncRow Failed(const std::string& name, const absl::Status& status, ExitCode code) {
  return {.name = name,
          .action = SyncAction::kFailed,
          .reason = fmt::format("{}: {}", absl::StatusCodeToString(status.code()),
                                std::string(status.message())),
          .code = code};
}

SyncRow Conflict(const v1::Adapter& remote) {
  const std::string manager = ManagerOf(remote);
  return {.name = remote.name(),
          .action = SyncAction::kConflict,
          .version = remote.version(),
          .reason = manager.empty()
                        ? std::string("not managed by sync; --adopt takes it over")
                        : fmt::format("managed by \"{}\"; --adopt takes it over", manager),
          .code = kRefused};
}

}  // namespace

std::string_view SyncActionName(SyncAction action) {
  switch (action) {
    case SyncAction::kCreated:
      return "created";
    case SyncAction::kReplaced:
      return "replaced";
    case SyncAction::kUpdated:
      return "updated";
    case SyncAction::kUnchanged:
      return "unchanged";
    case SyncAction::kDeleted:
      return "deleted";
    case SyncAction::kConflict:
      return "conflict";
    case SyncAction::kFailed:
      return "failed";
  }
  return "";
}

v1::AdapterSettings WantedSettings(const LocalAdapter& local, const SyncOptions& options) {
  v1::AdapterSettings settings = local.settings;
  (*settings.mutable_labels())[kManagedLabel] = options.source;
  return settings;
}

SyncAction Decide(const LocalAdapter& local, const v1::Adapter* remote,
                  const SyncOptions& options) {
  if (remote == nullptr) return SyncAction::kCreated;
  if (ManagerOf(*remote) != options.source && !options.adopt) return SyncAction::kConflict;
  if (remote->sha256() != local.sha256 || remote->config_sha256() != local.config_sha256) {
    return SyncAction::kReplaced;
  }
  return SameSettings(remote->settings(), WantedSettings(local, options)) ? SyncAction::kUnchanged
                                                                          : SyncAction::kUpdated;
}

absl::StatusOr<std::vector<SyncRow>> SyncRound::Run(const std::vector<LocalAdapter>& locals) {
  auto listed = client_->ListAdapters({}, call_);
  if (!listed.ok()) return listed.status();
  // A tenant is shown what is public too; that is not its own to change.
  const std::string own = NameOf("");
  std::map<std::string, v1::Adapter> remotes;
  for (v1::Adapter& adapter : *listed) {
    if (adapter.name().compare(0, own.size(), own) != 0) continue;
    const std::string name = adapter.name();
    remotes.emplace(name, std::move(adapter));
  }

  std::vector<SyncRow> rows;
  std::set<std::string> kept, kept_below;
  for (const LocalAdapter& local : locals) {
    const std::string name = NameOf(local.id);
    kept.insert(name);
    if (!local.error.ok()) kept_below.insert(name);
    const auto remote = remotes.find(name);
    rows.push_back(Sync(local, remote == remotes.end() ? Remote() : remote->second));
  }
  if (!options_.prune) return rows;
  for (auto& [name, remote] : remotes) {
    if (!Managed(remote) || kept.count(name) > 0) continue;
    // A tenant's directory that could not be read may hold this one.
    if (kept_below.count(name.substr(0, name.rfind('/'))) > 0) continue;
    if (locals.empty() && !options_.allow_empty) {
      rows.push_back(Failed(name,
                            absl::FailedPreconditionError(
                                "DIR holds no adapter at all; --allow-empty deletes this one too"),
                            kUsage));
    } else {
      rows.push_back(Prune(std::move(remote)));
    }
  }
  return rows;
}

SyncRow SyncRound::Sync(const LocalAdapter& local, Remote remote) {
  const std::string name = NameOf(local.id);
  if (!local.error.ok()) return Failed(name, local.error, kUsage);
  if (!options_.tenant.empty() && local.id.find('/') != std::string::npos) {
    return Failed(name, absl::InvalidArgumentError("with --tenant DIR has one level"), kUsage);
  }
  absl::Status refusal;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const SyncAction action = Decide(local, remote ? &*remote : nullptr, options_);
    if (action == SyncAction::kConflict) return Conflict(*remote);
    SyncRow row{.name = name, .action = action, .version = remote ? remote->version() : 0};
    if (action == SyncAction::kUnchanged || options_.dry_run) return row;
    const auto version = Do(action, local, remote);
    if (version.ok()) {
      row.version = *version;
      return row;
    }
    refusal = version.status();
    if (const absl::Status status = ReadAgain(name, refusal, &remote); !status.ok()) {
      return Failed(name, status, ExitCodeOf(status));
    }
  }
  return Failed(name, refusal, ExitCodeOf(refusal));
}

SyncRow SyncRound::Prune(v1::Adapter adapter) {
  const std::string name = adapter.name();
  SyncRow deleted{.name = name, .action = SyncAction::kDeleted};
  absl::Status refusal;
  Remote remote = std::move(adapter);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (!remote.has_value()) return deleted;
    if (!Managed(*remote)) return {.name = name, .version = remote->version()};  // not ours now
    if (options_.dry_run) return deleted;
    refusal = client_->DeleteAdapter(name, /*allow_missing=*/true, remote->etag(), call_);
    if (refusal.ok()) return deleted;
    if (const absl::Status status = ReadAgain(name, refusal, &remote); !status.ok()) {
      return Failed(name, status, ExitCodeOf(status));
    }
  }
  return Failed(name, refusal, ExitCodeOf(refusal));
}

absl::StatusOr<int64_t> SyncRound::Do(SyncAction action, const LocalAdapter& local,
                                      const Remote& remote) {
  absl::StatusOr<v1::Adapter> adapter;
  if (action == SyncAction::kUpdated) {
    v1::UpdateAdapterRequest request;
    request.set_name(remote->name());
    request.set_etag(remote->etag());
    *request.mutable_settings() = WantedSettings(local, options_);
    adapter = client_->UpdateAdapter(request, call_);
  } else {
    adapter = client_->UploadAdapter({.adapter_id = local.id,
                                      .directory = local.directory,
                                      .replace = remote.has_value(),
                                      .settings = WantedSettings(local, options_),
                                      .etag = remote ? remote->etag() : ""},
                                     nullptr, call_);
  }
  if (!adapter.ok()) return adapter.status();
  return adapter->version();
}

absl::Status SyncRound::ReadAgain(const std::string& name, const absl::Status& refusal,
                                  Remote* remote) {
  const bool may_have_changed =
      IsEtagMismatch(refusal) || absl::IsAlreadyExists(refusal) || absl::IsNotFound(refusal);
  if (!may_have_changed) return refusal;
  auto now = client_->GetAdapter(name, call_);
  if (!now.ok() && !absl::IsNotFound(now.status())) return now.status();
  // An alias of that name is another adapter.
  Remote found = now.ok() && now->name() == name ? Remote(*std::move(now)) : Remote();
  const bool same = found.has_value() == remote->has_value() &&
                    (!found.has_value() || found->etag() == (*remote)->etag());
  // If it is what it was, the refusal has another cause, which would come again.
  if (same && !IsEtagMismatch(refusal)) return refusal;
  *remote = std::move(found);
  return absl::OkStatus();
}

bool SyncRound::Managed(const v1::Adapter& adapter) const {
  return ManagerOf(adapter) == options_.source;
}

std::string SyncRound::NameOf(const std::string& id) const {
  return options_.tenant.empty() ? "adapters/" + id
                                 : fmt::format("adapters/{}/{}", options_.tenant, id);
}

}  // namespace lorad::loractl
