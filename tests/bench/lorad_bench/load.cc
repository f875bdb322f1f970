#include "tests/bench/lorad_bench/load.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>

namespace lorad::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

constexpr int kGiveUpAfterFailures = 32;  // with no success at all
constexpr auto kPauseAfterFailure = std::chrono::milliseconds(100);

double SecondsBetween(Time a, Time b) { return std::chrono::duration<double>(b - a).count(); }
Clock::duration FromSeconds(double s) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// What the callbacks of all streams count together.
struct Counters {
  std::atomic<int64_t> input_tokens{0};
  std::atomic<int64_t> output_tokens{0};
};

// One stream. Written by its callbacks until `done`, then by the driver.
struct Stream {
  size_t client = 0;
  int input_tokens = 0;
  Time start, last;
  bool has_first = false;
  double ttft_s = 0;
  double longest_pause_s = 0;
  std::vector<std::pair<float, int>> gaps;  // seconds a token, tokens; those in the window
  Time window_begin, window_end;
  absl::Status status;
  int64_t cached_tokens = 0;
  double queue_s = 0, load_s = 0;
  std::unique_ptr<GenerateCall> call;

  void OnMessage(const v1::GenerateResponse& message, Counters* counters);
};

void Stream::OnMessage(const v1::GenerateResponse& message, Counters* counters) {
  if (const int tokens = message.token_ids_size(); tokens > 0) {
    const Time now = Clock::now();
    const bool measured = now >= window_begin && now < window_end;
    if (!has_first) {
      has_first = true;
      ttft_s = SecondsBetween(start, now);
      if (measured) counters->input_tokens.fetch_add(input_tokens, std::memory_order_relaxed);
    } else if (measured) {
      const double pause = SecondsBetween(last, now);
      longest_pause_s = std::max(longest_pause_s, pause);
      gaps.emplace_back(static_cast<float>(pause / tokens), tokens);
    }
    if (measured) counters->output_tokens.fetch_add(tokens, std::memory_order_relaxed);
    last = now;
  }
  if (message.has_finish()) {
    const auto& finish = message.finish();
    const auto seconds = [](const google::protobuf::Duration& d) {
      return static_cast<double>(d.seconds()) + d.nanos() * 1e-9;
    };
    cached_tokens = finish.usage().cached_tokens();
    queue_s = seconds(finish.timings().queue());
    load_s = seconds(finish.timings().adapter_load());
  }
}

class Run {
 public:
  Run(Client* client, const LoadOptions& options)
      : client_(client), options_(options), random_(options.workload.seed) {
    if (options.deadline_s > 0) {
      call_options_.timeout = std::chrono::milliseconds(std::lround(1e3 * options.deadline_s));
    }
  }

  absl::StatusOr<LoadResult> Closed();
  absl::StatusOr<LoadResult> Open();

 private:
  void Start(size_t client, const PlannedRequest& planned);
  // The next stream that ended, or null at `until`.
  std::unique_ptr<Stream> NextDone(Time until);
  // A stream that ended; `end` is when the driver saw it.
  void Absorb(const Stream& stream, Time end);
  // Its samples alone: also of a stream that the end of the run cut off.
  void AbsorbTimes(const Stream& stream);
  bool hopeless() const { return successes_ == 0 && failures_ >= kGiveUpAfterFailures; }
  absl::StatusOr<LoadResult> Result(double seconds, double cpu_s);
  void SetWindow(Time begin, Time end) {
    window_begin_ = begin;
    window_end_ = end;
  }

  Client* const client_;
  const LoadOptions& options_;
  CallOptions call_options_;
  std::mt19937 random_;
  Counters counters_;
  Time window_begin_, window_end_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Stream*> done_;  // guarded by mutex_
  std::map<Stream*, std::unique_ptr<Stream>> running_;

  LoadResult result_;
  std::vector<float> ttft_, gaps_, request_;
  double queue_s_ = 0, load_s_ = 0;
  int64_t ended_ = 0, attained_ = 0, successes_ = 0;
  int failures_ = 0;
};

