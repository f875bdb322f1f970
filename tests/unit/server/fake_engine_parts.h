// Fakes around the engine. FakeExecutor keeps a KV cache of tokens in the pages that it is given
// and makes the next token from all of them and from the adapter's pages, so that a page that was
// shared, freed or overwritten wrongly changes the output.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "memory/base/clock.h"
#include "model/executor.h"
#include "server/engine.h"

namespace lorad {

inline constexpr int kFakeVocab = 1000;

class FakeClock final : public Clock {
 public:
  TimePoint Now() const override {
    return TimePoint(Duration(now_ns_.fetch_add(tick.count()) + tick.count()));
  }
  void Advance(Duration d) { now_ns_ += d.count(); }

  Duration tick{};  // passes whenever somebody looks

 private:
  mutable std::atomic<int64_t> now_ns_{1'000'000'000};
};

// What lies in the pages: tokens of sequences, marks of adapters.
struct FakeMemory {
  std::mutex mutex;
  std::map<std::pair<uint32_t, int>, TokenId> kv;  // page, slot -> token
  std::map<uint32_t, uint64_t> adapter;            // page -> adapter version
};

// Fills an adapter's pages when somebody reads them or when the test says so.
class FakeTransfer final : public kernels::AdapterTransfer {
 public:
  FakeTransfer(FakeMemory* memory, std::vector<uint32_t> pages, AdapterVersionId id,
               absl::Status status)
      : memory_(memory), pages_(std::move(pages)), id_(id), status_(std::move(status)) {}

  bool Done() const override { return done_; }
  absl::Status Wait() override {
    std::lock_guard lock(memory_->mutex);
    Copy();
    done_ = true;
    return status_;
  }
  // REQUIRES: the memory's mutex is held.
  void Copy() {
    if (std::exchange(copied_, true)) return;
    for (uint32_t page : pages_) memory_->adapter[page] = id_;
  }

 private:
  FakeMemory* const memory_;
  const std::vector<uint32_t> pages_;
  const AdapterVersionId id_;
  const absl::Status status_;
  bool copied_ = false;
  std::atomic<bool> done_ = false;
};

class FakeExecutor final : public Executor {
 public:
  FakeExecutor(FakeMemory* memory, int page_tokens) : memory_(memory), page_tokens_(page_tokens) {}

  bool Overlaps() const override { return overlaps; }
  bool CanDraw(const SamplingParams& params) const override {
    return overlaps && params.logprobs < 0;
  }

  // A step runs as late as it can, when it is collected.
  absl::Status Submit(const StepInput& input) override {
    if (++submitted == fail_at_submit) return absl::InternalError("the device is not there");
    EXPECT_LE(under_way_.size(), overlaps ? 1u : 0u);
    EXPECT_TRUE(under_way_.empty() || under_way_.back().all_drawn)
        << "it had to be collected first";
    Step step;
    step.all_drawn = overlaps;
    for (const SequenceInput& s : input.sequences) {
      WaitForTransfers(s);
      step.sequences.push_back({s});
      // Only such an executor lets its input go.
      if (overlaps) step.sequences.back().Own();
      step.all_drawn = step.all_drawn && s.score_targets.empty() &&
                       (s.sampler == nullptr || CanDraw(s.sampler->params()));
    }
    step.page_copies.assign(input.page_copies.begin(), input.page_copies.end());
    under_way_.push_back(std::move(step));
    overlapped_steps += under_way_.size() == 2 ? 1 : 0;
    return absl::OkStatus();
  }

  absl::Status Collect(std::vector<SequenceResult>* results) override {
    EXPECT_FALSE(under_way_.empty());
    ++steps;
    if (steps == fail_at_step) return absl::InternalError("the device is on fire");
    if (on_step) on_step();
    Step step = std::move(under_way_.front());
    under_way_.pop_front();
    std::lock_guard lock(memory_->mutex);
    for (const kernels::PageCopy& copy : step.page_copies) CopyPage(copy);
    page_copies += static_cast<int>(step.page_copies.size());
    results->clear();
    max_sequences = std::max(max_sequences, step.sequences.size());
    const int before = computed_tokens;
    for (OwnedInput& s : step.sequences) results->push_back(Run(s.input));
    if (on_rows) on_rows(computed_tokens - before);
    last_tokens_.clear();
    for (const SequenceResult& r : *results) {
      last_tokens_.push_back(r.sample.has_value() ? r.sample->token : -1);
    }
    return absl::OkStatus();
  }

