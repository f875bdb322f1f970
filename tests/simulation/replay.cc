#include "tests/simulation/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "server/arrival_record.h"

namespace lorad::sim {
namespace {

struct Line {
  int64_t arrival_us = 0;  // since 1970
  int64_t start_us = 0;    // of its recording: adapters and tenants are numbered for each anew
  ArrivalRecord record;
};

std::optional<int64_t> StartOf(std::string_view header) {
  constexpr std::string_view kKey = "start_unix_us=";
  const size_t at = header.find(kKey);
  if (!IsArrivalHeader(header) || at == std::string_view::npos) return std::nullopt;
  int64_t start = 0;
  const auto [end, error] =
      std::from_chars(header.data() + at + kKey.size(), header.data() + header.size(), start);
  if (error != std::errc()) return std::nullopt;
  return start;
}

absl::Status ReadLines(const std::string& path, std::vector<Line>* lines, size_t* unreadable) {
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(fmt::format("{} cannot be read", path));
  std::string line;
  std::getline(in, line);
  const std::optional<int64_t> start = StartOf(line);
  if (!start.has_value()) {
    return absl::InvalidArgumentError(fmt::format("{} is no recording of arrivals", path));
  }
  std::getline(in, line);  // the columns
  while (std::getline(in, line)) {
    const auto record = FromLine(line);
    if (!record.ok() || record->prompt_tokens < 1 || record->output_tokens < 0 ||
        record->max_tokens < 0) {
      ++*unreadable;
      continue;
    }
    lines->push_back(
        {.arrival_us = *start + record->arrival_us, .start_us = *start, .record = *record});
  }
  return absl::OkStatus();
}

// Numbers from 0 in order of appearance.
class Numbers {
 public:
  int Of(int64_t recording, uint64_t id) {
    const int next = static_cast<int>(numbers_.size());
    return numbers_.try_emplace({recording, id}, next).first->second;
  }
  size_t size() const { return numbers_.size(); }

 private:
  std::map<std::pair<int64_t, uint64_t>, int> numbers_;
};

// The share of max_tokens that finished requests used, by adapter and of all.
class OutputShares {
 public:
  explicit OutputShares(const std::vector<Line>& lines) {
    for (const Line& line : lines) {
      if (line.record.outcome != ArrivalOutcome::kFinished || line.record.max_tokens == 0) continue;
      const double share = static_cast<double>(line.record.output_tokens) /
                           static_cast<double>(line.record.max_tokens);
      by_adapter_[{line.start_us, line.record.adapter}].Add(share);
      all_.Add(share);
    }
  }
  int Expected(const Line& line) const {
    const auto own = by_adapter_.find({line.start_us, line.record.adapter});
    const Mean& mean = own != by_adapter_.end() ? own->second : all_;
    return static_cast<int>(
        std::lround(mean.value() * static_cast<double>(line.record.max_tokens)));
  }

