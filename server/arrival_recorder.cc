#include "server/arrival_recorder.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "memory/sha256.h"
#include "server/log.h"

namespace lorad {
namespace {

int64_t Micros(Duration d) {
  return std::chrono::duration_cast<std::chrono::microseconds>(d).count();
}

int64_t UnixMicrosNow() { return Micros(std::chrono::system_clock::now().time_since_epoch()); }

std::string DrawKey() {
  std::random_device random;
  std::string key;
  for (int i = 0; i < 8; ++i) key += fmt::format("{:08x}", random());
  return key;
}

ArrivalOutcome OutcomeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ArrivalOutcome::kFinished;
    case absl::StatusCode::kResourceExhausted:
      return ArrivalOutcome::kRefused;
    case absl::StatusCode::kCancelled:
      return ArrivalOutcome::kCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return ArrivalOutcome::kDeadline;
    default:
      return ArrivalOutcome::kFailed;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ArrivalRecorder>> ArrivalRecorder::Open(Options options,
                                                                       const Clock* clock) {
  std::unique_ptr<ArrivalRecorder> recorder(new ArrivalRecorder(std::move(options), clock));
  if (!recorder->BeginFile()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {}", recorder->options_.path, std::strerror(errno)));
  }
  recorder->thread_ = std::thread([r = recorder.get()] { r->Run(); });
  return recorder;
}

ArrivalRecorder::ArrivalRecorder(Options options, const Clock* clock)
    : options_(std::move(options)),
      clock_(clock),
      start_(clock->Now()),
      start_unix_us_(UnixMicrosNow()),
      key_(DrawKey()) {}

ArrivalRecorder::~ArrivalRecorder() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  if (file_ != nullptr) std::fclose(file_);
}

uint64_t ArrivalRecorder::NumberOf(std::string_view tenant) const {
  if (tenant.empty()) return 0;
  Sha256 hash;
  hash.Update(key_);
  hash.Update(tenant);
  const std::string hex = hash.Finish();
  uint64_t number = 0;
  std::from_chars(hex.data(), hex.data() + 16, number, 16);
  return number;
}

ArrivalRecorder::Entry ArrivalRecorder::Begin(const GenerationRequest& request) const {
  Entry entry{.record = {}, .tenant = request.tenant};
  ArrivalRecord& record = entry.record;
  record.arrival_us = Micros(request.arrival - start_);
  if (!request.adapters.empty()) {
    record.adapter = request.adapters[0].version->id;
    record.adapter_bytes = request.adapters[0].version->image_bytes;
  }
  record.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  record.max_tokens = request.max_tokens;
  record.priority = static_cast<int64_t>(request.priority);
  record.weight = request.tenant_weight;
  if (request.deadline != TimePoint::max()) {
    record.deadline_us = Micros(request.deadline - request.arrival);
  }
  return entry;
}

void ArrivalRecorder::End(Entry entry, const StreamEnd& end) {
  ArrivalRecord& record = entry.record;
  record.outcome = OutcomeOf(end.status);
  record.cached_tokens = end.usage.cached_tokens;
  record.output_tokens = end.usage.output_tokens;
  record.queue_us = Micros(end.timings.queue);
  if (end.usage.output_tokens > 0) record.first_token_us = Micros(end.timings.first_token);
  record.total_us = Micros(end.timings.total);
  Add(std::move(entry));
}

void ArrivalRecorder::Refuse(Entry entry, const absl::Status& status) {
  if (!absl::IsResourceExhausted(status)) return;
  entry.record.outcome = ArrivalOutcome::kRefused;
  Add(std::move(entry));
}

void ArrivalRecorder::Add(Entry entry) {
  std::lock_guard lock(mutex_);
  if (queued_.size() >= options_.max_queued) {
    ++dropped_;
    return;
  }
  queued_.push_back(std::move(entry));
}

uint64_t ArrivalRecorder::dropped() const {
  std::lock_guard lock(mutex_);
  return dropped_;
}

// Moves an older file out of the way and writes the head of a new one.
bool ArrivalRecorder::BeginFile() {
  if (file_ != nullptr) std::fclose(file_);
  std::error_code error;
  if (std::filesystem::exists(options_.path, error)) {
    std::filesystem::rename(options_.path, options_.path + ".1", error);
  }
  file_ = std::fopen(options_.path.c_str(), "we");
  if (file_ == nullptr) return false;
  const std::string head = ArrivalHeader(start_unix_us_);
  written_ = std::fwrite(head.data(), 1, head.size(), file_);
  return std::fflush(file_) == 0;
}

void ArrivalRecorder::Run() {
  std::vector<Entry> batch;
  uint64_t reported = 0;
  while (true) {
    bool stopping = false;
    uint64_t dropped = 0;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, options_.write_every, [this] { return stopping_; });
      std::swap(batch, queued_);
      stopping = stopping_;
      dropped = dropped_;
    }
    Write(batch);
    batch.clear();
    if (dropped > reported) {
      Log(LogLevel::kWarn, "arrivals not recorded", {{"requests", dropped - reported}});
      reported = dropped;
    }
    if (stopping) return;
  }
}

void ArrivalRecorder::Write(const std::vector<Entry>& entries) {
  if (entries.empty() || file_ == nullptr) return;
  std::string lines;
  for (const Entry& entry : entries) {
    ArrivalRecord record = entry.record;
    record.tenant = NumberOf(entry.tenant);
    lines += ToLine(record);
    lines += '\n';
  }
  if (written_ + lines.size() > options_.max_bytes / 2 && !BeginFile()) {
    Log(LogLevel::kError, "arrivals are recorded no more", {{"file", options_.path}});
    return;
  }
  written_ += std::fwrite(lines.data(), 1, lines.size(), file_);
  if (std::fflush(file_) == 0) return;
  Log(LogLevel::kError, "arrivals are recorded no more",
      {{"file", options_.path}, {"why", std::string(std::strerror(errno))}});
  std::fclose(file_);
  file_ = nullptr;
}

}  // namespace lorad
