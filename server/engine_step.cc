// One step of the engine: expire -> plan -> commit -> execute -> advance -> publish. Engine thread
// only.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "server/engine.h"

namespace lorad {
namespace {

constexpr size_t kMaxWaitingInView = 1024;  // bounds the planner's time, whatever the queue

}  // namespace

bool Engine::Step() {
  now_ = parts_.clock->Now();
  DrainInbox();
  FinishTransfers();
  Expire();
  Plan();
  Commit();
  const bool ran = !plan_.run.empty() && Execute();
  if (ran) Advance();
  Publish();
  return ran;
}

void Engine::Expire() {
  for (auto& [id, s] : sequences_) {
    if (s->running) {
      if (!s->request->stream->full()) {
        s->paused_since = TimePoint::max();
      } else if (s->paused_since == TimePoint::max()) {
        s->paused_since = now_;
      }
    }
  }
  std::vector<Sequence*> late;
  for (auto& [id, s] : sequences_) {
    if (!WhyEnd(*s).ok()) late.push_back(s);
  }
  for (Sequence* s : late) Finish(*s, WhyEnd(*s), FinishReason::kLength);
  RemoveFinished();
}

// Why time is over for a sequence; OK: it is not.
absl::Status Engine::WhyEnd(const Sequence& s) const {
  if (s.request->deadline <= now_) {
    return WithReason(absl::DeadlineExceededError("the deadline passed"), "DEADLINE");
  }
  if (s.paused_since != TimePoint::max() && now_ - s.paused_since > options_.slow_reader_timeout) {
    return WithReason(absl::ResourceExhaustedError("the client reads slower than tokens are made"),
                      "SLOW_CONSUMER");
  }
  const bool waits = !s.admitted_before && s.adapter() != nullptr &&
                     now_ - s.request->arrival > options_.adapter_wait_timeout &&
                     StateOf(s) != AdapterState::kResident;
  if (!waits) return absl::OkStatus();
  return WithRetryAfter(
      WithReason(absl::UnavailableError(
                     fmt::format("adapter \"{}\" could not be loaded in time", s.adapter()->name)),
                 "ADAPTER_LOAD_TIMEOUT"),
      std::chrono::seconds(1));
}

AdapterState Engine::StateOf(const Sequence& sequence) const {
  const AdapterVersion* adapter = sequence.adapter();
  if (adapter == nullptr) return AdapterState::kNone;
  const AdapterCache& cache = pool_.adapters();
  if (cache.IsResident(adapter->id)) return AdapterState::kResident;
  return cache.IsLoading(adapter->id) ? AdapterState::kLoading : AdapterState::kStored;
}

void Engine::Plan() {
  running_view_.clear();
  for (const auto& s : running_) {
    running_view_.push_back({.id = s->id,
                             .known_tokens = s->known_tokens(),
                             .computed_tokens = s->computed,
                             .held_pages = static_cast<int>(s->pages.size()),
                             .paused = s->paused_since != TimePoint::max()});
  }
  // A decode takes at most one page, so preemption is only near where there are fewer.
  const uint32_t available = pool_.available_pages();
  if (available < running_.size()) FindReleasablePages();
  PlanWaiting();
  const uint32_t free = pool_.pages().free_pages();
  const PlannerView view{.running = running_view_,
                         .waiting = waiting_view_,
                         .free_pages = free,
                         .evictable_pages = available - free,
                         .adapter_loads_in_flight = static_cast<int>(load_started_.size())};
  PlanStep(view, options_.policy, &plan_);
}

void Engine::PlanWaiting() {
  waiting_view_.clear();
  // Only so many can be admitted: the others need not be looked up.
  int lookups = options_.policy.max_sequences - static_cast<int>(running_.size());
  for (const auto& s : waiting_) {
    if (waiting_view_.size() == kMaxWaitingInView) break;
    const AdapterVersion* adapter = s->adapter();
    const AdapterState state = StateOf(*s);
    const bool ready = state == AdapterState::kNone || state == AdapterState::kResident;
    if (ready && lookups-- > 0) {
      FindPrefix(*s);
    } else {
      s->found = {};
      s->found_epoch = 0;
    }
    waiting_view_.push_back(
        {.id = s->id,
         .known_tokens = s->known_tokens(),
         .adapter_state = state,
         .adapter = adapter ? adapter->id : 0,
         .adapter_pages = adapter ? adapter->pages : 0,
         .adapter_idle = adapter != nullptr && pool_.adapters().IsEvictable(adapter->id),
         .cached_tokens = s->found.tokens,
         .cached_pages = s->found.pages,
         .cached_idle_pages = s->found.idle_pages});
  }
}

void Engine::Commit() {
  report_ = {};
  page_copies_.clear();
  for (RequestId id : plan_.preempt) Preempt(id);
  for (RequestId id : plan_.admit) Admit(id);
  for (AdapterVersionId id : plan_.load_adapters) {
    StartLoad(FindWaitingFor(id)->request->adapters[0].version);
  }
  batch_.clear();
  for (const StepPlan::Run& run : plan_.run) {
    Sequence* s = sequences_.at(run.id);
    TakePages(*s, run.new_pages);
    batch_.push_back(s);
  }
  for (RequestId id : plan_.refuse) Refuse(*sequences_.at(id));
  if (plan_.load_adapters.empty()) StartPreloads();
}

bool Engine::Execute() {
  inputs_.clear();
  for (size_t i = 0; i < batch_.size(); ++i) {
    const Sequence& s = *batch_[i];
    const int tokens = plan_.run[i].tokens;
    const bool last = s.computed + tokens == s.known_tokens();
    SequenceInput input;
    input.tokens =
        std::span(s.tokens).subspan(static_cast<size_t>(s.computed), static_cast<size_t>(tokens));
    input.first_position = s.computed;
    input.kv_pages = s.pages.ids();
    input.adapters = s.adapters;
    if (s.request->score) {
      input.score_targets =
          std::span(s.score_targets)
              .subspan(static_cast<size_t>(s.computed), static_cast<size_t>(tokens));
      input.score_top = s.request->score_top;
    } else if (last) {
      input.sampler = &s.sampler;
      input.sample_index = s.output_tokens();
    }
    inputs_.push_back(input);
  }
  const TimePoint start = parts_.clock->Now();
  report_.plan = start - now_;
  const absl::Status status =
      parts_.executor->Execute({.sequences = inputs_, .page_copies = page_copies_}, &results_);
  now_ = parts_.clock->Now();
  report_.execute = now_ - start;
  copy_leases_.clear();
  if (!status.ok()) BreakDevice(status);
  return status.ok();
}

void Engine::Advance() {
  inter_token_.clear();
  report_.adapters =
      static_cast<int>(pool_.adapters().stats().leased);  // before what ends lets go of its own
  for (size_t i = 0; i < batch_.size(); ++i) {
    AdvanceOne(*batch_[i], plan_.run[i].tokens, std::move(results_[i]));
  }
  report_.sequences = static_cast<int>(batch_.size());
  MeasureTokenCost();
}

void Engine::AdvanceOne(Sequence& s, int tokens, SequenceResult result) {
  const bool decode = s.output_tokens() > 0 && tokens == 1;
  (decode ? report_.decode_tokens : report_.prefill_tokens) += tokens;
  s.computed += tokens;
  // Whoever comes next with the same beginning finds it; what is generated follows at the end.
  if (!decode && s.computed >= static_cast<int>(s.request->prompt.size())) {
    pool_.prefixes().Insert(s.scope, s.computed_tokens(), /*tail=*/false, &s.pages, &s.lease);
  }
  if (s.request->score) {
    CollectScores(s, std::move(result.scores));
  } else if (result.sample.has_value()) {
    AcceptToken(s, std::move(*result.sample));
  }
}

void Engine::CollectScores(Sequence& s, std::vector<SampledToken> scores) {
  std::move(scores.begin(), scores.end(), std::back_inserter(s.scores));
  if (s.computed < s.known_tokens()) return;
  StreamEvent event;
  event.scores = std::move(s.scores);
  Finish(s, absl::OkStatus(), FinishReason::kScored, std::move(event));
}

void Engine::AcceptToken(Sequence& s, SampledToken token) {
  const GenerationRequest& request = *s.request;
  ++report_.sampled_tokens;
  if (s.output_tokens() == 0) {
    s.first_token = now_;
    if (parts_.observer != nullptr) {
      parts_.observer->OnFirstToken(s.first_admission - request.arrival, now_ - request.arrival);
    }
  } else {
    inter_token_.push_back(Seconds(now_ - s.last_token));
  }
  s.last_token = now_;
  s.tokens.push_back(token.token);
  s.sampler.Accept(token.token);

  const auto& stops = request.sampling.stop_tokens;
  const bool stop = std::find(stops.begin(), stops.end(), token.token) != stops.end();
  StreamEvent event;
  if (!stop) {
    event.text = s.text.Push(token.token, s.output_tokens() >= request.sampling.min_tokens);
  }
  event.token = std::move(token);
  const bool matched = !s.text.matched_stop().empty();
  if (stop || matched || s.output_tokens() >= request.max_tokens) {
    if (!matched) event.text += s.text.Flush();
    const FinishReason reason = stop      ? FinishReason::kStopToken
                                : matched ? FinishReason::kStopString
                                          : FinishReason::kLength;
    Finish(s, absl::OkStatus(), reason, std::move(event));
    return;
  }
  request.stream->Push(std::move(event));
  written_.push_back(request.stream);
}

void Engine::Finish(Sequence& s, absl::Status status, FinishReason reason, StreamEvent event) {
  LORAD_CHECK(!s.finished);
  const AdapterVersion* adapter = s.adapter();
  // Nobody will ask for the beginning of a prompt on a version that is on its way out.
  const bool retiring = adapter != nullptr && retiring_.contains(adapter->id);
  ReleaseMemory(s, /*keep_prefix=*/healthy() && !retiring);
  event.end = s.End(std::move(status), reason, now_);
  if (parts_.observer != nullptr) parts_.observer->OnFinish(*s.request, *event.end);
  s.request->stream->Push(std::move(event));
  written_.push_back(s.request->stream);
  s.finished = true;
  if (!s.running) waiting_count_.fetch_sub(1);
  unfinished_.fetch_sub(1);
  if (adapter != nullptr) LeaveAdapter(*adapter);
  sequences_.erase(s.id);
}

void Engine::Refuse(Sequence& s) {
  const uint32_t pages = PagesFor(s.tokens.size(), options_.policy.page_tokens) +
                         (s.adapter() != nullptr ? s.adapter()->pages : 0);
  Finish(s,
         WithReason(absl::ResourceExhaustedError(fmt::format(
                        "the request needs {} pages with its adapter; {} can be had beside what is "
                        "pinned",
                        pages, pool_.available_pages())),
                    "LARGER_THAN_POOL"),
         FinishReason::kLength);
}

void Engine::FailWaitingFor(AdapterVersionId adapter, const absl::Status& status) {
  for (const auto& s : waiting_) {
    if (!s->finished && s->adapter() != nullptr && s->adapter()->id == adapter) {
      Finish(*s, status, FinishReason::kLength);
    }
  }
}

void Engine::FailAll(const absl::Status& status) {
  std::vector<Sequence*> all;
  for (auto& [id, s] : sequences_) all.push_back(s);
  for (Sequence* s : all) Finish(*s, status, FinishReason::kLength);
}

void Engine::BreakDevice(const absl::Status& status) {
  healthy_.store(false);
  FailAll(WithReason(
      absl::UnavailableError(fmt::format("the device failed: {}", std::string(status.message()))),
      "DEVICE_FAILED"));
}

void Engine::RemoveFinished() {
  std::erase_if(running_, [](const auto& s) { return s->finished; });
  std::erase_if(waiting_, [](const auto& s) { return s->finished; });
}

void Engine::Publish() {
  RemoveFinished();
  notifier_.Post(&written_);
  NoteDepartures();
  if (parts_.observer != nullptr) {
    report_.running = static_cast<int>(running_.size());
    report_.waiting = static_cast<int>(waiting_.size());
    const uint64_t prefix_evictions = pool_.prefixes().stats().evicted_pages;
    report_.prefix_evictions = static_cast<int>(prefix_evictions - reported_prefix_evictions_);
    reported_prefix_evictions_ = prefix_evictions;
    if (report_.sequences > 0) parts_.observer->OnStep(report_);
    if (!inter_token_.empty()) parts_.observer->OnInterToken(inter_token_);
    // Not all that left: a retired image made no room for anybody.
    const uint64_t evictions = pool_.adapters().stats().evictions;
    if (evictions > reported_evictions_) {
      parts_.observer->OnEvictions(static_cast<int>(evictions - reported_evictions_));
      reported_evictions_ = evictions;
    }
    parts_.observer->OnGauges(Gauges());
  }
  inter_token_.clear();
  if (options_.validate_books) {
    PoisonFreed();
    const absl::Status status = ValidateBooks();
    if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    LORAD_CHECK(status.ok());
  }
}

}  // namespace lorad