void Run::Start(size_t client, const PlannedRequest& planned) {
  v1::GenerateRequest request;
  request.set_adapter(options_.adapters[static_cast<size_t>(planned.adapter)]);
  auto* ids = request.mutable_prompt()->mutable_token_ids()->mutable_ids();
  ids->Resize(planned.input_tokens, options_.prompt_token);
  if (options_.random_prompt_vocab > 0) {
    const auto vocab = static_cast<uint32_t>(options_.random_prompt_vocab);
    for (int& id : *ids) id = static_cast<int>(random_() % vocab);
  }
  request.set_max_tokens(planned.output_tokens);
  request.set_priority(options_.priority);
  request.set_ignore_eos(true);
  request.mutable_sampling()->set_temperature(0);

  auto stream = std::make_unique<Stream>();
  Stream* s = stream.get();
  s->client = client;
  s->input_tokens = planned.input_tokens;
  s->window_begin = window_begin_;
  s->window_end = window_end_;
  s->gaps.reserve(static_cast<size_t>(planned.output_tokens));
  running_[s] = std::move(stream);
  ++result_.started;
  s->start = Clock::now();
  s->call = client_->GenerateAsync(
      request,
      {.on_message = [this, s](const v1::GenerateResponse& m) { s->OnMessage(m, &counters_); },
       .on_done =
           [this, s](const absl::Status& status) {
             s->status = status;
             const std::lock_guard lock(mutex_);
             done_.push_back(s);
             changed_.notify_one();
           }},
      call_options_);
}

std::unique_ptr<Stream> Run::NextDone(Time until) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_until(lock, until, [this] { return !done_.empty(); })) return nullptr;
  Stream* s = done_.front();
  done_.pop_front();
  lock.unlock();
  std::unique_ptr<Stream> stream = std::move(running_[s]);
  running_.erase(s);
  stream->call.reset();
  return stream;
}

void Run::AbsorbTimes(const Stream& stream) {
  for (const auto& [gap, tokens] : stream.gaps) {
    gaps_.insert(gaps_.end(), static_cast<size_t>(tokens), gap);
  }
  result_.longest_pause_s = std::max(result_.longest_pause_s, stream.longest_pause_s);
  const Time first = stream.start + FromSeconds(stream.ttft_s);
  if (stream.has_first && first >= window_begin_ && first < window_end_) {
    ttft_.push_back(static_cast<float>(stream.ttft_s));
  }
}

void Run::Absorb(const Stream& stream, Time end) {
  AbsorbTimes(stream);
  if (stream.status.ok()) {
    ++successes_;
  } else {
    ++failures_;
    ++result_.errors[absl::StatusCodeToString(stream.status.code())];
    if (result_.first_error.empty()) result_.first_error = std::string(stream.status.message());
  }
  if (end < window_begin_ || end >= window_end_) return;
  ++ended_;
  if (!stream.status.ok()) return;
  ++result_.finished;
  if (stream.has_first && stream.ttft_s < kAttainmentTtftS) ++attained_;
  request_.push_back(static_cast<float>(SecondsBetween(stream.start, end)));
  result_.cached_tokens += stream.cached_tokens;
  queue_s_ += stream.queue_s;
  load_s_ += stream.load_s;
}

absl::StatusOr<LoadResult> Run::Result(double seconds, double cpu_s) {
  if (hopeless()) {
    return absl::UnavailableError(
        fmt::format("the first {} requests all failed: {}", failures_, result_.first_error));
  }
  result_.seconds = seconds;
  result_.input_tokens = counters_.input_tokens;
  result_.output_tokens = counters_.output_tokens;
  result_.ttft_s = Summarize(&ttft_);
  result_.token_gap_s = Summarize(&gaps_);
  result_.request_s = Summarize(&request_);
  result_.attainment =
      ended_ > 0 ? static_cast<double>(attained_) / static_cast<double>(ended_) : 0;
  if (result_.finished > 0) {
    result_.server_queue_s = queue_s_ / static_cast<double>(result_.finished);
    result_.server_load_s = load_s_ / static_cast<double>(result_.finished);
  }
  result_.client_cores = cpu_s / seconds;
  return result_;
}

