#include "server/admission_gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"

namespace lorad {
namespace {

// So many times what is foreseen must be in time: who is let in should make it. Rates are known to
// about a tenth, and more urgent requests may yet come.
constexpr double kMargin = 1.2;

// A tenant may have so many times as much in the queue as there is room left, so one that floods
// leaves the last ninth to those who have little there, and two that flood a seventeenth each
// (Choudhury and Hahne, "Dynamic Queue Length Thresholds", IEEE/ACM ToN 1998).
constexpr double kTimesRoom = 8;

constexpr double kUnknownDrainS = 1, kLeastRetryS = 0.1, kMostRetryS = 60;
// Delays of requests that were refused together differ, so that they do not come back together.
constexpr uint32_t kDelays = 8;
constexpr double kSpread = 0.25;

// With an end of sequence or a stop string a request may be done after its first token.
int LeastOutput(const GenerationRequest& request) {
  if (request.score) return 0;
  const bool may_stop = !request.stop_strings.empty() || !request.sampling.stop_tokens.empty();
  return may_stop ? std::max(1, request.sampling.min_tokens) : request.max_tokens;
}

// Of the request and of the sequence that it becomes.
uint64_t BytesOf(const GenerationRequest& request) {
  const size_t tokens = 2 * request.prompt.size() + static_cast<size_t>(request.max_tokens);
  size_t bytes = sizeof(GenerationRequest) + tokens * sizeof(TokenId);
  for (const std::string& stop : request.stop_strings) bytes += stop.size();
  return bytes;
}

}  // namespace

absl::Status AdmissionGate::Enter(RequestId id, GenerationRequest* request, TimePoint now) {
  Entry entry = MakeEntry(*request);
  const std::lock_guard lock(mutex_);
  entry.place = backlog_.Next(request->tenant, request->tenant_weight, request->priority,
                              static_cast<int>(request->prompt.size()));
  LORAD_RETURN_IF_ERROR(CheckBounds(entry, *request));
  LORAD_RETURN_IF_ERROR(CheckTime(entry, now));
  if (state_.trusted) {
    request->foreseen_first_token_s = Seconds(now - request->arrival) + Foresee(entry).first_token;
  }
  backlog_.Add(entry.place);
  bytes_ += entry.bytes;
  if (MayBeRefused(entry)) timed_.insert(id);
  entries_.emplace(id, std::move(entry));
  return absl::OkStatus();
}

void AdmissionGate::Leave(RequestId id) {
  const std::pair<RequestId, Change> ended[] = {{id, Change::kEnded}};
  const std::lock_guard lock(mutex_);
  Apply(ended);
}

void AdmissionGate::Update(std::span<const std::pair<RequestId, Change>> changes,
                           const ServiceState& state) {
  const std::lock_guard lock(mutex_);
  state_ = state;
  Apply(changes);
}

std::vector<std::pair<RequestId, absl::Status>> AdmissionGate::TakeHopeless(TimePoint now) {
  std::vector<std::pair<RequestId, absl::Status>> hopeless;
  const std::lock_guard lock(mutex_);
  size_t left = std::min<size_t>(timed_.size(), kMostChecked);
  for (auto at = timed_.upper_bound(checked_); left > 0; --left) {
    if (at == timed_.end()) at = timed_.begin();
    checked_ = *at++;
    const absl::Status status = CheckTime(entries_.at(checked_), now);
    if (!status.ok()) hopeless.emplace_back(checked_, status);
  }
  return hopeless;
}

int AdmissionGate::waiting() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int>(backlog_.total().requests);
}

AdmissionGate::Entry AdmissionGate::MakeEntry(const GenerationRequest& request) const {
  Entry entry{.work = {.priority = request.priority,
                       .prompt_tokens = static_cast<int>(request.prompt.size()),
                       .least_output_tokens = LeastOutput(request)},
              .bytes = BytesOf(request),
              .arrival = request.arrival,
              .deadline = request.deadline};
  if (!request.adapters.empty()) {
    entry.adapter = request.adapters[0].version->activity;
    entry.adapter_pages = request.adapters[0].version->pages;
  }
  return entry;
}

const Objective& AdmissionGate::ObjectiveOf(const Entry& entry) const {
  return objectives_[static_cast<size_t>(entry.work.priority)];
}

bool AdmissionGate::MayBeRefused(const Entry& entry) const {
  const Objective& objective = ObjectiveOf(entry);
  return entry.deadline != TimePoint::max() ||
         (objective.refuse && objective.first_token > Duration::zero());
}

