// AdapterVersion: the facts of one immutable version of one adapter. Requests hold it by shared_ptr
// from the moment they name it until they end, so a version that was replaced or deleted lives
// exactly as long as somebody runs on it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/types.h"
#include "memory/adapter_cache.h"

namespace lorad {

struct AdapterVersion {
  AdapterVersionId id = 0;  // unique in this process: the key of AdapterCache
  std::string name;         // without the "adapters/" prefix
  int64_t version = 0;      // increases with each replacement, for ever
  std::filesystem::path path;
  kernels::AdapterLayout layout;

  int max_rank = 0;
  std::vector<int> ranks;                   // distinct, ascending
  std::vector<std::string> target_modules;  // "q_proj", ...
  std::string base_model;                   // as the adapter's config names it
  std::string sha256;                       // of its files, hex
  int64_t file_bytes = 0;
  std::chrono::system_clock::time_point create_time;
  double alpha = 0;  // lora_alpha of its config

  // What may still change, by and for any thread.
  struct Use {
    std::atomic<int64_t> requests{0};      // that ran on it since the server started
    std::atomic<int64_t> last_unix_ms{0};  // when one last began to; 0: never
    std::atomic<bool> superseded{false};   // replaced or deleted: forget it with its last holder
  };
  mutable Use use;
};

}  // namespace lorad
