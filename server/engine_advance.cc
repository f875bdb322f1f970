// What becomes of a step's results: tokens, ends, reports. Engine thread only.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "server/engine.h"

namespace lorad {

bool Engine::Advance(size_t left) {
  const bool any = pipeline_.depth() > left;
  while (pipeline_.depth() > left) AdvanceOldest();
  return any;
}

void Engine::AdvanceOldest() {
  EngineStep step;
  const absl::Status status = pipeline_.Collect(&step);
  now_ = parts_.clock->Now();
  if (!status.ok()) return BreakDevice(status);
  report_ = step.report;
  report_.execute = now_ - std::max(step.begun, std::exchange(collected_, now_));
  for (std::vector<double>& seconds : inter_token_) seconds.clear();
  for (size_t i = 0; i < step.runs.size(); ++i) {
    Sequence& s = *step.runs[i].sequence;
    if (!s.finished) {
      AdvanceOne(s, step.runs[i].tokens, std::move(step.results[i]));
    } else if (s.ahead.steps == 0) {
      LetGo(s);  // it ended while it was under way
    }
  }
  MeasureTokenCost();
  MeasureRates();
  RemoveFinished();
  ReportStep();
}

void Engine::AdvanceOne(Sequence& s, int tokens, SequenceResult result) {
  const bool decode = s.output_tokens() > 0 && tokens == 1;
  (decode ? report_.decode_tokens : report_.prefill_tokens) += tokens;
  s.computed += tokens;
  // Whoever comes next with the same beginning finds it; what is generated follows at the end.
  if (!decode && s.computed >= static_cast<int>(s.request->prompt.size())) {
    pool_.prefixes().Insert(s.scope, s.computed_tokens(), /*tail=*/false, &s.pages, &s.lease,
                            s.ahead.steps > 0 ? &pipeline_.newest().exchanged : nullptr);
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
      parts_.observer->OnFirstToken(request, s.first_admission - request.arrival,
                                    now_ - request.arrival);
    }
  } else {
    inter_token_[static_cast<size_t>(request.priority)].push_back(Seconds(now_ - s.last_token));
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
  if (s.adapter() != nullptr) s.adapter()->activity->active.fetch_sub(1);
  if (status.ok() && !s.request->score) {
    rates_.AddOutput(s.output_tokens(), s.request->max_tokens);
  }
  if (s.ahead.steps == 0) LetGo(s);
  event.end = s.End(std::move(status), reason, now_);
  if (parts_.observer != nullptr) parts_.observer->OnFinish(*s.request, *event.end);
  s.request->stream->Push(std::move(event));
  written_.push_back(s.request->stream);
  s.finished = true;
  ledger_.Leave(s.tenant, s.priority);
  expiries_.Remove(s.id, s.due);
  NoteQueue(s, AdmissionGate::Change::kEnded);
  unfinished_.fetch_sub(1);
  sequences_.erase(s.id);
  if (s.running) return;
  const auto at = waiting_.find(s.id);
  if (at == waiting_.end()) {
    const auto parked =
        std::find_if(parked_.begin(), parked_.end(), [&s](const auto& p) { return p.get() == &s; });
    ended_.push_back(std::move(*parked));
    parked_.erase(parked);
    return;
  }
  queue_.Remove(s.id);
  ended_.push_back(std::move(at->second));
  waiting_.erase(at);
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
  for (RequestId id : queue_.WaitingFor(adapter)) {
    Finish(*waiting_.at(id), status, FinishReason::kLength);
  }
}

void Engine::FailAll(const absl::Status& status) {
  std::vector<RequestId> all;
  for (const auto& [id, s] : sequences_) all.push_back(id);
  std::sort(all.begin(), all.end());  // so that equal runs end alike
  for (RequestId id : all) Finish(*sequences_.at(id), status, FinishReason::kLength);
}

void Engine::BreakDevice(const absl::Status& status) {
  healthy_.store(false);
  FailAll(WithReason(
      absl::UnavailableError(fmt::format("the device failed: {}", std::string(status.message()))),
      "DEVICE_FAILED"));
  while (!pipeline_.empty()) {
    for (const EngineStep::Run& run : pipeline_.Abandon().runs) {
      if (run.sequence->ahead.steps == 0) LetGo(*run.sequence);
    }
  }
}

void Engine::RemoveFinished() {
  for (auto& s : running_) {
    if (s->finished && s->ahead.steps > 0) ending_.push_back(std::move(s));
  }
  std::erase_if(running_, [](const auto& s) { return s == nullptr || s->finished; });
  ended_.clear();
  std::erase_if(ending_, [](const auto& s) { return s->ahead.steps == 0; });
}

void Engine::ReportStep() {
  report_.running = static_cast<int>(running_.size());
  report_.waiting = static_cast<int>(waiting_.size());
  const uint64_t prefix_evictions = pool_.prefixes().stats().evicted_pages;
  report_.prefix_evictions = static_cast<int>(
      prefix_evictions - std::exchange(reported_prefix_evictions_, prefix_evictions));
  if (parts_.observer == nullptr) return;
  parts_.observer->OnStep(report_);
  for (size_t c = 0; c < inter_token_.size(); ++c) {
    if (inter_token_[c].empty()) continue;
    parts_.observer->OnInterToken(static_cast<Priority>(c), inter_token_[c]);
  }
}

void Engine::ReportGauges() {
  if (parts_.observer == nullptr) return;
  // Not all that left: a retired image made no room for anybody.
  const uint64_t evictions = pool_.adapters().stats().evictions;
  if (evictions > reported_evictions_) {
    parts_.observer->OnEvictions(static_cast<int>(evictions - reported_evictions_));
    reported_evictions_ = evictions;
  }
  parts_.observer->OnGauges(Gauges());
}

void Engine::Publish() {
  RemoveFinished();
  notifier_.Post(&written_);
  NoteDepartures();
  TellGate();
  ReportGauges();
  if (!options_.validate_books) return;
  PoisonFreed();
  const absl::Status status = ValidateBooks();
  if (!status.ok()) std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  LORAD_CHECK(status.ok());
}

}  // namespace lorad
