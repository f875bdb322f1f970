// AdmissionGate: who may join the queue. Two kinds of refusal, both before any work is spent:
//
//   bounds       The queue has at most so many requests, prompt tokens and bytes, and of each
//                tenant so many requests. These hold always.
//   feasibility  Who would not be done by its deadline, as far as can be foreseen
//                (scheduler/feasibility.h), is told so at once, and when to come back. Where the
//                operator wants it, so is who would miss the first-token objective of its class.
//
// The same is asked again of those that wait, some at each step, because what goes before them and
// what steps cost may change. Never is the newest served first or the oldest dropped for being old.
//
// Thread-safe, one mutex. Submitters enter; the engine tells once a step what became of those that
// wait (Update) and asks whom to give up (TakeHopeless): two short locks a step, whatever waits.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "scheduler/backlog.h"
#include "scheduler/feasibility.h"
#include "scheduler/objective.h"
#include "server/request.h"

namespace lorad {

// What waits, at most.
struct QueueBounds {
  int requests = 1024;
  int64_t prompt_tokens = int64_t{1} << 20;
  uint64_t bytes = uint64_t{256} << 20;  // of memory that the requests take
};

class AdmissionGate {
 public:
  // Requests whose time is running that are looked at in one step.
  static constexpr int kMostChecked = 256;

  AdmissionGate(const QueueBounds& bounds, const Objectives& objectives)
      : bounds_(bounds), objectives_(objectives) {}

  // Any thread. Counts the request as waiting and notes in it what is foreseen. Or counts nothing
  // and says why not: ResourceExhausted with RetryInfo (QUEUE_FULL, TENANT_QUEUE_FULL,
  // QUEUE_TOKENS_FULL, QUEUE_BYTES_FULL, DEADLINE_UNREACHABLE, OBJECTIVE_UNREACHABLE) or
  // DeadlineExceeded (DEADLINE: it has passed; DEADLINE_TOO_SHORT: even if nobody else was here).
  absl::Status Enter(RequestId id, GenerationRequest* request, TimePoint now);
  // Takes back an Enter.
  void Leave(RequestId id);

  // --- The engine's thread ---
  enum class Change : uint8_t {
    kAdmitted,  // it runs: it does not wait any more
    kReturned,  // it was preempted and waits again; whoever has run is never refused
    kEnded,
  };
  // What happened since the last time, in order, and what runs now.
  void Update(std::span<const std::pair<RequestId, Change>> changes, const ServiceState& state);
  // Those among some of the waiting that cannot be in time any more. They count as waiting until
  // they are said to have ended. May name requests that the engine has not seen yet.
  std::vector<std::pair<RequestId, absl::Status>> TakeHopeless(TimePoint now);

  int waiting() const;

 private:
  struct Entry {
    Backlog::Place place;
    Work work;                                       // but for load_pages
    std::shared_ptr<const AdapterActivity> adapter;  // null: base model
    uint32_t adapter_pages = 0;
    uint64_t bytes = 0;
    TimePoint arrival, deadline;
    bool waiting = true;
  };
  Entry MakeEntry(const GenerationRequest& request) const;
  const Objective& ObjectiveOf(const Entry& entry) const;
  bool MayBeRefused(const Entry& entry) const;
  // What follows needs the mutex.
  absl::Status CheckBounds(const Entry& entry, const GenerationRequest& request);
  absl::Status CheckTime(const Entry& entry, TimePoint now);
  absl::Status CheckDeadline(const Entry& entry, const Forecast& forecast, TimePoint now);
  absl::Status CheckObjective(const Entry& entry, const Forecast& forecast, TimePoint now);
  Forecast Foresee(const Entry& entry) const;
  double DrainSeconds() const;
  absl::Status Refusal(std::string message, std::string_view reason, double retry_s);
  void Apply(std::span<const std::pair<RequestId, Change>> changes);
  void StopWaiting(Entry* entry);

  const QueueBounds bounds_;
  const Objectives objectives_;

  mutable std::mutex mutex_;  // guards all below
  Backlog backlog_;
  uint64_t bytes_ = 0;
  absl::flat_hash_map<RequestId, Entry> entries_;  // all that have not ended
  absl::btree_set<RequestId> timed_;  // of them, those that have not run and may be refused
  RequestId checked_ = 0;             // TakeHopeless goes on behind this one
  ServiceState state_;
  uint32_t refused_ = 0;
};

}  // namespace lorad
