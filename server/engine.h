// Engine: the serving loop and the single owner of all mutable serving state: waiting and running
// sequences, page tables, the pool, adapter residency. One thread runs it; everybody else speaks to
// it through its inbox. No gRPC, no sockets, no files.
//
// A step:  drain the inbox -> expire -> plan -> commit -> submit -> advance -> publish.
// PlanStep (scheduler/) decides, Commit alone takes pages, the Executor computes. Pages of what
// ended or was preempted stay in the prefix cache until their room is needed.
//
// With an executor that overlaps, a step is planned while the one before runs, as if every sequence
// of that one went on; then the one before is advanced (server/step_pipeline.h). What its tokens
// end, ends with one token too many under way, which is dropped.
//
// engine.cc is the outside (inbox, thread), engine_step.cc a step until it is submitted,
// engine_advance.cc what becomes of its results, engine_memory.cc what the engine does with pages
// and adapters, engine_gate.cc what it tells the gate in front, engine_snapshot.cc the report of
// who holds what.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "memory/base/check.h"
#include "memory/unified_pool.h"
#include "model/executor.h"
#include "scheduler/output_share.h"
#include "scheduler/planner.h"
#include "scheduler/step_rates.h"
#include "server/admission_gate.h"
#include "server/engine_observer.h"
#include "server/engine_snapshot.h"
#include "server/expiry_queue.h"
#include "server/request.h"
#include "server/sequence.h"
#include "server/step_pipeline.h"