absl::Status AdmissionGate::CheckBounds(const Entry& entry, const GenerationRequest& request) {
  const Queued total = backlog_.total();
  if (total.requests >= bounds_.requests) {
    return Refusal(fmt::format("the queue is full: {} requests are waiting", bounds_.requests),
                   "QUEUE_FULL", DrainSeconds());
  }
  const Queued own = backlog_.Of(request.tenant);
  const auto most = static_cast<double>(request.tenant_max_waiting);
  if (most > 0 && own.requests >= most) {
    return Refusal(fmt::format("{} requests of tenant \"{}\" are waiting", most, request.tenant),
                   "TENANT_QUEUE_FULL", DrainSeconds());
  }
  // An empty queue takes any one request.
  if (total.requests > 0 &&
      total.tokens + entry.work.prompt_tokens > static_cast<double>(bounds_.prompt_tokens)) {
    return Refusal(fmt::format("{} prompt tokens are waiting; with this request's {} they would be "
                               "more than {}",
                               total.tokens, entry.work.prompt_tokens, bounds_.prompt_tokens),
                   "QUEUE_TOKENS_FULL", DrainSeconds());
  }
  if (total.requests > 0 && bytes_ + entry.bytes > bounds_.bytes) {
    return Refusal(fmt::format("waiting requests take {} bytes; with this one's {} they would take "
                               "more than {}",
                               bytes_, entry.bytes, bounds_.bytes),
                   "QUEUE_BYTES_FULL", DrainSeconds());
  }
  const double room = bounds_.requests - total.requests;
  const double token_room = static_cast<double>(bounds_.prompt_tokens) - total.tokens;
  if (own.requests + 1 > kTimesRoom * room ||
      (own.requests > 0 && own.tokens + entry.work.prompt_tokens > kTimesRoom * token_room)) {
    return Refusal(fmt::format("{} requests of tenant \"{}\" are waiting, with {} prompt tokens: "
                               "the room that is left in the queue is for others",
                               own.requests, request.tenant, own.tokens),
                   "TENANT_QUEUE_FULL", DrainSeconds());
  }
  return absl::OkStatus();
}

absl::Status AdmissionGate::CheckTime(const Entry& entry, TimePoint now) {
  if (entry.deadline <= now) {
    return WithReason(absl::DeadlineExceededError("the deadline passed"), "DEADLINE");
  }
  if (!state_.trusted || !MayBeRefused(entry)) return absl::OkStatus();
  const Forecast forecast = Foresee(entry);
  LORAD_RETURN_IF_ERROR(CheckDeadline(entry, forecast, now));
  return CheckObjective(entry, forecast, now);
}

absl::Status AdmissionGate::CheckDeadline(const Entry& entry, const Forecast& forecast,
                                          TimePoint now) {
  if (entry.deadline == TimePoint::max()) return absl::OkStatus();
  const double left = Seconds(entry.deadline - now);
  if (forecast.alone.completion > left) {
    return WithReason(absl::DeadlineExceededError(fmt::format(
                          "the request takes {:.3g} s if nothing else runs; its deadline is in "
                          "{:.3g} s",
                          forecast.alone.completion, left)),
                      "DEADLINE_TOO_SHORT");
  }
  if (kMargin * forecast.completion <= left) return absl::OkStatus();
  return Refusal(fmt::format("the request would take {:.3g} s now; its deadline is in {:.3g} s",
                             forecast.completion, left),
                 "DEADLINE_UNREACHABLE", forecast.turn);
}

absl::Status AdmissionGate::CheckObjective(const Entry& entry, const Forecast& forecast,
                                           TimePoint now) {
  const Objective& objective = ObjectiveOf(entry);
  const double wanted = Seconds(objective.first_token);
  // Who would miss it on an idle server is not to blame the queue.
  if (!objective.refuse || wanted <= 0 || forecast.alone.first_token > wanted) {
    return absl::OkStatus();
  }
  const double left = wanted - Seconds(now - entry.arrival);
  if (kMargin * forecast.first_token <= left) return absl::OkStatus();
  return Refusal(fmt::format("the first token would take {:.3g} s; the objective is {:.3g} s from "
                             "arrival",
                             forecast.first_token, wanted),
                 "OBJECTIVE_UNREACHABLE", forecast.turn);
}

Forecast AdmissionGate::Foresee(const Entry& entry) const {
  Work work = entry.work;
  // What is being loaded is soon there.
  const bool stored =
      entry.adapter != nullptr && entry.adapter->state.load() == AdapterState::kStored;
  if (stored) work.load_pages = entry.adapter_pages;
  return Predict(state_, backlog_.Ahead(entry.place), work);
}

// Until all that waits now has begun.
double AdmissionGate::DrainSeconds() const {
  if (!state_.trusted) return kUnknownDrainS;
  return Predict(state_, backlog_.total(), {.priority = Priority::kBatch}).turn;
}

absl::Status AdmissionGate::Refusal(std::string message, std::string_view reason, double retry_s) {
  const double spread = 1 + kSpread * (refused_++ % kDelays) / kDelays;
  const double delay_s = std::clamp(retry_s * spread, kLeastRetryS, kMostRetryS);
  return WithRetryAfter(WithReason(absl::ResourceExhaustedError(std::move(message)), reason),
                        std::chrono::milliseconds(static_cast<int64_t>(delay_s * 1000)));
}

void AdmissionGate::Apply(std::span<const std::pair<RequestId, Change>> changes) {
  for (const auto& [id, change] : changes) {
    const auto found = entries_.find(id);
    LORAD_CHECK(found != entries_.end());
    Entry& entry = found->second;
    timed_.erase(id);
    if (change == Change::kReturned) {
      LORAD_CHECK(!entry.waiting);
      entry.place = backlog_.Next(entry.place.tenant, entry.place.weight, entry.place.priority,
                                  entry.work.prompt_tokens);
      backlog_.Add(entry.place);
      bytes_ += entry.bytes;
      entry.waiting = true;
      continue;
    }
    if (entry.waiting) StopWaiting(&entry);
    if (change == Change::kEnded) entries_.erase(found);
  }
}

void AdmissionGate::StopWaiting(Entry* entry) {
  backlog_.Remove(entry->place);
  bytes_ -= entry->bytes;
  entry->waiting = false;
}

}  // namespace lorad
