#include "server/daemon.h"

#include <fmt/format.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>

#include <algorithm>
#include <filesystem>
#include <thread>
#include <utility>

#include "kernels/backend.h"
#include "memory/adapter_store.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "model/weights.h"
#include "server/adapter_catalog.h"
#include "server/adapter_images.h"
#include "server/adapter_staging.h"
#include "server/adapter_watch.h"
#include "server/adapters_service.h"
#include "server/admin_service.h"
#include "server/engine.h"
#include "server/inference_service.h"
#include "server/log.h"
#include "server/machine_memory.h"
#include "server/metrics.h"
#include "server/model_facts.h"
#include "server/model_ranks.h"
#include "server/request_log.h"
#include "server/tenants.h"
#include "server/version.h"
#include "server/work_queue.h"

namespace lorad {
namespace {

constexpr int kMaxMessageBytes = 8 << 20;
constexpr int kMaxMetadataBytes = 16 << 10;
constexpr int kCopiesAtATime = 8;  // of adapters from host memory
constexpr const char* kServices[] = {"", "lorad.v1.Inference", "lorad.v1.Adapters",
                                     "lorad.v1.Admin"};

// Reflection registers itself where it is linked in; so it has to be taken out where it is not
// wanted.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [](const auto& p) { return p->name() == "proto_server_reflection"; });
  }
};

}  // namespace

// Members in the order of construction; destroyed in the opposite order.
struct Daemon::Parts {
  Config config;
  SteadyClock clock;
  Metrics metrics;
  ModelConfig model;
  std::unique_ptr<Tokenizer> tokenizer;  // null: the model has none
  std::unique_ptr<ModelRanks> ranks;
  std::unique_ptr<UnifiedPool> pool;
  std::unique_ptr<AdapterStore> store;
  std::unique_ptr<AdapterStaging> staging;  // null: pages are host memory
  // Stopped before anything that their tasks use is gone. What is posted later is dropped, so they
  // live longer than whoever posts.
  std::unique_ptr<WorkQueue> loads;    // of adapter images, which requests wait for
  std::unique_ptr<WorkQueue> copies;   // of images that need no disk; null without staging
  std::unique_ptr<WorkQueue> changes;  // of adapters
  std::unique_ptr<WorkQueue> admin_work;
  AdapterWatchHub watch;
  std::unique_ptr<ArrivalRecorder> recorder;  // null: nothing is recorded
  std::unique_ptr<RequestLog> observer;
  std::unique_ptr<Engine> engine;
  TenantTable tenants;
  std::unique_ptr<AdapterImages> images;
  std::unique_ptr<AdapterCatalog> catalog;
  std::unique_ptr<InferenceService> inference;
  std::unique_ptr<AdaptersService> adapters;
  std::unique_ptr<AdminService> admin;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
  int metrics_port = 0;

  absl::Status LoadModel();
  absl::Status MakeStaging();
  absl::Status StartRecording();
  absl::Status OpenAdapters();
  void MakeCatalog();
  void MakeEngine();
  void LoadAdapter(std::shared_ptr<const AdapterVersion> version, std::vector<uint32_t> pages,
                   std::function<void(absl::StatusOr<LoadedAdapter>)> done);
  absl::StatusOr<LoadedAdapter> PackAdapter(const AdapterVersion& version,
                                            std::span<const uint32_t> pages);
  void MakeServices();
  absl::Status Listen();
  void SetServing(bool serving);
  // Health says so, and those who watch are sent away.
  void StopServing();
  int MaxModelLen() const;
  int MaxAdapterLoads() const;
  uint64_t MaxPinnedPages() const;
};

absl::Status Daemon::Parts::LoadModel() {
  LORAD_ASSIGN_OR_RETURN(model, LoadModelConfig(config.model));
  auto loaded = Tokenizer::Load(config.model);
  if (loaded.ok()) {
    tokenizer = std::move(*loaded);
  } else if (!absl::IsNotFound(loaded.status())) {
    return Explain("tokenizer", loaded.status());
  }
  LORAD_ASSIGN_OR_RETURN(ranks, ModelRanks::Load(config, model));
  pool = std::make_unique<UnifiedPool>(
      ranks->pool_pages(), ranks->page_bytes(),
      UnifiedPool::Options{.page_tokens = ranks->geometry().page_tokens,
                           .prefix_cache = config.prefix_cache});
  return absl::OkStatus();
}

