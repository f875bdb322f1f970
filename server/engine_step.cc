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
    const bool slow = s->paused_since != TimePoint::max() &&
                      now_ - s->paused_since > options_.slow_reader_timeout;
    if (slow || s->request->deadline <= now_) late.push_back(s);
  }
  for (Sequence* s : late) {
    const bool expired = s->request->deadline <= now_;
    Finish(*s,
           expired ? WithReason(absl::DeadlineExceededError("the deadline passed"), "DEADLINE")
                   : WithReason(absl::ResourceExhaustedError(
                                    "the client reads slower than tokens are made"),
                                "SLOW_CONSUMER"),
           FinishReason::kLength);
  }
  RemoveFinished();
}

AdapterState Engine::StateOf(const Sequence& sequence) const {
  const AdapterVersion* adapter = sequence.adapter();
  if (adapter == nullptr) return AdapterState::kNone;
  if (cache_.IsResident(adapter->id)) return AdapterState::kResident;
  return cache_.IsLoading(adapter->id) ? AdapterState::kLoading : AdapterState::kStored;
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
  waiting_view_.clear();
  for (const auto& s : waiting_) {
    if (waiting_view_.size() == kMaxWaitingInView) break;
    const AdapterVersion* adapter = s->adapter();
    waiting_view_.push_back({.id = s->id,
                             .known_tokens = s->known_tokens(),
                             .adapter_state = StateOf(*s),
                             .adapter = adapter ? adapter->id : 0,
                             .adapter_pages = adapter ? adapter->pages : 0,
                             .adapter_idle = adapter != nullptr && cache_.IsIdle(adapter->id)});
  }
  const PlannerView view{.running = running_view_,
                         .waiting = waiting_view_,
                         .free_pages = parts_.pool->free_pages(),
                         .evictable_pages = cache_.evictable_pages(),
                         .adapter_loads_in_flight = static_cast<int>(load_started_.size())};
  PlanStep(view, options_.policy, &plan_);
}

void Engine::Commit() {
  report_ = {};
  for (RequestId id : plan_.preempt) Preempt(id);
  for (RequestId id : plan_.admit) Admit(id);
  for (AdapterVersionId id : plan_.load_adapters) {
    StartLoad(FindWaitingFor(id)->request->adapters[0].version);
  }
  batch_.clear();
  for (const StepPlan::Run& run : plan_.run) {
    Sequence* s = sequences_.at(run.id);
    // The plan counted idle adapters' pages as available; here they are really taken.
    LORAD_CHECK(cache_.MakeRoom(run.new_pages));
    LORAD_CHECK(s->pages.Grow(run.new_pages));
    batch_.push_back(s);
  }
  if (plan_.load_adapters.empty()) StartPreloads();
}

void Engine::Preempt(RequestId id) {
  auto at =
      std::find_if(running_.begin(), running_.end(), [id](const auto& s) { return s->id == id; });
  LORAD_CHECK(at != running_.end());
  std::unique_ptr<Sequence> s = std::move(*at);
  running_.erase(at);
  ReleaseMemory(*s);
  s->running = false;
  s->computed = 0;
  s->scores.clear();
  ++s->preemptions;
  ++report_.preemptions;
  waiting_count_.fetch_add(1);
  auto place = std::upper_bound(waiting_.begin(), waiting_.end(), s->id,
                                [](RequestId i, const auto& w) { return i < w->id; });
  waiting_.insert(place, std::move(s));
}

void Engine::Admit(RequestId id) {
  auto at =
      std::find_if(waiting_.begin(), waiting_.end(), [id](const auto& s) { return s->id == id; });
  LORAD_CHECK(at != waiting_.end());
  std::unique_ptr<Sequence> s = std::move(*at);
  waiting_.erase(at);
  for (const AdapterRef& ref : s->request->adapters) {
    s->adapters.push_back({.layout = held_.at(ref.version->id).layout.get(),
                           .pages = cache_.Lease(ref.version->id, now_),
                           .weight = ref.weight});
    ref.version->activity->last_unix_ms.store(
        std::chrono::duration_cast<std::chrono::milliseconds>(
            std::chrono::system_clock::now().time_since_epoch())
            .count());
  }
  s->running = true;
  if (!std::exchange(s->admitted_before, true)) {
    s->first_admission = now_;
    for (const AdapterRef& ref : s->request->adapters) ref.version->activity->requests.fetch_add(1);
  }
  waiting_count_.fetch_sub(1);
  auto place = std::upper_bound(running_.begin(), running_.end(), s->id,
                                [](RequestId i, const auto& r) { return i < r->id; });
  running_.insert(place, std::move(s));
}

Sequence* Engine::FindWaitingFor(AdapterVersionId adapter) {
  for (const auto& s : waiting_) {
    if (s->adapter() != nullptr && s->adapter()->id == adapter) return s.get();
  }
  LORAD_CHECK(false && "a load was planned for nobody");
  return nullptr;
}