absl::StatusOr<LoadResult> Run::Closed() {
  // Enough requests that the sequence need not repeat in any run that one waits for.
  const std::vector<PlannedRequest> requests =
      ClosedLoopRequests(options_.workload, 1 << 16, options_.popularity);
  size_t next = 0;
  const auto start_next = [&](size_t client) { Start(client, requests[next++ % requests.size()]); };
  const Time begin = Clock::now();
  SetWindow(begin + FromSeconds(options_.warmup_s),
            begin + FromSeconds(options_.workload.duration_s));
  double cpu_s = 0;
  bool warm = false;
  std::deque<std::pair<Time, size_t>>
      paused;  // clients whose last request failed, in the order of their return
  for (int i = 0; i < options_.clients; ++i) start_next(static_cast<size_t>(i));
  while (!hopeless()) {
    Time now = Clock::now();
    if (!warm && now >= window_begin_) {
      warm = true;
      cpu_s = CpuSeconds();
    }
    if (now >= window_end_) break;
    while (!paused.empty() && paused.front().first <= now) {
      start_next(paused.front().second);
      paused.pop_front();
    }
    Time until = warm ? window_end_ : window_begin_;
    if (!paused.empty()) until = std::min(until, paused.front().first);
    const auto stream = NextDone(until);
    if (!stream) continue;
    now = Clock::now();
    Absorb(*stream, now);
    if (stream->status.ok()) {
      start_next(stream->client);
    } else {
      paused.emplace_back(now + kPauseAfterFailure, stream->client);
    }
  }
  cpu_s = CpuSeconds() - cpu_s;
  // What still runs was measured up to here; its end is ours, not an error.
  for (auto& [s, stream] : running_) stream->call->Cancel();
  for (auto& [s, stream] : running_) {
    stream->call->Wait();
    AbsorbTimes(*stream);
  }
  running_.clear();
  return Result(SecondsBetween(window_begin_, window_end_), cpu_s);
}

absl::StatusOr<LoadResult> Run::Open() {
  const std::vector<PlannedRequest> trace = OpenLoopTrace(options_.workload);
  if (trace.empty()) return absl::InvalidArgumentError("--rate, --duration: no request at all");
  const double cpu_s = CpuSeconds();
  const Time begin = Clock::now();
  SetWindow(begin, Time::max());
  Time last_end = begin;
  const auto absorb_until = [&](Time until) {
    while (const auto stream = NextDone(until)) {
      last_end = Clock::now();
      Absorb(*stream, last_end);
    }
  };
  for (size_t i = 0; i < trace.size() && !hopeless(); ++i) {
    absorb_until(begin + FromSeconds(trace[i].start_s));
    Start(i, trace[i]);
  }
  const Time give_up = Clock::now() + FromSeconds(options_.grace_s);
  while (!running_.empty() && Clock::now() < give_up) {
    if (const auto stream = NextDone(give_up)) {
      last_end = Clock::now();
      Absorb(*stream, last_end);
    }
  }
  if (!running_.empty()) {
    for (auto& [s, stream] : running_) stream->call->Cancel();
    while (!running_.empty()) {
      if (const auto stream = NextDone(Clock::now() + std::chrono::seconds(10))) {
        Absorb(*stream, Clock::now());
      }
    }
    last_end = Clock::now();
  }
  return Result(SecondsBetween(begin, last_end), CpuSeconds() - cpu_s);
}

}  // namespace

Percentiles Summarize(std::vector<float>* samples) {
  Percentiles p;
  p.count = samples->size();
  if (samples->empty()) return p;
  std::sort(samples->begin(), samples->end());
  double sum = 0;
  for (const float s : *samples) sum += s;
  const auto at = [samples](double q) {
    const auto n = static_cast<double>(samples->size());
    const auto rank = static_cast<size_t>(std::max(1.0, std::ceil(q * n)));
    return static_cast<double>((*samples)[rank - 1]);
  };
  p.mean = sum / static_cast<double>(p.count);
  p.p50 = at(0.5);
  p.p90 = at(0.9);
  p.p99 = at(0.99);
  p.max = samples->back();
  return p;
}

absl::StatusOr<LoadResult> RunLoad(Client* client, const LoadOptions& options) {
  LoadOptions complete = options;
  complete.workload.adapters = static_cast<int>(options.adapters.size());
  if (const absl::Status status = Validate(complete.workload); !status.ok()) return status;
  if (options.clients > 0 && options.warmup_s >= options.workload.duration_s) {
    return absl::InvalidArgumentError("--warmup: not shorter than --duration");
  }
  Run run(client, complete);
  return options.clients > 0 ? run.Closed() : run.Open();
}

}  // namespace lorad::bench
