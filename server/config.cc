#include "server/config.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <set>

#include "kernels/quantise.h"
#include "memory/adapter_store.h"
#include "server/machine_memory.h"
#include "server/objective_option.h"
#include "server/version.h"

namespace lorad {
namespace {

constexpr char kDescription[] =
    "lorad serves one base model and thousands of LoRA adapters from one process: requests for any "
    "mix of\n"
    "adapters share each step of one batch, and adapters come and go while it serves.\n";

constexpr char kFooter[] =
    "\nExamples:\n"
    "  lorad --model demo/model --adapter json=demo/adapters/json\n"
    "  lorad --model /models/llama --pool-bytes 8GiB --adapter-root /srv/adapters --log-format "
    "json\n"
    "  lorad --config /etc/lorad/lorad.toml --check-config\n"
    "\n"
    "Every option may stand in the file given with --config (TOML: max-running = 64). Then talk to "
    "it with loractl:\n"
    "  loractl generate --adapter json 'name: Ann, age: 41'\n"
    "\n"
    "Exit status: 0 after a drain, 1 wrong configuration, 2 start-up failed, 70 the device failed "
    "(restart me).\n";

std::string AutoIsZero(std::string& text) {
  if (text == "auto") text = "0";
  return "";
}

void AddModelOptions(CLI::App& app, Config& c) {
  app.add_option("--model", c.model,
                 "Hugging Face directory of the base model (config.json, safetensors, tokenizer)")
      ->required()
      ->group("Model");
  app.add_option("--model-name", c.model_name, "Name shown to clients [the directory's name]")
      ->group("Model");
  app.add_option(
         "--load-format", c.load_format,
         "auto: read the weights; dummy: deterministic random weights from config.json alone")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->capture_default_str()
      ->group("Model");
  app.add_option("--max-model-len", c.max_model_len,
                 "Longest prompt and output together, tokens [what the model was made for]")
      ->group("Model");
}

void AddDeviceOptions(CLI::App& app, Config& c) {
  app.add_option("--backend", c.backend,
                 "auto (cuda where there is a device, else cpu), cpu, cuda, or reference (slow, "
                 "plain fp32, for comparisons)")
      ->check(CLI::IsMember({"auto", "cpu", "reference", "cuda"}))
      ->capture_default_str()
      ->group("Device");
  app.add_option("--cpu-isa", c.cpu_isa,
                 "Instruction set of the CPU backend; auto measures at start")
      ->check(CLI::IsMember({"auto", "amx", "avx512bf16", "avx512", "avx2", "portable"}))
      ->capture_default_str()
      ->group("Device");
  app.add_option("--threads", c.threads, "Threads of the CPU backend [all cores of this process]")
      ->group("Device");
  app.add_option("--weights", c.weights,
                 "How the layers' weights are kept: bf16; int8 (half the memory, and a decode step "
                 "reads half as much); fp8 or int4 (CUDA only); auto is bf16. Adapters stay bf16")
      ->check(CLI::IsMember({"auto", "bf16", "int8", "int4", "fp8"}))
      ->capture_default_str()
      ->group("Device");
  app.add_option("--tensor-parallel", c.tensor_parallel,
                 "Split the model and its adapters over so many ranks: CUDA devices, or on the CPU "
                 "groups of the threads. Must divide the model's heads. Each rank has a pool")
      ->capture_default_str()
      ->group("Device");
  app.add_option("--device", c.device, "Number of the CUDA device; of more ranks, of the first")
      ->capture_default_str()
      ->group("Device");
  app.add_option("--kv-format", c.kv_format,
                 "How keys and values are kept: bf16, or fp8 (half the memory, CUDA only)")
      ->check(CLI::IsMember({"bf16", "fp8"}))
      ->capture_default_str()
      ->group("Device");
  app.add_option("--batch-invariant", c.batch_invariant,
                 "On CUDA: a request's tokens do not depend on what else is in its steps, to the "
                 "bit (slower prompts); the CPU backend always keeps this")
      ->capture_default_str()
      ->group("Device");
  app.add_option("--pool-bytes", c.pool_bytes,
                 "Memory of the page pool that KV cache and adapters share, on each rank, e.g. "
                 "8GiB; auto: 1GiB, "
                 "on CUDA 90% of what the model leaves free, less 2GiB")
      ->transform(CLI::AsSizeValue(false))
      ->transform(CLI::Validator(AutoIsZero, "auto"))  // goes first
      ->default_str("auto")
      ->group("Device");
  app.add_option("--host-cache-bytes", c.host_cache_bytes,
                 "Pinned host memory that keeps adapters ready to be copied to a GPU, e.g. 64GiB "
                 "[a quarter of the memory; unused on the CPU]")
      ->transform(CLI::AsSizeValue(false))
      ->group("Device");
  app.add_option(
         "--page-tokens", c.page_tokens,
         "Tokens a KV page holds, a multiple of 16 [from the model: pages of 32 KiB or more]")
      ->group("Device");
  app.add_option("--prefix-cache", c.prefix_cache,
                 "Keep keys and values of ended requests for later prompts that begin alike")
      ->capture_default_str()
      ->group("Device");
  app.add_option("--share-base-prefixes", c.share_base_prefixes,
                 "Share them between tenants for prompts of the base model: saves memory, and lets "
                 "a tenant learn by its speed what others asked")
      ->capture_default_str()
      ->group("Device");
}

void AddAdapterOptions(CLI::App& app, Config& c) {
  app.add_option("--state-dir", c.state_dir, "Where adapters are kept across restarts")
      ->capture_default_str()
      ->group("Adapters");
  app.add_option(
         "--adapter-root", c.adapter_roots,
         "Directory below which clients may name paths for CreateAdapter; may be repeated [none]")
      ->group("Adapters");
  app.add_option(
         "--adapter", c.adapters,
         "name=path: take in this PEFT directory at start unless the name exists; may be repeated")
      ->group("Adapters");
  app.add_option("--max-rank", c.max_rank, "Greatest rank of an adapter")
      ->capture_default_str()
      ->group("Adapters");
  app.add_option("--max-adapters", c.max_adapters, "The most adapters kept")
      ->capture_default_str()
      ->group("Adapters");
  app.add_option("--max-upload-bytes", c.max_upload_bytes, "Greatest size of one adapter's files")
      ->transform(CLI::AsSizeValue(false))
      ->default_str("1GiB")
      ->group("Adapters");
  app.add_option("--loader-threads", c.loader_threads, "Threads that check and load adapters")
      ->capture_default_str()
      ->group("Adapters");
}

void AddVersionOptions(CLI::App& app, Config& c) {
  app.add_option("--keep-versions", c.keep_versions,
                 "Replaced versions of each adapter that are kept, for name@version and rollback")
      ->capture_default_str()
      ->group("Adapters");
  app.add_option("--max-pinned-percent", c.max_pinned_percent,
                 "Of the pool, that pinned adapters may take together")
      ->capture_default_str()
      ->group("Adapters");
  app.add_option("--upload-idle-timeout", c.upload_idle_timeout_s,
                 "Seconds that a client may be silent in the middle of an upload")
      ->capture_default_str()
      ->group("Adapters");
  app.add_option("--adapter-wait-timeout", c.adapter_wait_timeout_s,
                 "Seconds that a request may wait for its adapter to be loaded")
      ->capture_default_str()
      ->group("Adapters");
}

void AddTenantOptions(CLI::App& app, Config& c) {
  app.add_option("--tenant", c.tenants,
                 "name[,max-adapters=N][,max-bytes=SIZE][,default-adapter=NAME][,weight=W]"
                 "[,max-waiting=N]: what this tenant may store, the adapter of its requests that "
                 "name none, its share of a full server (0.01 to 1000) where others have 1, and "
                 "how many of its requests may wait; may be repeated")
      ->group("Tenants");
  app.add_option("--tenant-max-adapters", c.tenant_max_adapters,
                 "Adapters that a tenant may have unless --tenant says otherwise; 0: no limit")
      ->capture_default_str()
      ->group("Tenants");
  app.add_option("--tenant-max-bytes", c.tenant_max_bytes,
                 "Bytes that a tenant's adapters may have unless --tenant says otherwise; 0: no "
                 "limit")
      ->transform(CLI::AsSizeValue(false))
      ->default_str("0")
      ->group("Tenants");
  app.add_option("--tenant-max-waiting", c.tenant_max_waiting,
                 "Requests of a tenant in the queue unless --tenant says otherwise; 0: no limit "
                 "but those of the queue")
      ->capture_default_str()
      ->group("Tenants");
}

void AddQueueOptions(CLI::App& app, Config& c) {
  app.add_option("--max-waiting", c.max_waiting, "Requests in the queue; more are refused")
      ->capture_default_str()
      ->group("Scheduling");
  app.add_option("--max-waiting-tokens", c.max_waiting_tokens,
                 "Tokens of the prompts in the queue together")
      ->capture_default_str()
      ->group("Scheduling");
  app.add_option("--max-waiting-bytes", c.max_waiting_bytes,
                 "Memory that the requests in the queue may take together")
      ->transform(CLI::AsSizeValue(false))
      ->default_str("256MiB")
      ->group("Scheduling");
  app.add_option("--objective", c.objectives,
                 "CLASS[,ttft=TIME][,itl=TIME][,refuse]: what requests of this priority "
                 "(interactive, standard, batch) should see, from arrival to first token and "
                 "between tokens, e.g. interactive,ttft=500ms,itl=50ms. Metrics count who did; "
                 "with refuse, who could not for the queue is refused at once; may be repeated")
      ->group("Scheduling");
}

void AddSchedulingOptions(CLI::App& app, Config& c) {
  app.add_option("--max-running", c.max_running, "Requests in the batch at a time")
      ->capture_default_str()
      ->group("Scheduling");
  app.add_option("--max-step-tokens", c.max_step_tokens, "Tokens computed in one step")
      ->capture_default_str()
      ->group("Scheduling");
  app.add_option("--max-chunk-tokens", c.max_chunk_tokens, "Of one prompt in one step")
      ->capture_default_str()
      ->group("Scheduling");
  app.add_option("--admission", c.admission,
                 "Who is let in: no-evict: who can come to its end beside the others, so that "
                 "nobody is preempted for want of pages; optimistic: who can if outputs are as "
                 "long as they lately were; prompt-only: whoever's prompt fits")
      ->check(CLI::IsMember({"no-evict", "optimistic", "prompt-only"}))
      ->capture_default_str()
      ->group("Scheduling");
  app.add_option("--backfill", c.backfill,
                 "Let small requests go before a large one that waits for pages, if they do not "
                 "delay it")
      ->capture_default_str()
      ->group("Scheduling");
  app.add_option("--default-max-tokens", c.default_max_tokens, "max_tokens of requests without one")
      ->capture_default_str()
      ->group("Scheduling");
  app.add_option("--slow-reader-timeout", c.slow_reader_timeout_s,
                 "Seconds until a request whose client does not read is ended")
      ->capture_default_str()
      ->group("Scheduling");
}

void AddServerOptions(CLI::App& app, Config& c) {
  app.add_option("--listen", c.listen, "gRPC address; port 0 takes any free one")
      ->capture_default_str()
      ->group("Server");
  app.add_option("--metrics-listen", c.metrics_listen,
                 "HTTP address of /metrics for Prometheus; empty: none")
      ->capture_default_str()
      ->group("Server");
  app.add_flag("--allow-remote", c.allow_remote,
               "Allow addresses other than loopback. There is no authentication: only behind a "
               "proxy that has it")
      ->group("Server");
  app.add_option("--reflection", c.reflection, "gRPC server reflection (grpcurl and the like)")
      ->capture_default_str()
      ->group("Server");
  app.add_option("--drain-timeout", c.drain_timeout_s,
                 "Seconds that running requests may take after SIGTERM")
      ->capture_default_str()
      ->group("Server");
  app.add_option("--log-level", c.log_level, "debug, info, warn or error")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str()
      ->group("Logs");
  app.add_option("--log-format", c.log_format, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str()
      ->group("Logs");
  app.add_option("--record-arrivals", c.record_arrivals,
                 "Record lengths, times, adapter and tenant (as numbers) of each request to this "
                 "file, for lorad-sim; never text")
      ->group("Logs");
  app.add_option("--record-arrivals-bytes", c.record_arrivals_bytes,
                 "Bytes of recordings to keep, in two files")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str()
      ->group("Logs");
  app.add_flag("--check-config", c.check_only, "Check the configuration and exit")
      ->configurable(false);
  app.add_flag("--validate-books", c.validate_books,
               "Check every page and reference after every step (slow; for tests)")
      ->group("");
}

TenantLimits TenantDefaults(const Config& c) {
  return {.max_adapters = c.tenant_max_adapters,
          .max_bytes = static_cast<int64_t>(c.tenant_max_bytes),
          .default_adapter = "",
          .max_waiting = c.tenant_max_waiting};
}

void RequireQueue(const Config& c, const std::function<void(bool, std::string)>& require) {
  require(c.max_waiting >= 1, "--max-waiting: must be positive");
  require(c.max_waiting_tokens >= 1, "--max-waiting-tokens: must be positive");
  require(c.max_waiting_bytes >= (uint64_t{1} << 20), "--max-waiting-bytes: must be at least 1MiB");
  std::set<Priority> classes;
  for (const std::string& text : c.objectives) {
    const auto objective = ParseObjective(text);
    require(objective.ok(),
            fmt::format("--objective {}: {}", text, std::string(objective.status().message())));
    require(!objective.ok() || classes.insert(objective->first).second,
            fmt::format("--objective: {} is given twice",
                        objective.ok() ? NameOf(objective->first) : text));
  }
}

void RequireTenants(const Config& c, const std::function<void(bool, std::string)>& require) {
  require(c.tenant_max_adapters >= 0, "--tenant-max-adapters: must not be negative");
  require(c.tenant_max_waiting >= 0, "--tenant-max-waiting: must not be negative");
  require(c.tenant_max_bytes <= uint64_t{INT64_MAX}, "--tenant-max-bytes: is too large");
  std::set<std::string> names;
  for (const std::string& text : c.tenants) {
    const auto tenant = ParseTenant(text, TenantDefaults(c));
    require(tenant.ok(),
            fmt::format("--tenant {}: {}", text, std::string(tenant.status().message())));
    require(!tenant.ok() || names.insert(tenant->first).second,
            fmt::format("--tenant: {} is given twice", tenant.ok() ? tenant->first : text));
  }
}

bool IsLoopback(const std::string& address) {
  return address.starts_with("127.") || address.starts_with("localhost:") ||
         address.starts_with("[::1]:") || address.starts_with("unix:");
}

}  // namespace

AdmissionMode Config::Admission() const {
  return admission == "prompt-only"  ? AdmissionMode::kPromptOnly
         : admission == "optimistic" ? AdmissionMode::kOptimistic
                                     : AdmissionMode::kNoEvict;
}

kernels::WeightFormat Config::WeightFormat() const {
  for (const kernels::WeightFormat format : kernels::kWeightFormats) {
    if (weights == kernels::Name(format)) return format;
  }
  return kernels::WeightFormat::kBf16;
}

std::vector<std::pair<std::string, std::string>> Config::AdapterList() const {
  std::vector<std::pair<std::string, std::string>> list;
  for (const std::string& adapter : adapters) {
    const size_t at = adapter.find('=');
    list.emplace_back(adapter.substr(0, at), adapter.substr(at + 1));
  }
  return list;
}

TenantTable Config::Tenants() const {
  TenantTable::Map named;
  for (const std::string& text : tenants) {
    auto tenant = ParseTenant(text, TenantDefaults(*this));
    if (tenant.ok()) named.insert(*std::move(tenant));
  }
  return TenantTable(std::move(named), TenantDefaults(*this));
}

Objectives Config::ClassObjectives() const {
  Objectives table;
  for (const std::string& text : objectives) {
    const auto objective = ParseObjective(text);
    if (objective.ok()) table[static_cast<size_t>(objective->first)] = objective->second;
  }
  return table;
}

absl::Status ValidateConfig(const Config& c) {
  std::vector<std::string> problems;
  const auto require = [&problems](bool ok, std::string text) {
    if (!ok) problems.push_back(std::move(text));
  };
  std::error_code ec;
  require(std::filesystem::is_directory(c.model, ec),
          fmt::format("--model: {} is not a directory", c.model));
  require(c.max_model_len >= 0, "--max-model-len: must not be negative");
  require(c.threads >= 0 && c.threads <= 1024, "--threads: must be in [0, 1024]");
  require(c.tensor_parallel >= 1 && c.tensor_parallel <= 64,
          "--tensor-parallel: must be in [1, 64]");
  require(c.device >= 0, "--device: must not be negative");
  require(c.kv_format == "bf16" || c.backend == "auto" || c.backend == "cuda",
          fmt::format("--kv-format: {} needs the cuda backend", c.kv_format));
  require(c.pool_bytes == 0 || c.pool_bytes >= (uint64_t{1} << 20),
          "--pool-bytes: must be auto or at least 1MiB");
  require(
      c.host_cache_bytes == 0 ||
          (c.host_cache_bytes >= (uint64_t{1} << 20) && c.host_cache_bytes <= MachineMemoryBytes()),
      fmt::format("--host-cache-bytes: must be at least 1MiB and at most this machine's memory, "
                  "{} bytes",
                  MachineMemoryBytes()));
  require(c.page_tokens >= 0 && c.page_tokens % 16 == 0 && c.page_tokens <= 4096,
          "--page-tokens: must be a multiple of 16, at most 4096");
  require(!c.state_dir.empty(), "--state-dir: must not be empty");
  for (const std::string& root : c.adapter_roots) {
    require(std::filesystem::is_directory(root, ec),
            fmt::format("--adapter-root: {} is not a directory", root));
  }
  std::set<std::string> names;
  for (const std::string& adapter : c.adapters) {
    const size_t at = adapter.find('=');
    const std::string name = adapter.substr(0, at);
    require(at != std::string::npos && at + 1 < adapter.size(),
            fmt::format("--adapter: {} is not name=path", adapter));
    require(ValidateAdapterId(name).ok(), fmt::format("--adapter: {} is not a valid name", name));
    require(names.insert(name).second, fmt::format("--adapter: {} is given twice", name));
  }
  require(c.max_rank >= 1 && c.max_rank <= 256, "--max-rank: must be in [1, 256]");
  require(c.max_adapters >= 1, "--max-adapters: must be positive");
  require(c.loader_threads >= 1 && c.loader_threads <= 64, "--loader-threads: must be in [1, 64]");
  require(c.keep_versions >= 0 && c.keep_versions <= 1000, "--keep-versions: must be in [0, 1000]");
  require(c.max_pinned_percent >= 0 && c.max_pinned_percent <= 100,
          "--max-pinned-percent: must be in [0, 100]");
  require(c.adapter_wait_timeout_s > 0, "--adapter-wait-timeout: must be positive");
  require(c.upload_idle_timeout_s > 0, "--upload-idle-timeout: must be positive");
  RequireTenants(c, require);
  require(c.max_running >= 1 && c.max_running <= 4096, "--max-running: must be in [1, 4096]");
  RequireQueue(c, require);
  c.rules.Check(require);
  require(c.max_step_tokens >= c.max_running && c.max_step_tokens <= 65536,
          "--max-step-tokens: must be in [max-running, 65536]");
  require(c.max_chunk_tokens >= 1, "--max-chunk-tokens: must be positive");
  require(c.default_max_tokens >= 1, "--default-max-tokens: must be positive");
  require(c.slow_reader_timeout_s > 0, "--slow-reader-timeout: must be positive");
  require(c.record_arrivals_bytes >= (1 << 20), "--record-arrivals-bytes: at least 1MiB");
  require(c.drain_timeout_s >= 0, "--drain-timeout: must not be negative");
  for (const auto& [flag, address] :
       {std::pair("--listen", c.listen), std::pair("--metrics-listen", c.metrics_listen)}) {
    if (address.empty() && std::string_view(flag) == "--metrics-listen") continue;
    require(address.find(':') != std::string::npos,
            fmt::format("{}: {} is not host:port", flag, address));
    require(
        c.allow_remote || IsLoopback(address),
        fmt::format(
            "{}: {} is not a loopback address; without authentication this needs --allow-remote",
            flag, address));
  }
  if (problems.empty()) return absl::OkStatus();
  std::string text;
  for (const std::string& problem : problems) text += (text.empty() ? "" : "\n") + problem;
  return absl::InvalidArgumentError(text);
}

std::variant<Config, ExitNow> ParseCommandLine(int argc, const char* const* argv) {
  Config config;
  CLI::App app(kDescription, "lorad");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string("lorad ") + kVersion);
  app.set_config("--config", "", "TOML file with any of these options; the command line wins");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.get_formatter()->column_width(34);
  AddModelOptions(app, config);
  AddDeviceOptions(app, config);
  AddAdapterOptions(app, config);
  AddVersionOptions(app, config);
  AddTenantOptions(app, config);
  AddSchedulingOptions(app, config);
  AddQueueOptions(app, config);
  config.rules.AddTo(app);
  AddServerOptions(app, config);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::ostringstream out, err;
    const int code = app.exit(e, out, err);
    return ExitNow{code == 0 ? 0 : 1, code == 0 ? out.str() : err.str()};
  }
  const absl::Status status = ValidateConfig(config);
  if (!status.ok()) {
    return ExitNow{
        1, fmt::format("The configuration is not valid:\n{}\n", std::string(status.message()))};
  }
  if (config.check_only) return ExitNow{0, "The configuration is valid.\n"};
  return config;
}

}  // namespace lorad