absl::Status Daemon::Parts::MakeStaging() {
  if (!ranks->stages_adapters()) return absl::OkStatus();
  const uint64_t bytes =
      config.host_cache_bytes > 0 ? config.host_cache_bytes : MachineMemoryBytes() / 4;
  Log(LogLevel::kInfo, "pinning host memory for adapters", {{"mib", bytes >> 20}});
  std::vector<AdapterStaging::Rank> each;
  for (int rank = 0; rank < ranks->size(); ++rank) {
    each.push_back({.backend = ranks->backend(rank), .slab = ranks->slab(rank)});
  }
  auto made = AdapterStaging::Make(
      {.ranks = std::move(each),
       .bytes = bytes,
       .clock = &clock,
       .read = [this](const AdapterVersion& version,
                      const ImageWriter& write) { return catalog->LoadImage(version, write); },
       .changed = [this](const HostTierReport& report) { metrics.SetHostTier(report); }});
  if (!made.ok()) return Explain("--host-cache-bytes", made.status());
  staging = *std::move(made);
  return absl::OkStatus();
}

absl::Status Daemon::Parts::StartRecording() {
  if (config.record_arrivals.empty()) return absl::OkStatus();
  auto opened = ArrivalRecorder::Open(
      {.path = config.record_arrivals, .max_bytes = config.record_arrivals_bytes}, &clock);
  if (!opened.ok()) return Explain("--record-arrivals", opened.status());
  recorder = *std::move(opened);
  return absl::OkStatus();
}

int Daemon::Parts::MaxModelLen() const {
  const int64_t room = int64_t{pool->pages().total_pages()} * ranks->geometry().page_tokens;
  const int64_t wanted = config.max_model_len > 0 ? config.max_model_len : model.max_positions;
  return static_cast<int>(std::min(wanted, room));
}

// Copies go on beside what is read from disk, and take little time each.
int Daemon::Parts::MaxAdapterLoads() const {
  return config.loader_threads + (staging != nullptr ? kCopiesAtATime : 0);
}

uint64_t Daemon::Parts::MaxPinnedPages() const {
  return uint64_t{pool->pages().total_pages()} * static_cast<uint64_t>(config.max_pinned_percent) /
         100;
}

void Daemon::Parts::MakeEngine() {
  EngineOptions options;
  options.policy = {.max_step_tokens = config.max_step_tokens,
                    .max_sequences = config.max_running,
                    .max_chunk_tokens = config.max_chunk_tokens,
                    .max_adapter_loads = MaxAdapterLoads(),
                    .page_tokens = ranks->geometry().page_tokens,
                    .reserve_pages = pool->pages().total_pages() / 100};
  options.policy.admission = config.Admission();
  options.policy.backfill = config.backfill;
  config.rules.Apply(&options.policy);
  options.vocab_size = model.vocab_size;
  options.max_model_len = MaxModelLen();
  options.max_waiting = config.max_waiting;
  options.max_waiting_tokens = config.max_waiting_tokens;
  options.max_waiting_bytes = config.max_waiting_bytes;
  options.policy.objectives = config.ClassObjectives();
  metrics.SetObjectives(options.policy.objectives);
  options.slow_reader_timeout = FromSeconds(config.slow_reader_timeout_s);
  options.adapter_wait_timeout = FromSeconds(config.adapter_wait_timeout_s);
  options.share_base_prefixes = config.share_base_prefixes;
  options.validate_books = config.validate_books;
  loads = std::make_unique<WorkQueue>(config.loader_threads);
  if (staging != nullptr) copies = std::make_unique<WorkQueue>(1);
  changes = std::make_unique<WorkQueue>(config.loader_threads);
  admin_work = std::make_unique<WorkQueue>(1);
  observer = std::make_unique<RequestLog>(
      &metrics, [this](const std::string& id) { watch.Mark(id); }, recorder.get());
  engine = std::make_unique<Engine>(
      Engine::Parts{.executor = ranks->executor(),
                    .pool = pool.get(),
                    .tokenizer = tokenizer.get(),
                    .observer = observer.get(),
                    .clock = &clock,
                    .load_adapter =
                        [this](auto version, auto pages, auto done) {
                          LoadAdapter(std::move(version), std::move(pages), std::move(done));
                        }},
      options);
}