void Engine::StartLoad(std::shared_ptr<const AdapterVersion> version) {
  const std::span<const uint32_t> pages = cache_.BeginLoad(version->id, version->pages, now_);
  if (pages.empty()) return;  // only a preload can find none
  load_started_[version->id] = now_;
  held_[version->id] = {.name = version->name,
                        .version = version->version,
                        .image_bytes = version->image_bytes,
                        .layout = nullptr,
                        .activity = version->activity};
  std::vector<uint32_t> copy(pages.begin(), pages.end());
  parts_.load_adapter(version, std::move(copy),
                      [this, version](absl::StatusOr<AdapterLayoutPtr> layout) {
                        Post(LoadedMessage{version, std::move(layout)});
                      });
}

void Engine::StartPreloads() {
  while (!preloads_.empty() &&
         static_cast<int>(load_started_.size()) < options_.policy.max_adapter_loads) {
    std::shared_ptr<const AdapterVersion> version = std::move(preloads_.front());
    preloads_.pop_front();
    if (!cache_.IsResident(version->id) && !cache_.IsLoading(version->id)) {
      StartLoad(std::move(version));
    }
  }
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
  const absl::Status status = parts_.executor->Execute({.sequences = inputs_}, &results_);
  now_ = parts_.clock->Now();
  report_.execute = now_ - start;
  if (status.ok()) return true;
  healthy_.store(false);
  FailAll(WithReason(
      absl::UnavailableError(fmt::format("the device failed: {}", std::string(status.message()))),
      "DEVICE_FAILED"));
  return false;
}

void Engine::Advance() {
  inter_token_.clear();
  report_.adapters =
      static_cast<int>(cache_.stats().leased);  // before what ends lets go of its own
  for (size_t i = 0; i < batch_.size(); ++i) {
    AdvanceOne(*batch_[i], plan_.run[i].tokens, std::move(results_[i]));
  }
  report_.sequences = static_cast<int>(batch_.size());
}

void Engine::AdvanceOne(Sequence& s, int tokens, SequenceResult result) {
  const bool decode = s.output_tokens() > 0 && tokens == 1;
  (decode ? report_.decode_tokens : report_.prefill_tokens) += tokens;
  s.computed += tokens;
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

void Engine::ReleaseMemory(Sequence& s) {
  s.pages.Clear();
  if (s.adapters.empty()) return;
  s.adapters.clear();
  for (const AdapterRef& ref : s.request->adapters) cache_.Release(ref.version->id, now_);
}

void Engine::Finish(Sequence& s, absl::Status status, FinishReason reason, StreamEvent event) {
  LORAD_CHECK(!s.finished);
  ReleaseMemory(s);
  event.end = s.End(std::move(status), reason, now_);
  if (parts_.observer != nullptr) parts_.observer->OnFinish(*s.request, *event.end);
  s.request->stream->Push(std::move(event));
  written_.push_back(s.request->stream);
  s.finished = true;
  if (!s.running) waiting_count_.fetch_sub(1);
  unfinished_.fetch_sub(1);
  sequences_.erase(s.id);
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

void Engine::RemoveFinished() {
  std::erase_if(running_, [](const auto& s) { return s->finished; });
  std::erase_if(waiting_, [](const auto& s) { return s->finished; });
}

void Engine::Publish() {
  RemoveFinished();
  notifier_.Post(&written_);
  for (AdapterVersionId id : cache_.TakeEvicted()) held_.erase(id);
  if (parts_.observer != nullptr) {
    report_.running = static_cast<int>(running_.size());
    report_.waiting = static_cast<int>(waiting_.size());
    if (report_.sequences > 0) parts_.observer->OnStep(report_);
    if (!inter_token_.empty()) parts_.observer->OnInterToken(inter_token_);
    // Not all that left: a retired image made no room for anybody.
    const uint64_t evictions = cache_.stats().evictions;
    if (evictions > reported_evictions_) {
      parts_.observer->OnEvictions(static_cast<int>(evictions - reported_evictions_));
      reported_evictions_ = evictions;
    }
    parts_.observer->OnGauges(Gauges());
  }
  inter_token_.clear();
  if (options_.validate_books) {
    const absl::Status status = ValidateBooks();
    if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    LORAD_CHECK(status.ok());
  }
}

absl::Status Engine::ValidateBooks() const {
  std::vector<const PageList*> lists = cache_.page_lists();
  for (const auto& s : running_) lists.push_back(&s->pages);
  for (const auto& s : waiting_) lists.push_back(&s->pages);
  absl::Status status = cache_.Validate();
  if (status.ok()) status = parts_.pool->Validate(lists);
  return status;
}

}  // namespace lorad
