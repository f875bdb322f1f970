// Config: everything an operator can set, from the command line or a TOML file, checked whole
// before anything starts.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/types.h"
#include "memory/base/check.h"
#include "scheduler/objective.h"
#include "scheduler/policy.h"
#include "server/rule_options.h"
#include "server/tenants.h"

namespace lorad {

struct Config {
  // The model.
  std::string model;                 // directory
  std::string model_name;            // empty: the directory's name
  std::string load_format = "auto";  // auto, dummy
  int max_model_len = 0;             // tokens; 0: what the model was made for

  // The device.
  std::string backend = "auto";  // auto, cpu, reference, cuda
  std::string cpu_isa = "auto";
  int threads = 0;                 // 0: every core this process may use
  std::string weights = "auto";    // auto, bf16, int8, int4, fp8
  int tensor_parallel = 1;         // ranks
  int device = 0;                  // of the CUDA backend
  std::string kv_format = "bf16";  // bf16, fp8
  bool batch_invariant = false;    // on the CUDA backend; the others always are
  uint64_t pool_bytes = 0;         // 0: chosen from the device's memory
  uint64_t host_cache_bytes = 0;   // 0: a quarter of the memory; of backends with their own memory
  int page_tokens = 0;             // 0: chosen from the model
  bool prefix_cache = true;
  bool share_base_prefixes = false;  // between tenants

  // Adapters.
  std::string state_dir = "lorad-state";
  std::vector<std::string> adapter_roots;
  std::vector<std::string> adapters;  // "name=path", taken in at start if not there
  int max_rank = 256;
  int max_adapters = 10000;
  uint64_t max_upload_bytes = uint64_t{1} << 30;
  int loader_threads = 2;
  int keep_versions = 2;        // replaced ones, of each adapter
  int max_pinned_percent = 50;  // of the pool, that pinned adapters may take
  double adapter_wait_timeout_s = 30;
  double upload_idle_timeout_s = 60;

  // Tenants.
  std::vector<std::string>
      tenants;  // "name,max-adapters=N,max-bytes=N,default-adapter=NAME,weight=W,max-waiting=N"
  int64_t tenant_max_adapters = 0;  // of each that is not listed; 0: no limit
  uint64_t tenant_max_bytes = 0;
  int64_t tenant_max_waiting = 0;

  // Scheduling.
  int max_running = 64;
  int max_waiting = 1024;
  int64_t max_waiting_tokens = int64_t{1} << 20;
  uint64_t max_waiting_bytes = uint64_t{256} << 20;
  std::vector<std::string> objectives;  // "interactive,ttft=500ms,itl=50ms,refuse"
  int max_step_tokens = 512;
  int max_chunk_tokens = 256;
  std::string admission = "no-evict";  // no-evict, optimistic, prompt-only
  bool backfill = true;
  RuleOptions rules;
  int default_max_tokens = 256;
  double slow_reader_timeout_s = 60;

  // The front door.
  std::string listen = "127.0.0.1:7433";
  std::string metrics_listen = "127.0.0.1:9464";  // empty: no metrics endpoint
  bool allow_remote = false;
  bool reflection = true;
  double drain_timeout_s = 30;

  // Logs.
  std::string log_level = "info";
  std::string log_format = "text";  // text, json
  std::string record_arrivals;      // file; empty: none are recorded
  uint64_t record_arrivals_bytes = uint64_t{256} << 20;

  bool check_only = false;
  bool validate_books = kDebugBuild;

  AdmissionMode Admission() const;             // REQUIRES: checked.
  kernels::WeightFormat WeightFormat() const;  // REQUIRES: checked.
  // "foo=/path" of `adapters`, split.  REQUIRES: checked.
  std::vector<std::pair<std::string, std::string>> AdapterList() const;
  TenantTable Tenants() const;         // REQUIRES: checked.
  Objectives ClassObjectives() const;  // REQUIRES: checked.
};

struct ExitNow {
  int code = 0;
  std::string text;  // for stdout if code is 0, else stderr
};

// Either a whole valid configuration, or what to print and exit with (help, version, every problem
// found).
std::variant<Config, ExitNow> ParseCommandLine(int argc, const char* const* argv);

// All problems at once, one a line; OK if there are none.
absl::Status ValidateConfig(const Config& config);

}  // namespace lorad