namespace lorad {

struct EngineOptions {
  SchedulerPolicy policy;
  int vocab_size = 0;
  int max_model_len = 0;   // prompt and output of one request, tokens
  int max_waiting = 1024;  // requests in the queue
  int64_t max_waiting_tokens = std::numeric_limits<int64_t>::max();   // of their prompts
  uint64_t max_waiting_bytes = std::numeric_limits<uint64_t>::max();  // of memory
  Duration slow_reader_timeout =
      std::chrono::seconds(60);  // a paused request is aborted after this
  // A request that has not been admitted ends if its adapter is not resident after this.
  Duration adapter_wait_timeout = std::chrono::seconds(30);
  // Prompts of the base model may share pages across tenants.
  bool share_base_prefixes = false;
  // Check every page, reference and table after every step (tests, debug builds).
  bool validate_books = kDebugBuild;
};

// Starts writing an adapter's image into pages of the pool and returns at once; calls `done` (any
// thread) exactly once, with what it wrote. On an error it does not write any more.
using AdapterLoadFn =
    std::function<void(std::shared_ptr<const AdapterVersion> version, std::vector<uint32_t> pages,
                       std::function<void(absl::StatusOr<LoadedAdapter>)> done)>;

class Engine {
 public:
  // All are borrowed and must outlive the engine; `observer` and `tokenizer` may be null.
  struct Parts {
    Executor* executor = nullptr;
    UnifiedPool* pool = nullptr;
    const Tokenizer* tokenizer = nullptr;
    EngineObserver* observer = nullptr;
    const Clock* clock = nullptr;
    AdapterLoadFn load_adapter;
  };
  Engine(Parts parts, EngineOptions options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void Start();  // runs the loop on a thread of its own
  // Ends what runs with UNAVAILABLE and joins the thread. Idempotent.
  void Stop();

  // --- Any thread ---
  // Takes the request, or says why not (InvalidArgument, ResourceExhausted, Unavailable) and
  // touches nothing. Afterwards the stream gets exactly one end.
  absl::StatusOr<RequestId> Submit(std::unique_ptr<GenerationRequest> request);
  void Cancel(RequestId id);  // no-op if it has ended
  // Makes the adapter resident as soon as pages allow.
  void Preload(std::shared_ptr<const AdapterVersion> version);
  // The version is superseded (the flag is set before): its image and the pages of prompts that
  // used it go as soon as no request is on it.
  void Retire(AdapterVersionId id);
  // Makes the adapter resident as soon as pages allow, and keeps it; or lets it go again.
  void SetPinned(std::shared_ptr<const AdapterVersion> version, bool pinned);
  // Refuses new requests from now on; those accepted go on.
  void BeginDrain();
  // True when nothing waits or runs.
  bool idle() const { return unfinished() == 0; }
  int unfinished() const { return unfinished_.load(); }
  bool draining() const { return draining_.load(); }
  // False after the executor failed: the daemon must exit.
  bool healthy() const { return healthy_.load(); }
  int waiting() const { return gate_.waiting(); }
  // Waits for a step boundary. REQUIRES: the loop runs (Start) or the caller is its thread.
  EngineSnapshot Snapshot();

  // --- The loop; tests may call it instead of Start ---
  // One step. False: there was nothing to run.
  bool Step();
  absl::Status ValidateBooks() const;

 private:
  struct SubmitMessage {
    RequestId id;
    std::unique_ptr<GenerationRequest> request;
  };
  struct CancelMessage {
    RequestId id;
  };
  struct PreloadMessage {
    std::shared_ptr<const AdapterVersion> version;
  };
  struct LoadedMessage {
    std::shared_ptr<const AdapterVersion> version;
    absl::StatusOr<LoadedAdapter> loaded;
  };
  struct RetireMessage {
    AdapterVersionId id;
  };
  struct PinMessage {
    std::shared_ptr<const AdapterVersion> version;
    bool pinned;
  };
  using CallMessage = std::function<void()>;
  using Message = std::variant<SubmitMessage, CancelMessage, PreloadMessage, LoadedMessage,
                               RetireMessage, PinMessage, CallMessage>;

  // What the engine knows of an adapter version that has pages. Not the version itself: its files
  // may go while its image is still here.
  struct Held {
    std::string name;
    int64_t version = 0;
    uint64_t image_bytes = 0;
    AdapterImagePtr image;                    // null while it loads
    std::shared_ptr<ImageTransfer> transfer;  // null unless it fills
    std::shared_ptr<AdapterActivity> activity;
  };

  class Facts;  // what the planner asks

  void Run();
  bool Post(Message message);  // false: the loop has ended
  void WaitForWork();

  void DrainInbox();
  void Handle(SubmitMessage message);
  void Handle(CancelMessage message);
  void Handle(PreloadMessage message);
  void Handle(LoadedMessage message);
  void Handle(RetireMessage message);
  void Handle(PinMessage message);
  void Handle(CallMessage message);
  void Expire();
  void CheckReaders();
  void RefuseHopeless();
  absl::Status WhyEnd(const Sequence& sequence) const;
  void Watch(Sequence& sequence, TimePoint from);
  void Plan();
  void MakePlan();
  void Commit();
  void Wait(std::unique_ptr<Sequence> sequence);
  void Charge(Sequence& sequence, int tokens);
  void SettleCharges();
  bool Submit();
  SequenceInput InputOf(const Sequence& sequence, int tokens) const;
  // Collects steps until at most `left` are under way. True: there was one.
  bool Advance(size_t left);
  void Publish();

  // Pages and adapters: engine_memory.cc.
  PrefixScope ScopeOf(const GenerationRequest& request) const;
  void FindPrefix(Sequence& sequence);
  void FindReleasablePages();
  bool MayLackPages(uint32_t available) const;
  // Counted as `reason`, unless its reader is slow.
  void Preempt(RequestId id, int* reason);
  void Return(std::unique_ptr<Sequence> sequence);
  void Admit(RequestId id);
  void TakePages(Sequence& sequence, uint32_t new_pages);
  void MakeRoom(uint32_t free_pages);
  void SpareKept(bool spared);
  void StartLoad(std::shared_ptr<const AdapterVersion> version);
  void StartPreloads();
  void UseLoaded(const AdapterVersion& version, LoadedAdapter loaded);
  void FinishTransfers();
  void FinishLoad(AdapterVersionId id);
  void LetGo(Sequence& sequence);
  void ReleaseMemory(Sequence& sequence, bool keep_prefix);
  void LeaveAdapter(const AdapterVersion& version);
  void RetireNow(AdapterVersionId id);
  void NoteDepartures();
  void ForgetHeld(AdapterVersionId id);
  void MeasureTokenCost();
  void PoisonFreed();

  // What the gate is told, and measured for it: engine_gate.cc.
  void NoteQueue(const Sequence& sequence, AdmissionGate::Change change);
  void TellGate();
  ServiceState TakeServiceState() const;
  void MeasureRates();

  void AdvanceOldest();
  void AdvanceOne(Sequence& sequence, int tokens, SequenceResult result);
  void AcceptToken(Sequence& sequence, SampledToken token);
  void CollectScores(Sequence& sequence, std::vector<SampledToken> scores);
  void Finish(Sequence& sequence, absl::Status status, FinishReason reason, StreamEvent event = {});
  void Refuse(Sequence& sequence);
  void FailWaitingFor(AdapterVersionId adapter, const absl::Status& status);
  void FailAll(const absl::Status& status);
  void BreakDevice(const absl::Status& status);
  void RemoveFinished();
  void ReportStep();
  void ReportGauges();
  GaugeReport Gauges() const;
  EngineSnapshot TakeSnapshot() const;
  AdapterState StateOf(const Sequence& sequence) const;

  // Constant after construction.
  const Parts parts_;
  const EngineOptions options_;

  // Engine thread only.
  UnifiedPool& pool_;
  TenantLedger ledger_;
  WaitingQueue queue_;  // the order of waiting_
  absl::flat_hash_map<RequestId, std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // by arrival
  // Gave up their places because their readers are slow; until these have caught up.
  std::vector<std::unique_ptr<Sequence>> parked_;
  std::vector<std::unique_ptr<Sequence>> ended_;   // while waiting; until the step is over
  std::vector<std::unique_ptr<Sequence>> ending_;  // finished, in a step under way
  ExpiryQueue expiries_;
  // What this step costs each tenant, by class.
  absl::flat_hash_map<std::pair<TenantIndex, Priority>, TenantLedger::Tokens> charges_;
  absl::flat_hash_map<RequestId, Sequence*> sequences_;            // all unfinished
  std::deque<std::shared_ptr<const AdapterVersion>> preloads_;     // to be loaded without a request
  absl::flat_hash_map<AdapterVersionId, TimePoint> load_started_;  // loading or filling
  std::vector<AdapterVersionId> filling_;                          // what has a transfer
  absl::flat_hash_map<AdapterVersionId, Held> held_;               // what is loading or resident
  uint64_t image_bytes_ = 0;                                       // of all of them
  absl::flat_hash_map<AdapterVersionId, int> users_;  // unfinished requests of a version
  absl::flat_hash_set<AdapterVersionId> pinned_;      // wanted in the pool, there or not
  absl::flat_hash_set<AdapterVersionId> retiring_;    // to be retired when their last user ends
  bool token_cost_measured_ = false;
  uint64_t reported_evictions_ = 0;
  uint64_t reported_prefix_evictions_ = 0;
  StepRates rates_;
  // Since the gate was told.
  std::vector<std::pair<RequestId, AdmissionGate::Change>> queue_changes_;
  OutputShare output_share_;
  StepPlan plan_;
  bool sparing_ = false;    // what plan_.keep names is spared
  StepReport plan_report_;  // of what was planned since a step was submitted
  StepReport report_;       // of the step that is being advanced
  std::vector<RunningView> running_view_;
  std::vector<kernels::PageCopy> page_copies_;
  std::vector<PrefixCache::Lease> copy_leases_;  // of the pages that are copied from in this step
  std::vector<SequenceInput> inputs_;
  StepPipeline pipeline_;
  TimePoint collected_;                                // when a step was last
  std::vector<std::shared_ptr<TokenStream>> written_;  // since Publish
  // Of the step that is being advanced, by class, seconds.
  std::array<std::vector<double>, kPriorities> inter_token_;
  TimePoint now_;

  // Shared.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Message> inbox_;    // guarded by mutex_
  bool stopping_ = false;         // guarded by mutex_
  bool closed_ = false;           // guarded by mutex_: the loop has ended, nobody reads the inbox
  std::vector<Message> drained_;  // engine thread only: reused by DrainInbox
  std::atomic<RequestId> next_id_{1};
  std::atomic<int> unfinished_{0};
  AdmissionGate gate_;  // waiting requests, for those outside
  std::atomic<bool> draining_{false};
  std::atomic<bool> healthy_{true};
  StreamNotifier notifier_;
  std::thread thread_;
};

}  // namespace lorad
