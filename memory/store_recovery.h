// How Open brings a store to order after a crash. See adapter_store.h for the rules.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/disk.h"
#include "memory/store_index.h"
#include "memory/store_layout.h"

namespace lorad {

struct RecoveryReport {
  int unfinished = 0;    // staged adapters and versions without a manifest, deleted
  int superseded = 0;    // versions that are not kept, deleted
  int unused_blobs = 0;  // files of no version, deleted
  std::vector<std::string>
      quarantined;  // one line for each thing that was moved to quarantine/: what and why
};

struct RecoveredStore {
  StoreIndex index;
  RecoveryReport report;
};

// Reads no adapter's files. REQUIRES: the caller holds the store's lock, and keep_versions >= 0.
absl::StatusOr<RecoveredStore> RecoverStore(const Disk& disk, const StoreLayout& layout,
                                            int keep_versions);

}  // namespace lorad
