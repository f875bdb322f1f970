#include "tests/bench/eviction/replay.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "memory/base/check.h"
#include "memory/unified_pool.h"

namespace lorad::bench {
namespace {

struct Running {
  const TracedRequest* request = nullptr;
  PageList pages;
  PrefixCache::Lease lease;
};

class Replayer {
 public:
  Replayer(const Machine& machine, uint32_t pages, const Policy& policy)
      : machine_(machine), policy_(policy) {
    const auto adapter_pages = static_cast<uint32_t>(std::lround(pages * policy.adapter_share));
    const UnifiedPool::Options options{.page_tokens = kPageTokens,
                                       .prefix_cache = policy.keep_prefixes};
    kv_ = std::make_unique<UnifiedPool>(pages - adapter_pages, 1, options);
    if (adapter_pages > 0) split_ = std::make_unique<UnifiedPool>(adapter_pages, 1, options);
    // Where nothing costs anything, the queue is plain LRU.
    if (!policy.lru) kv_->prefixes().set_seconds_per_token(machine.token_s);
  }

  Result Run(std::span<const TracedRequest> trace) {
    for (const TracedRequest& request : trace) {
      EndUntil(request.start_s);
      now_ = request.start_s;
      waiting_.push_back(&request);
      Admit();
    }
    while (!running_.empty()) EndUntil(running_.begin()->first);
    LORAD_CHECK(waiting_.empty());
    return result_;
  }

 private:
  static AdapterVersionId Id(const TracedRequest& r) {
    return static_cast<AdapterVersionId>(r.adapter) + 1;
  }
  uint32_t AdapterPages(const TracedRequest& r) const {
    const int rank = kRanks[static_cast<size_t>(r.adapter) % std::size(kRanks)];
    return static_cast<uint32_t>(std::ceil(rank * machine_.adapter_pages_per_rank));
  }
  static PrefixScope Scope(const TracedRequest& r) { return {.adapter = Id(r)}; }
  static uint32_t KvPages(size_t tokens) {
    return static_cast<uint32_t>((tokens + kPageTokens - 1) / kPageTokens);
  }
  UnifiedPool& adapter_pool() { return split_ ? *split_ : *kv_; }
  AdapterCache& adapters() { return adapter_pool().adapters(); }

  void EndUntil(double time) {
    while (!running_.empty() && running_.begin()->first <= time) {
      auto first = running_.extract(running_.begin());
      now_ = first.key();
      End(&first.mapped());
      Admit();
    }
  }

  void Admit() {
    while (!waiting_.empty() && Fits(*waiting_.front())) {
      const TracedRequest* request = waiting_.front();
      waiting_.pop_front();
      Start(*request);
    }
  }

  bool Fits(const TracedRequest& r) {
    const PrefixCache::Found found = kv_->prefixes().Find(Scope(r), r.text, r.prompt_tokens - 1);
    // What is idle now and will not be, what is to be loaded, what is to be computed.
    const uint32_t kv = KvPages(r.text.size()) - found.pages + found.idle_pages;
    const bool in_use = adapters().IsResident(Id(r)) && !adapters().IsIdle(Id(r));
    const uint32_t adapter = in_use ? 0 : AdapterPages(r);
    if (!split_) return kv + adapter <= kv_->available_pages();
    return kv <= kv_->available_pages() && adapter <= split_->available_pages();
  }

  void Start(const TracedRequest& r) {
    Running running{.request = &r, .pages = PageList(&kv_->pages(), PageUse::kKv), .lease = {}};
    PrefixCache::Hit hit =
        kv_->prefixes().Acquire(Scope(r), r.text, r.prompt_tokens - 1, &running.pages);
    running.lease = std::move(hit.lease);
    const double load_s = LeaseAdapter(r);
    const uint32_t fresh = KvPages(r.text.size()) - running.pages.size();
    LORAD_CHECK(kv_->MakeRoom(fresh) && running.pages.Grow(fresh));
    hit.copy_lease.Release();
    const auto prompt = std::span(r.text).first(static_cast<size_t>(r.prompt_tokens));
    kv_->prefixes().Insert(Scope(r), prompt, false, &running.pages, &running.lease);

    const double prefill_s = (r.prompt_tokens - hit.tokens) * machine_.token_s;
    result_.prompt_tokens += static_cast<uint64_t>(r.prompt_tokens);
    result_.hit_tokens += static_cast<uint64_t>(hit.tokens);
    result_.prefill_s += prefill_s;
    result_.wait_s += now_ - r.start_s;
    const auto answer = static_cast<double>(r.text.size()) - r.prompt_tokens;
    running_.emplace(now_ + load_s + prefill_s + answer * machine_.step_s, std::move(running));
  }

  double LeaseAdapter(const TracedRequest& r) {
    double load_s = 0;
    ++result_.requests;
    if (adapters().IsResident(Id(r))) {
      ++result_.adapter_hits;
    } else {
      const uint32_t pages = AdapterPages(r);
      load_s = pages * machine_.adapter_page_s;
      const uint32_t available = adapter_pool().available_pages();
      LORAD_CHECK(!adapters().BeginLoad(Id(r), pages, available, TimePoint{}).empty());
      adapters().FinishLoad(Id(r), policy_.lru ? 0 : load_s, TimePoint{});
      result_.load_s += load_s;
    }
    adapters().Lease(Id(r), TimePoint{});
    return load_s;
  }

  void End(Running* running) {
    const TracedRequest& r = *running->request;
    kv_->prefixes().Insert(Scope(r), r.text, true, &running->pages, &running->lease);
    running->pages.Clear();
    running->lease.Release();
    adapters().Release(Id(r), TimePoint{});
    if (!policy_.keep_adapters && adapters().IsIdle(Id(r))) adapters().Retire(Id(r));
    (void)adapters().TakeEvicted();
  }

  const Machine& machine_;
  const Policy& policy_;
  std::unique_ptr<UnifiedPool> kv_, split_;  // split_: the adapters' part, if it is fixed
  std::deque<const TracedRequest*> waiting_;
  std::multimap<double, Running> running_;  // by their end
  double now_ = 0;
  Result result_;
};

}  // namespace

Result Replay(std::span<const TracedRequest> trace, const Machine& machine, uint32_t pages,
              const Policy& policy) {
  return Replayer(machine, pages, policy).Run(trace);
}

}  // namespace lorad::bench
