#include "tests/bench/eviction/trace.h"

#include <algorithm>
#include <cmath>

#include "tests/bench/lorad_bench/numpy_random.h"

namespace lorad::bench {
namespace {

class TraceMaker {
 public:
  TraceMaker(const TraceOptions& options, double step_s)
      : options_(options), step_s_(step_s), random_(options.arrivals.seed + 1) {}

  std::vector<TracedRequest> Run() {
    for (const PlannedRequest& planned : OpenLoopTrace(options_.arrivals)) {
      const double kind = random_.Uniform();
      if (kind < options_.scans) {
        Scan(planned);
      } else {
        Single(planned);
        if (kind < options_.scans + options_.conversations) MoreTurns();
      }
    }
    std::stable_sort(trace_.begin(), trace_.end(),
                     [](const auto& a, const auto& b) { return a.start_s < b.start_s; });
    return std::move(trace_);
  }

 private:
  // Tokens that nobody else has.
  void Append(int tokens, std::vector<int32_t>* text) {
    for (int i = 0; i < tokens; ++i) text->push_back(next_token_++);
  }
  int Draw(const Range& range) { return static_cast<int>(random_.Integer(range.low, range.high)); }

  void Scan(const PlannedRequest& planned) {
    TracedRequest request{.start_s = planned.start_s, .adapter = planned.adapter, .text = {}};
    request.prompt_tokens = Draw(options_.scan_tokens);
    Append(request.prompt_tokens + planned.output_tokens, &request.text);
    trace_.push_back(std::move(request));
  }

  void Single(const PlannedRequest& planned) {
    TracedRequest request{.start_s = planned.start_s, .adapter = planned.adapter, .text = {}};
    for (int i = 0; i < options_.system_tokens; ++i) request.text.push_back(-1 - i);
    request.prompt_tokens = options_.system_tokens + planned.input_tokens;
    Append(planned.input_tokens + planned.output_tokens, &request.text);
    trace_.push_back(std::move(request));
  }

  void MoreTurns() {
    while (random_.Uniform() < options_.more_turns) {
      TracedRequest request = trace_.back();
      const auto answer = static_cast<int>(request.text.size()) - request.prompt_tokens;
      const double pause_s = -options_.think_s * std::log(1 - random_.Uniform());
      request.start_s += 2 * answer * step_s_ + pause_s;  // twice: it may have waited
      Append(Draw(options_.arrivals.input), &request.text);
      request.prompt_tokens = static_cast<int>(request.text.size());
      Append(Draw(options_.arrivals.output), &request.text);
      trace_.push_back(std::move(request));
    }
  }

  const TraceOptions& options_;
  const double step_s_;
  NumpyRandom random_;
  int32_t next_token_ = 0;
  std::vector<TracedRequest> trace_;
};

}  // namespace

std::vector<TracedRequest> MakeTrace(const TraceOptions& options, double step_s) {
  return TraceMaker(options, step_s).Run();
}

std::vector<TracedRequest> Shift(const TraceOptions& first, const TraceOptions& second,
                                 double step_s) {
  std::vector<TracedRequest> trace = MakeTrace(first, step_s);
  for (TracedRequest& request : MakeTrace(second, step_s)) {
    request.start_s += first.arrivals.duration_s;
    trace.push_back(std::move(request));
  }
  std::stable_sort(trace.begin(), trace.end(),
                   [](const auto& a, const auto& b) { return a.start_s < b.start_s; });
  return trace;
}

}  // namespace lorad::bench