  void PoisonPages(std::span<const uint32_t> pages) override {
    std::lock_guard lock(memory_->mutex);
    for (uint32_t page : pages) {
      memory_->kv.erase(memory_->kv.lower_bound({page, 0}), memory_->kv.lower_bound({page + 1, 0}));
      memory_->adapter.erase(page);
    }
    poisoned_pages += static_cast<int>(pages.size());
  }

  bool overlaps = false;
  int submitted = 0, steps = 0;
  int overlapped_steps = 0;  // that were submitted while one was under way
  int fail_at_submit = -1;
  int poisoned_pages = 0;
  int fail_at_step = -1;
  int page_copies = 0;
  int streamed_uses = 0;
  int computed_tokens = 0;
  size_t max_sequences = 0;
  std::function<void()> on_step;
  std::function<void(int)> on_rows;  // after a step, with its tokens

 private:
  // An input, with or without what it refers to.
  struct OwnedInput {
    SequenceInput input;
    std::vector<TokenId> tokens;
    std::vector<uint32_t> kv_pages;
    std::vector<AdapterUse> adapters;
    std::vector<std::vector<uint32_t>> adapter_pages;

    void Own() {
      tokens.assign(input.tokens.begin(), input.tokens.end());
      kv_pages.assign(input.kv_pages.begin(), input.kv_pages.end());
      adapters.assign(input.adapters.begin(), input.adapters.end());
      for (AdapterUse& use : adapters) {
        adapter_pages.emplace_back(use.pages.begin(), use.pages.end());
        use.pages = adapter_pages.back();
      }
      input.tokens = tokens;
      input.kv_pages = kv_pages;
      input.adapters = adapters;
    }
  };
  struct Step {
    std::deque<OwnedInput> sequences;
    std::vector<kernels::PageCopy> page_copies;
    bool all_drawn = false;
  };

  SequenceResult Run(const SequenceInput& s) {
    uint64_t hash = 1469598103934665603ull;
    const auto mix = [&hash](uint64_t v) { hash = (hash ^ v) * 1099511628211ull; };
    const int end = s.first_position + static_cast<int>(s.tokens.size());
    computed_tokens += static_cast<int>(s.tokens.size());
    for (int p = s.first_position; p < end; ++p) {
      memory_->kv[Slot(s, p)] = TokenOf(s, static_cast<size_t>(p - s.first_position));
    }
    for (int p = 0; p < end; ++p) {
      const auto at = memory_->kv.find(Slot(s, p));
      EXPECT_TRUE(at != memory_->kv.end()) << "position " << p << " was never written";
      if (at != memory_->kv.end()) mix(static_cast<uint64_t>(at->second) + 1);
    }
    for (const AdapterUse& use : s.adapters) {
      EXPECT_EQ(use.pages.size(), use.image->pages());
      for (uint32_t page : use.pages) mix(ImageAt(page) + 7919);
    }
    SequenceResult result;
    for (size_t i = 0; i < s.score_targets.size(); ++i) {
      if (s.score_targets[i] >= 0) {
        result.scores.push_back(
            {.token = s.score_targets[i],
             .logprob = -static_cast<float>(s.first_position + static_cast<int>(i))});
      }
    }
    if (s.sampler != nullptr) {
      mix(static_cast<uint64_t>(s.sample_index));
      result.sample = SampledToken{.token = static_cast<TokenId>(hash % kFakeVocab), .logprob = -1};
    }
    return result;
  }

  TokenId TokenOf(const SequenceInput& s, size_t i) const {
    if (s.token_from_previous < 0) {
      EXPECT_GE(s.tokens[i], 0);
      return s.tokens[i];
    }
    EXPECT_EQ(s.tokens.size(), 1u);
    const TokenId token = last_tokens_.at(static_cast<size_t>(s.token_from_previous));
    EXPECT_GE(token, 0) << "nothing was sampled there";
    return token;
  }

  // A step that names a transfer gets what it copies; one that does not reads what is there.
  void WaitForTransfers(const SequenceInput& s) {
    std::lock_guard lock(memory_->mutex);
    for (const AdapterUse& use : s.adapters) {
      if (use.transfer == nullptr) continue;
      ++streamed_uses;
      const_cast<FakeTransfer*>(static_cast<const FakeTransfer*>(use.transfer->OfRank(0)))->Copy();
    }
  }
  uint64_t ImageAt(uint32_t page) const {
    const auto at = memory_->adapter.find(page);
    EXPECT_TRUE(at != memory_->adapter.end()) << "page " << page << " is not of an adapter";
    return at == memory_->adapter.end() ? 0 : at->second;
  }

  void CopyPage(const kernels::PageCopy& copy) {
    for (int slot = 0; slot < page_tokens_; ++slot) {
      const auto from = memory_->kv.find({copy.from, slot});
      if (from != memory_->kv.end()) memory_->kv[{copy.to, slot}] = from->second;
    }
  }