 private:
  struct Mean {
    double sum = 0;
    double count = 0;
    void Add(double value) {
      sum += value;
      ++count;
    }
    double value() const { return count > 0 ? sum / count : 1; }
  };
  std::map<std::pair<int64_t, uint64_t>, Mean> by_adapter_;
  Mean all_;
};

Outcome OutcomeOf(ArrivalOutcome outcome) {
  switch (outcome) {
    case ArrivalOutcome::kFinished:
      return Outcome::kFinished;
    case ArrivalOutcome::kRefused:
      return Outcome::kRefused;
    case ArrivalOutcome::kCancelled:
      return Outcome::kCancelled;
    case ArrivalOutcome::kDeadline:
      return Outcome::kDeadline;
    case ArrivalOutcome::kFailed:
      return Outcome::kFailed;
  }
  return Outcome::kFailed;
}

SimRequest RequestOf(const Line& line, double start_s, const OutputShares& shares) {
  const ArrivalRecord& r = line.record;
  SimRequest request;
  request.start_s = start_s;
  request.prompt_tokens = static_cast<int32_t>(r.prompt_tokens);
  request.shared_tokens = static_cast<int32_t>(std::min(r.cached_tokens, r.prompt_tokens - 1));
  request.max_tokens = static_cast<int32_t>(std::max<int64_t>(r.max_tokens, 1));
  int64_t output = r.output_tokens;
  if (r.outcome != ArrivalOutcome::kFinished) {
    output = std::max<int64_t>(output + 1, shares.Expected(line));
  }
  request.output_tokens = static_cast<int32_t>(std::clamp<int64_t>(output, 1, request.max_tokens));
  request.priority = static_cast<Priority>(std::clamp<int64_t>(r.priority, 0, kPriorities - 1));
  if (r.deadline_us >= 0) request.deadline_s = start_s + static_cast<double>(r.deadline_us) / 1e6;
  if (r.outcome == ArrivalOutcome::kCancelled) {
    request.cancel_s = start_s + static_cast<double>(std::max<int64_t>(r.total_us, 0)) / 1e6;
  }
  return request;
}

void Enter(const Line& line, const SimRequest& request, size_t number, Measurements* measurements) {
  const ArrivalRecord& r = line.record;
  const auto seconds = [](int64_t us) { return static_cast<float>(static_cast<double>(us) / 1e6); };
  RequestRecord& record = measurements->record(number);
  record.outcome = OutcomeOf(r.outcome);
  record.output_tokens = static_cast<int32_t>(r.output_tokens);
  record.cached_tokens = static_cast<int32_t>(r.cached_tokens);
  record.queue_s = seconds(std::max<int64_t>(r.queue_us, 0));
  record.total_s = seconds(std::max<int64_t>(r.total_us, 0));
  if (r.first_token_us >= 0) record.ttft_s = seconds(r.first_token_us);
  if (r.output_tokens > 1) {
    record.gap_mean_s = (record.total_s - record.ttft_s) / static_cast<float>(r.output_tokens - 1);
  }
  measurements->AddService(request.tenant, At(request.start_s + record.queue_s),
                           static_cast<int>(r.prompt_tokens), 0);
  // When its tokens came is not known; evenly from the first to the last is near enough.
  for (int i = 0; i < record.output_tokens; ++i) {
    measurements->AddService(request.tenant,
                             At(request.start_s + record.ttft_s + i * record.gap_mean_s), 0, 1);
  }
}

}  // namespace

absl::StatusOr<Recording> ReadRecording(const std::vector<std::string>& paths, double times) {
  std::vector<Line> lines;
  size_t unreadable = 0;
  for (const std::string& path : paths) {
    if (absl::Status status = ReadLines(path, &lines, &unreadable); !status.ok()) return status;
  }
  if (lines.empty()) return absl::InvalidArgumentError("the recording has no arrivals");
  std::stable_sort(lines.begin(), lines.end(),
                   [](const Line& a, const Line& b) { return a.arrival_us < b.arrival_us; });
  const OutputShares shares(lines);
  Numbers adapters, tenants;
  std::vector<SimRequest> requests;
  std::vector<uint64_t> adapter_bytes;
  std::vector<double> weights;
  for (const Line& line : lines) {
    const double start_s = static_cast<double>(line.arrival_us - lines[0].arrival_us) / 1e6 / times;
    SimRequest request = RequestOf(line, start_s, shares);
    request.tenant = tenants.Of(0, line.record.tenant);
    weights.resize(tenants.size(), 1);
    weights[static_cast<size_t>(request.tenant)] = line.record.weight;
    if (line.record.adapter != 0) {
      request.adapter = adapters.Of(line.start_us, line.record.adapter);
      adapter_bytes.resize(adapters.size(), 0);
      adapter_bytes[static_cast<size_t>(request.adapter)] = line.record.adapter_bytes;
    }
    requests.push_back(request);
  }
  Recording recording{.requests = std::move(requests),
                      .adapter_bytes = std::move(adapter_bytes),
                      .weights = std::move(weights),
                      .as_recorded = {.measurements = Measurements(
                                          lines.size(), static_cast<int>(tenants.size()), 1)},
                      .unreadable = unreadable};
  SimulationResult& result = recording.as_recorded;
  result.offered = lines.size();
  result.arrivals_s = recording.requests.back().start_s;
  for (size_t i = 0; i < lines.size(); ++i) {
    Enter(lines[i], recording.requests[i], i, &result.measurements);
    result.end_s = std::max(
        result.end_s, recording.requests[i].start_s + result.measurements.records()[i].total_s);
  }
  return recording;
}

}  // namespace lorad::sim