// On the engine's thread, right after the pages were taken: the steps that were handed over by now
// are all that may still read what was in them.
void Daemon::Parts::LoadAdapter(std::shared_ptr<const AdapterVersion> version,
                                std::vector<uint32_t> pages,
                                std::function<void(absl::StatusOr<LoadedAdapter>)> done) {
  std::vector<uint64_t> after_steps = ranks->LastSteps();
  // Who only needs a copy does not stand behind those who need the disk.
  WorkQueue& queue = staging != nullptr && staging->Has(version->id) ? *copies : *loads;
  queue.Post([this, version = std::move(version), pages = std::move(pages), done = std::move(done),
              after_steps = std::move(after_steps)] {
    done(staging != nullptr ? staging->Load(*version, pages, after_steps)
                            : PackAdapter(*version, pages));
  });
}

absl::StatusOr<LoadedAdapter> Daemon::Parts::PackAdapter(const AdapterVersion& version,
                                                         std::span<const uint32_t> pages) {
  LORAD_ASSIGN_OR_RETURN(AdapterImagePtr image,
                         catalog->LoadImage(version, [&](const AdapterImage& planned,
                                                         std::span<const ShardedFactors> shares) {
                           ranks->PackAdapter(planned, shares, pages);
                         }));
  return LoadedAdapter{.image = std::move(image), .transfer = nullptr};
}

void Daemon::Parts::MakeCatalog() {
  AdapterLimits limits;
  limits.max_rank = config.max_rank;
  tenants = config.Tenants();
  images = std::make_unique<AdapterImages>(
      AdapterImages::Parts{.model = &model,
                           .ranks = ranks->backends(),
                           .limits = limits,
                           .page_bytes = ranks->page_bytes(),
                           .pool_pages = pool->pages().total_pages()});
  catalog = std::make_unique<AdapterCatalog>(
      AdapterCatalog::Parts{.store = store.get(),
                            .images = images.get(),
                            .tenants = &tenants,
                            .max_adapters = config.max_adapters,
                            .max_pinned_pages = MaxPinnedPages(),
                            .roots = {config.adapter_roots.begin(), config.adapter_roots.end()},
                            .recovery_threads = config.loader_threads},
      AdapterCatalog::Hooks{
          .retire =
              [this](AdapterVersionId id) {
                engine->Retire(id);
                if (staging != nullptr) staging->Retire(id);
              },
          .set_pinned = [this](AdapterVersionPtr version,
                               bool pinned) { engine->SetPinned(std::move(version), pinned); },
          .changed = [this](const std::string& id) { watch.Mark(id); },
          .counted = [this](int n) { metrics.SetStoredAdapters(n); },
          .later = [this](std::function<void()> task) { changes->Post(std::move(task)); }});
}

absl::Status Daemon::Parts::OpenAdapters() {
  LORAD_ASSIGN_OR_RETURN(
      store, AdapterStore::Open(config.state_dir,
                                {.max_weights_bytes = static_cast<int64_t>(config.max_upload_bytes),
                                 .keep_versions = config.keep_versions}));
  MakeCatalog();
  for (const std::string& why : store->recovery().quarantined) {
    Log(LogLevel::kWarn, "adapter quarantined", {{"why", why}});
  }
  for (const std::string& why : catalog->Recover())
    Log(LogLevel::kWarn, "adapter skipped", {{"why", why}});
  for (const auto& [name, path] : config.AdapterList()) {
    if (catalog->Peek("", name).has_value()) continue;
    const auto created = catalog->Import(path, name);
    if (!created.ok()) return Explain(fmt::format("--adapter {}", name), created.status());
  }
  Log(LogLevel::kInfo, "adapters", {{"stored", catalog->Count("")}});
  return absl::OkStatus();
}