  std::pair<uint32_t, int> Slot(const SequenceInput& s, int position) const {
    return {s.kv_pages[static_cast<size_t>(position / page_tokens_)], position % page_tokens_};
  }

  FakeMemory* const memory_;
  const int page_tokens_;
  std::deque<Step> under_way_;
  std::vector<TokenId> last_tokens_;  // of the step that was collected last
};

inline std::shared_ptr<AdapterVersion> FakeAdapter(AdapterVersionId id, uint32_t pages,
                                                   std::string name = "a") {
  auto version = std::make_shared<AdapterVersion>();
  version->id = id;
  version->name = std::move(name);
  version->version = 1;
  version->pages = pages;
  return version;
}

inline constexpr int kFakePageTokens = 4;

// An engine over fakes. Loads are finished by FinishLoads (or at once with load_now).
struct EngineFixture {
  // Whether the executor of those made from now on overlaps its steps.
  static inline bool overlaps_by_default = false;

  explicit EngineFixture(uint32_t pages, std::function<void(EngineOptions*)> tune = nullptr)
      : pool(pages, 4096, {.page_tokens = kFakePageTokens}), executor(&memory, kFakePageTokens) {
    EngineOptions options;
    options.policy = {.max_step_tokens = 32,
                      .max_sequences = 16,
                      .max_chunk_tokens = 8,
                      .max_adapter_loads = 2,
                      .page_tokens = kFakePageTokens,
                      .reserve_pages = 0,
                      .admission = AdmissionMode::kPromptOnly};  // much is preempted
    options.vocab_size = kFakeVocab;
    options.max_model_len = 200;
    options.max_waiting = 64;
    options.validate_books = true;
    executor.overlaps = overlaps_by_default;
    if (tune) tune(&options);
    engine = std::make_unique<Engine>(
        Engine::Parts{.executor = &executor,
                      .pool = &pool,
                      .tokenizer = nullptr,
                      .observer = &observer,
                      .clock = &clock,
                      .load_adapter =
                          [this](std::shared_ptr<const AdapterVersion> version,
                                 std::vector<uint32_t> page_ids,
                                 std::function<void(absl::StatusOr<LoadedAdapter>)> done) {
                            Load load{std::move(version), std::move(page_ids), std::move(done)};
                            ++loads_started;
                            if (load_now) {
                              Finish(load, absl::OkStatus());
                            } else {
                              loads.push_back(std::move(load));
                            }
                          }},
        options);
  }

  struct Load {
    std::shared_ptr<const AdapterVersion> version;
    std::vector<uint32_t> pages;
    std::function<void(absl::StatusOr<LoadedAdapter>)> done;
  };
  void Finish(Load& load, const absl::Status& status) {
    auto copy =
        std::make_unique<FakeTransfer>(&memory, load.pages, load.version->id, transfer_status);
    auto image = std::make_shared<AdapterImage>();
    image->layouts.resize(1);
    image->layouts[0].pages = load.version->pages;
    if (!status.ok()) return load.done(status);
    std::vector<std::unique_ptr<kernels::AdapterTransfer>> ranks;
    ranks.push_back(std::move(copy));
    auto transfer = std::make_shared<ImageTransfer>(std::move(ranks), nullptr);
    if (stream_loads) {
      transfers.push_back(transfer);
    } else {
      transfer.reset();  // waits for it
    }
    load.done(LoadedAdapter{std::move(image), std::move(transfer)});
  }
  void FinishTransfers() {
    for (const auto& weak : std::exchange(transfers, {})) {
      if (const auto transfer = weak.lock(); transfer != nullptr) (void)transfer->Wait();
    }
  }
  void FinishLoads(const absl::Status& status = absl::OkStatus()) {
    std::vector<Load> all = std::exchange(loads, {});
    for (Load& load : all) Finish(load, status);
  }

  struct Request {
    std::vector<TokenId> prompt = {1, 2, 3};
    int max_tokens = 5;
    std::shared_ptr<const AdapterVersion> adapter;
    std::vector<TokenId> stop_tokens;
    int logprobs = -1;  // 0: the host must sample
    TimePoint deadline = TimePoint::max();
    size_t capacity = 1000;
    bool score = false;
    int score_from = 0;
    std::string tenant;
    double tenant_weight = 1;
    Priority priority = Priority::kStandard;
    std::string cache_salt;
  };
  struct Handle {
    absl::StatusOr<RequestId> id = absl::UnknownError("not submitted");
    std::shared_ptr<TokenStream> stream;
    std::vector<TokenId> tokens;
    std::vector<SampledToken> scores;
    std::optional<StreamEnd> end;
    size_t most_events = 0;  // taken at once

