// SyncRound: makes the server's adapters equal to those of a directory, once. Every change is
// guarded by the etag of the state that it was decided on; if that has changed, the adapter is read
// and decided on again. One thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "client/client.h"
#include "client/loractl/session.h"
#include "client/loractl/sync_directory.h"

namespace lorad::loractl {

struct SyncOptions {
  std::string source = "sync";  // value of kManagedLabel on what is managed
  std::string tenant;           // whose adapters; empty: the operator syncs those of all
  bool prune = false;
  bool adopt = false;
  bool dry_run = false;
  bool allow_empty = false;
};

enum class SyncAction { kCreated, kReplaced, kUpdated, kUnchanged, kDeleted, kConflict, kFailed };
std::string_view SyncActionName(SyncAction action);

// What is to be done, or in a dry run what would be.
struct SyncRow {
  std::string name;  // "adapters/foo"
  SyncAction action = SyncAction::kUnchanged;
  int64_t version = 0;  // afterwards; 0 if there is none
  std::string reason;   // of kConflict and kFailed
  ExitCode code = kOk;
};

// The settings that the server's adapter shall have: those of the directory, and the label.
v1::AdapterSettings WantedSettings(const LocalAdapter& local, const SyncOptions& options);

// Pure. `remote`: the server's adapter of that name, null if there is none. Never kDeleted or
// kFailed. REQUIRES: local.error is OK.
SyncAction Decide(const LocalAdapter& local, const v1::Adapter* remote, const SyncOptions& options);

class SyncRound {
 public:
  // `client` speaks for options.tenant.
  SyncRound(Client* client, CallOptions call, SyncOptions options)
      : client_(client), call_(call), options_(std::move(options)) {}

  // One row for each adapter of the directory, then one for each that was pruned. An error only if
  // the server cannot be asked what it has.
  absl::StatusOr<std::vector<SyncRow>> Run(const std::vector<LocalAdapter>& locals);

 private:
  using Remote = std::optional<v1::Adapter>;

  SyncRow Sync(const LocalAdapter& local, Remote remote);
  SyncRow Prune(v1::Adapter remote);
  // Does it; the adapter's version afterwards.
  absl::StatusOr<int64_t> Do(SyncAction action, const LocalAdapter& local, const Remote& remote);
  // Reads an adapter that is not what it was. OK: *remote is what it is now, try again.
  absl::Status ReadAgain(const std::string& name, const absl::Status& refusal, Remote* remote);
  bool Managed(const v1::Adapter& adapter) const;
  std::string NameOf(const std::string& id) const;

  Client* const client_;
  const CallOptions call_;
  const SyncOptions options_;
};

}  // namespace lorad::loractl