void Daemon::Parts::MakeServices() {
  const RequestContext context{.model = &model,
                               .tokenizer = tokenizer.get(),
                               .max_model_len = MaxModelLen(),
                               .default_max_tokens = config.default_max_tokens};
  inference = std::make_unique<InferenceService>(InferenceService::Parts{
      .engine = engine.get(),
      .adapters = catalog.get(),
      .tenants = &tenants,
      .clock = &clock,
      .context = context,
      .on_refused = [this](const RefusedRequest& request,
                           const absl::Status& status) { observer->OnRefused(request, status); },
      .recorder = recorder.get()});
  adapters = std::make_unique<AdaptersService>(
      AdaptersService::Parts{.catalog = catalog.get(),
                             .watch = &watch,
                             .engine = engine.get(),
                             .work = changes.get(),
                             .page_bytes = ranks->page_bytes(),
                             .upload_idle_timeout = FromSeconds(config.upload_idle_timeout_s)});
  const auto now = std::chrono::system_clock::now();
  admin = std::make_unique<AdminService>(AdminService::Parts{
      .engine = engine.get(),
      .catalog = catalog.get(),
      .images = images.get(),
      .staging = staging.get(),
      .metrics = &metrics,
      .work = admin_work.get(),
      .model = DescribeModel({.config = config,
                              .model = model,
                              .backend = std::string(ranks->backend_name()),
                              .weight_bytes = ranks->weight_bytes(),
                              .parameters = static_cast<int64_t>(CountWeights(model)),
                              .max_model_len = MaxModelLen(),
                              .max_pinned_pages = MaxPinnedPages(),
                              .start = now}),
      .page_bytes = ranks->page_bytes(),
      .page_tokens = ranks->geometry().page_tokens,
      .start = now,
      .on_drain = [this] { StopServing(); }});
}

absl::Status Daemon::Parts::Listen() {
  if (!config.metrics_listen.empty()) {
    LORAD_ASSIGN_OR_RETURN(metrics_port, metrics.Serve(config.metrics_listen));
  }
  metrics.SetInfo(kVersion, config.model_name, std::string(ranks->backend_name()));
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  if (!config.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  builder.AddListeningPort(config.listen, grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
  builder.RegisterService(inference.get());
  builder.RegisterService(adapters.get());
  builder.RegisterService(admin.get());
  server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError(fmt::format("cannot listen on {}", config.listen));
  }
  SetServing(true);
  return absl::OkStatus();
}

void Daemon::Parts::SetServing(bool serving) {
  if (server == nullptr) return;
  for (const char* service : kServices) {
    server->GetHealthCheckService()->SetServingStatus(service, serving);
  }
}

void Daemon::Parts::StopServing() {
  SetServing(false);
  watch.Close();
}

Daemon::Daemon(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Start(const Config& config) {
  auto owned = std::make_unique<Parts>();
  Parts& parts = *owned;
  parts.config = config;
  if (parts.config.model_name.empty()) {
    parts.config.model_name = std::filesystem::weakly_canonical(config.model).filename().string();
  }
  std::unique_ptr<Daemon> daemon(
      new Daemon(std::move(owned)));  // stops what was started on an error
  LORAD_RETURN_IF_ERROR(parts.LoadModel());
  LORAD_RETURN_IF_ERROR(parts.MakeStaging());
  LORAD_RETURN_IF_ERROR(parts.StartRecording());
  parts.MakeEngine();
  LORAD_RETURN_IF_ERROR(parts.OpenAdapters());
  parts.MakeServices();
  parts.engine->Start();
  LORAD_RETURN_IF_ERROR(parts.Listen());
  Log(LogLevel::kInfo, "serving",
      {{"grpc_port", parts.port},
       {"metrics_port", parts.metrics_port},
       {"max_model_len", parts.MaxModelLen()}});
  return daemon;
}

Daemon::~Daemon() {
  Parts& p = *parts_;
  p.watch.Close();
  if (p.server != nullptr) p.server->Shutdown(std::chrono::system_clock::now());
  if (p.engine != nullptr) p.engine->Stop();
  if (p.server != nullptr) p.server->Wait();
  p.server.reset();
  for (const auto& queue : {&p.admin_work, &p.loads, &p.copies, &p.changes}) {
    if (*queue != nullptr) (*queue)->Stop();
  }
}

bool Daemon::healthy() const { return parts_->engine->healthy(); }
int Daemon::port() const { return parts_->port; }
int Daemon::metrics_port() const { return parts_->metrics_port; }

void Daemon::Drain() {
  Parts& p = *parts_;
  p.StopServing();
  p.engine->BeginDrain();
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(p.config.drain_timeout_s);
  while (!p.engine->idle() && p.engine->healthy() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  Log(LogLevel::kInfo, "drained", {{"left", p.engine->unfinished()}});
  p.engine->Stop();  // what is left gets UNAVAILABLE
  p.server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
}

}  // namespace lorad