    void Collect() {
      std::vector<StreamEvent> events = stream->Take();
      most_events = std::max(most_events, events.size());
      for (StreamEvent& event : events) {
        EXPECT_FALSE(end.has_value()) << "something came after the end";
        if (event.token.has_value()) tokens.push_back(event.token->token);
        for (SampledToken& s : event.scores) scores.push_back(std::move(s));
        if (event.end.has_value()) end = std::move(event.end);
      }
    }
  };
  Handle Submit(const Request& r) {
    auto request = std::make_unique<GenerationRequest>();
    request->prompt = r.prompt;
    request->max_tokens = r.score ? 0 : r.max_tokens;
    request->score = r.score;
    request->score_from = r.score_from;
    request->tenant = r.tenant;
    request->tenant_weight = r.tenant_weight;
    request->priority = r.priority;
    request->cache_salt = r.cache_salt;
    request->sampling.stop_tokens = r.stop_tokens;
    request->sampling.logprobs = r.logprobs;
    if (r.adapter != nullptr) request->adapters.push_back({.version = r.adapter, .weight = 1.0f});
    request->arrival = clock.Now();
    request->deadline = r.deadline;
    Handle handle;
    handle.stream = request->stream = std::make_shared<TokenStream>(r.capacity);
    handle.id = engine->Submit(std::move(request));
    return handle;
  }
  // Steps until nothing runs (loads pending count as nothing).
  void RunUntilIdle(int max_steps = 10000) {
    for (int i = 0; i < max_steps; ++i) {
      if (!load_now) FinishLoads();
      if (i % 3 == 2) FinishTransfers();
      if (!engine->Step() && loads.empty() && transfers.empty() && engine->idle()) return;
    }
    FAIL() << "still not idle after " << max_steps << " steps";
  }
  std::vector<TokenId> RunAlone(const Request& r) {
    Handle handle = Submit(r);
    EXPECT_TRUE(handle.id.ok()) << handle.id.status();
    RunUntilIdle();
    handle.Collect();
    EXPECT_TRUE(handle.end.has_value() && handle.end->status.ok());
    return handle.tokens;
  }
  uint32_t kv_pages() const { return pool.states().kv; }

  struct CountingObserver : EngineObserver {
    void OnStep(const StepReport& r) override {
      preemptions += r.preemptions;
      gave_way += r.gave_way;
      parked += r.parked;
      max_adapters = std::max(max_adapters, r.adapters);
      cached_tokens += r.cached_tokens;
      steps += 1;
      step_time += r.plan + r.execute;
    }
    void OnInterToken(Priority, std::span<const double> seconds) override {
      inter_token.insert(inter_token.end(), seconds.begin(), seconds.end());
    }
    void OnGauges(const GaugeReport& g) override { tenant_spread = g.tenant_spread; }
    void OnFinish(const GenerationRequest&, const StreamEnd&) override { ++finished; }
    void OnEvictions(int n) override { evictions += n; }
    void OnFirstToken(const GenerationRequest& request, Duration, Duration ttft) override {
      if (request.foreseen_first_token_s > 0) {
        forecast_ratios.push_back(Seconds(ttft) / request.foreseen_first_token_s);
      }
    }
    std::vector<double> forecast_ratios;  // first tokens: as they came over as foreseen
    int gave_way = 0, parked = 0;
    int preemptions = 0, finished = 0, evictions = 0, max_adapters = 0, cached_tokens = 0;
    int steps = 0;
    double tenant_spread = 0;
    Duration step_time{};
    std::vector<double> inter_token;
  };

  FakeClock clock;
  FakeMemory memory;
  UnifiedPool pool;
  FakeExecutor executor;
  CountingObserver observer;
  bool load_now = false;
  bool stream_loads = false;     // what is loaded is used before it is copied
  absl::Status transfer_status;  // how copies end
  std::vector<std::weak_ptr<ImageTransfer>> transfers;
  int loads_started = 0;
  std::vector<Load> loads;
  std::unique_ptr<Engine> engine;
};

// A test in both loops: one step after the other, and overlapped (GetParam).
class LoopTest : public testing::TestWithParam<bool> {
 protected:
  LoopTest() { EngineFixture::overlaps_by_default = GetParam(); }
  ~LoopTest() override { EngineFixture::overlaps_by_default = false; }
};
inline std::string LoopName(const testing::TestParamInfo<bool>& info) {
  return info.param ? "Overlapped" : "Synchronous";
}

}  // namespace lorad
