// SyncDirectory: the adapters that lie in a directory, for `adapters sync`. Reads files only; one
// thread.
//
// DIR/foo with adapter_config.json and adapter_model.safetensors is the adapter "foo"; if DIR/acme
// has no files of an adapter, its subdirectories are adapters of tenant acme: "acme/foo". A file
// lorad.json beside them gives settings (sync_settings.h). Names that begin with "." are skipped.
// Symbolic links are followed as long as they stay below DIR's real path: so mounted Kubernetes
// volumes work, whose entries are links into a hidden directory, and nothing outside DIR is read.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lorad/v1/adapters.pb.h"

namespace lorad::loractl {

struct LocalAdapter {
  std::string id;  // "foo" or "acme/foo"
  // Why it cannot be used. Then nothing else counts, and it may stand for all adapters of a tenant
  // "id" that could not be read.
  absl::Status error;
  std::string directory;  // real path
  std::string config_sha256, sha256;
  v1::AdapterSettings settings;
};

class SyncDirectory {
 public:
  explicit SyncDirectory(std::string path) : path_(std::move(path)) {}

  // By id. An error only if the directory itself cannot be read. Files whose size, times and inode
  // are those of the last call are not read again.
  absl::StatusOr<std::vector<LocalAdapter>> Read();

 private:
  struct KnownFile {
    std::string identity;
    std::string sha256;
  };

  // Calls Visit for the directories below `directory` that are not hidden.
  absl::Status Walk(const std::string& directory, const std::string& tenant);
  void Visit(const std::string& path, const std::string& id, bool below_tenant);
  LocalAdapter ReadAdapter(const std::string& directory, const std::string& id);
  // The real path of a file in `directory`; NotFound if there is none.
  absl::StatusOr<std::string> Resolve(const std::string& directory, std::string_view name) const;
  absl::StatusOr<std::string> Hash(const std::string& directory, std::string_view name);
  bool Below(const std::string& real_path) const;
  void RefuseSharedAliases();
  void Refuse(const std::string& id, absl::Status why);

  const std::string path_;
  std::string root_;  // real path, of the call that runs
  std::vector<LocalAdapter> adapters_;
  std::map<std::string, KnownFile> known_, known_before_;  // by real path
};

}  // namespace lorad::loractl
