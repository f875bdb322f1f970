// A million random operations on a UnifiedPool, as an engine would do them, beside PoolModel. A
// failure prints the seed; LORAD_SEED=n runs others.
#include <gmock/gmock.h>

#include <array>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <optional>
#include <random>
#include <utility>

#include "tests/unit/memory/pool_model.h"

namespace lorad {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kScale = 20;
#else
constexpr int kScale = 1;
#endif

struct Shape {
  uint32_t pages;
  int page_tokens;
  size_t max_text;
  size_t max_sequences;
  int check_every;  // operations; Validate and all counts
  int operations;
};

class RandomEngine {
 public:
  RandomEngine(const Shape& shape, uint32_t seed)
      : shape_(shape),
        random_(seed),
        pool_(shape.pages, 1, {.page_tokens = shape.page_tokens}),
        model_(&pool_, shape.page_tokens) {
    pool_.prefixes().set_seconds_per_token(1);
    NewScopes(0);
    for (size_t slot = 0; slot < kSlots; ++slot) NewAdapter(slot);
  }

  void Step(int operation) {
    const int kind = Below(100);
    if (kind < 25) {
      Begin();
    } else if (kind < 60) {
      if (!running_.empty()) Advance(Below(running_.size()));
    } else if (kind < 80) {
      if (!running_.empty()) End(Below(running_.size()));
    } else if (kind < 97) {
      StepAdapter();
    } else if (kind < 98) {
      MakeRoom(static_cast<uint32_t>(Below(shape_.pages + 1)));
    } else if (kind < 99) {
      if (Below(3) == 0) Retire(Below(kSlots));
    } else {
      pool_.prefixes().set_seconds_per_token(Below(8) * 0.5);
    }
    if (operation % shape_.check_every == 0) Check();
    ExpectAskedBeforeStillHolds();
    if (!texts_.empty() && Below(4) == 0) Ask();
  }

  // Ends everything; then nothing may be left.
  void Drain() {
    while (!running_.empty()) End(0);
    for (auto& [id, adapter] : model_.adapters()) {
      while (adapter.leases > 0) Release(id, &adapter);
      pool_.adapters().SetPinned(id, adapter.pinned = false);
    }
    for (size_t slot = 0; slot < kSlots; ++slot) Retire(slot);
    std::vector<AdapterVersionId> loading;
    for (const auto& [id, adapter] : model_.adapters()) loading.push_back(id);
    for (const AdapterVersionId id : loading) FinishLoad(id, &model_.adapters().at(id));
    Check();
    MakeRoom(shape_.pages);
    Check();
    ASSERT_EQ(pool_.pages().free_pages(), shape_.pages);
    ASSERT_EQ(pool_.prefixes().pages(), 0u);
    ASSERT_THAT(pool_.prefixes().scopes(), testing::IsEmpty());
    ASSERT_THAT(pool_.adapters().ids(), testing::IsEmpty());
  }

  uint64_t hits() const { return hits_; }
  uint64_t copies() const { return copies_; }
  uint64_t preemptions() const { return preemptions_; }
  uint64_t asked_again() const { return asked_again_; }
  UnifiedPool& pool() { return pool_; }

 private:
  static constexpr size_t kSlots = 5;  // adapters at one time
  static constexpr size_t kScopesOfOne = 4;

  struct Sequence {
    int scope = 0;
    AdapterVersionId adapter = 0;
    std::string text;     // prompt and what was generated
    size_t computed = 0;  // tokens of it whose pages are written
    PageList pages;
    PrefixCache::Lease lease;
    std::string leased;  // the text that `lease` holds, as the model has it
  };

  struct Asked {
    PrefixScope scope;
    std::vector<int32_t> tokens;
    int limit = 0;
    PrefixCache::Found found;
    uint64_t epoch = 0;
  };

  size_t Below(size_t n) { return random_() % n; }

  static std::vector<int32_t> Tokens(std::string_view text) { return {text.begin(), text.end()}; }

  // The scopes of an adapter differ in one thing each.
  void NewScopes(AdapterVersionId adapter) {
    scopes_.push_back({.tenant = "a", .salt = "", .adapter = adapter, .weight = 1});
    scopes_.push_back({.tenant = "b", .salt = "", .adapter = adapter, .weight = 1});
    scopes_.push_back({.tenant = "a", .salt = "", .adapter = adapter, .weight = 0.5});
    scopes_.push_back({.tenant = "a", .salt = "s", .adapter = adapter, .weight = 1});
  }
  void NewAdapter(size_t slot) {
    slots_[slot] = {.id = ++last_adapter_, .scope = static_cast<int>(scopes_.size())};
    NewScopes(last_adapter_);
  }

  std::vector<const PageList*> Tables() const {
    std::vector<const PageList*> tables;
    for (const Sequence& sequence : running_) tables.push_back(&sequence.pages);
    return tables;
  }

  void Check() {
    const std::vector<const PageList*> tables = Tables();
    ASSERT_EQ(pool_.Validate(tables), absl::OkStatus());
    model_.Check(tables);
  }

  void MakeRoom(uint32_t goal) {
    const uint32_t available = model_.Available(), free_before = pool_.pages().free_pages();
    ASSERT_EQ(pool_.MakeRoom(goal), goal <= available);
    const uint32_t gone = model_.TakeEvicted(pool_.adapters().TakeEvicted());
    ASSERT_EQ(pool_.pages().free_pages(), free_before + gone);
    ASSERT_TRUE(goal > free_before || gone == 0);
  }

  // A text that has something in common with others.
  std::string NewText() {
    std::string text = texts_.empty() || Below(4) == 0 ? "" : texts_[Below(texts_.size())];
    if (!text.empty() && Below(3) > 0) text.resize(1 + Below(text.size()));
    const size_t size = 1 + Below(shape_.max_text);
    while (text.size() < size) text += static_cast<char>('a' + Below(3));
    if (texts_.size() < 32) {
      texts_.push_back(text);
    } else {
      texts_[Below(texts_.size())] = text;
    }
    return text;
  }

  void Begin() {
    if (running_.size() >= shape_.max_sequences) return;
    Sequence sequence{.pages = PageList(&pool_.pages(), PageUse::kKv)};
    sequence.scope = Below(2) == 0 ? 0 : static_cast<int>(Below(kScopesOfOne));
    if (Below(2) == 0) {
      const Slot& slot = slots_[Below(kSlots)];
      if (!pool_.adapters().IsResident(slot.id)) return;
      sequence.adapter = slot.id;
      sequence.scope += slot.scope;
    }
    sequence.text = NewText();
    if (sequence.adapter != 0) Lease(sequence.adapter, &model_.adapters().at(sequence.adapter));
    Acquire(&sequence);
    running_.push_back(std::move(sequence));
  }

  void Acquire(Sequence* sequence) {
    const std::vector<int32_t> tokens = Tokens(sequence->text);
    const size_t limit = Below(4) == 0 ? Below(tokens.size() + 1) : tokens.size();
    const PrefixScope& scope = scopes_[static_cast<size_t>(sequence->scope)];
    const std::string_view wanted = std::string_view(sequence->text).substr(0, limit);
    const size_t expected = model_.Findable(sequence->scope, wanted);
    const auto page_tokens = static_cast<size_t>(shape_.page_tokens);
    const size_t whole = expected / page_tokens;

    const PrefixCache::Found found = pool_.prefixes().Find(scope, tokens, static_cast<int>(limit));
    ASSERT_EQ(static_cast<size_t>(found.tokens), expected) << wanted;
    ASSERT_EQ(found.pages, whole);
    uint32_t idle = model_.IdleOnPath(sequence->scope, wanted.substr(0, whole * page_tokens));

    PrefixCache::Hit hit =
        pool_.prefixes().Acquire(scope, tokens, static_cast<int>(limit), &sequence->pages);
    ASSERT_EQ(static_cast<size_t>(hit.tokens), expected);
    ASSERT_EQ(static_cast<size_t>(hit.copy_tokens), expected % page_tokens);
    ASSERT_EQ(hit.copy_tokens, found.copy_tokens);
    ASSERT_EQ(sequence->pages.size(), whole);
    ASSERT_EQ(hit.lease.pages(), whole);
    std::string copied_node;
    if (hit.copy_tokens > 0) {
      copied_node = model_.NodeWith(sequence->scope, hit.copy_page);
      model_.ExpectBeginsWith(hit.copy_page, sequence->scope, wanted.substr(0, expected));
      idle += model_.IsIdle(sequence->scope, copied_node) ? 1 : 0;
    }
    ASSERT_EQ(found.idle_pages, idle);
    sequence->lease = std::move(hit.lease);
    sequence->leased = wanted.substr(0, whole * page_tokens);
    sequence->computed = sequence->leased.size();
    if (whole > 0) model_.AddLease({sequence->scope, sequence->leased});
    CheckContents(*sequence);
    hits_ += whole > 0 ? 1 : 0;
    if (hit.copy_tokens > 0) CopyPage(sequence, copied_node, std::move(hit));
  }

  void Ask() {
    const PrefixScope& scope = scopes_[Below(2) == 0 ? 0 : Below(scopes_.size())];
    std::vector<int32_t> tokens = Tokens(texts_[Below(texts_.size())]);
    const auto limit = static_cast<int>(tokens.size());
    const PrefixCache::Found found = pool_.prefixes().Find(scope, tokens, limit);
    asked_ = Asked{scope, std::move(tokens), limit, found, pool_.prefixes().epoch()};
  }

  // As long as the epoch is the same, so is the answer.
  void ExpectAskedBeforeStillHolds() {
    if (!asked_.has_value() || asked_->epoch != pool_.prefixes().epoch()) return;
    const PrefixCache::Found now =
        pool_.prefixes().Find(asked_->scope, asked_->tokens, asked_->limit);
    ASSERT_EQ(now.tokens, asked_->found.tokens);
    ASSERT_EQ(now.pages, asked_->found.pages);
    ASSERT_EQ(now.idle_pages, asked_->found.idle_pages);
    ++asked_again_;
  }

  void CopyPage(Sequence* sequence, const std::string& node, PrefixCache::Hit hit) {
    model_.AddLease({sequence->scope, node});
    if (Grow(sequence, 1)) {
      sequence->computed = static_cast<size_t>(hit.tokens);
      model_.Copy(hit.copy_page, sequence->pages.ids().back(), sequence->computed);
      ++copies_;
    }
    hit.copy_lease.Release();
    model_.DropLease({sequence->scope, node});
    CheckContents(*sequence);
  }

  // False: there is no room.
  bool Grow(Sequence* sequence, uint32_t n) {
    MakeRoom(n);
    const uint32_t before = sequence->pages.size();
    if (!sequence->pages.Grow(n)) return false;
    for (const uint32_t page : sequence->pages.ids().subspan(before)) {
      model_.Write(page, sequence->scope, "fresh");
    }
    return true;
  }

  void CheckContents(const Sequence& sequence) const {
    const auto page_tokens = static_cast<size_t>(shape_.page_tokens);
    const std::string_view computed = std::string_view(sequence.text).substr(0, sequence.computed);
    for (size_t begin = 0; begin < computed.size(); begin += page_tokens) {
      model_.ExpectHolds(sequence.pages.ids()[begin / page_tokens], sequence.scope,
                         computed.substr(0, begin + page_tokens));
    }
  }

  // Computes some tokens, keeps what is whole now and then.
  void Advance(size_t i) {
    Sequence& sequence = running_[i];
    const size_t end = sequence.computed + 1 + Below(2 * static_cast<size_t>(shape_.page_tokens));
    while (sequence.text.size() < end) sequence.text += static_cast<char>('a' + Below(3));
    if (sequence.text.size() > 2 * shape_.max_text) return End(i);
    const auto page_tokens = static_cast<size_t>(shape_.page_tokens);
    const size_t needed = (end + page_tokens - 1) / page_tokens;
    if (needed > sequence.pages.size() &&
        !Grow(&sequence, static_cast<uint32_t>(needed) - sequence.pages.size())) {
      ++preemptions_;
      return End(Below(running_.size()));
    }
    while (sequence.computed < end) {
      const size_t at = sequence.computed++;
      const uint32_t page = sequence.pages.ids()[at / page_tokens];
      ASSERT_EQ(pool_.pages().references(page), 1u) << "page " << page << " is shared";
      if (at % page_tokens == 0) {
        model_.Write(page, sequence.scope, sequence.text.substr(0, at + 1));
      } else {
        model_.Append(page, sequence.text[at]);
      }
    }
    CheckContents(sequence);
    if (Below(3) == 0) Insert(&sequence, /*tail=*/false);
  }

  void Insert(Sequence* sequence, bool tail) {
    const std::string_view text = std::string_view(sequence->text).substr(0, sequence->computed);
    const std::vector<uint32_t> before(sequence->pages.ids().begin(), sequence->pages.ids().end());
    const uint32_t leased = sequence->lease.pages();
    const uint64_t epoch = pool_.prefixes().epoch();
    const std::vector<std::string> nodes = model_.NodesOf(sequence->scope);
    pool_.prefixes().Insert(scopes_[static_cast<size_t>(sequence->scope)], Tokens(text), tail,
                            &sequence->pages, &sequence->lease);
    const bool kept = model_.Insert(sequence->scope, text, tail, before, sequence->pages.ids());
    if (model_.NodesOf(sequence->scope) != nodes) {
      ASSERT_NE(pool_.prefixes().epoch(), epoch);
    }
    if (!kept) {
      ASSERT_EQ(sequence->lease.pages(), leased);
      return;
    }
    const size_t whole = text.size() / static_cast<size_t>(shape_.page_tokens);
    ASSERT_EQ(sequence->lease.pages(), whole);
    ASSERT_EQ(pool_.prefixes()
                  .Find(scopes_[static_cast<size_t>(sequence->scope)], Tokens(text),
                        static_cast<int>(text.size()))
                  .tokens,
              static_cast<int>(model_.Findable(sequence->scope, text)));
    if (!sequence->leased.empty()) model_.DropLease({sequence->scope, sequence->leased});
    sequence->leased = text.substr(0, whole * static_cast<size_t>(shape_.page_tokens));
    if (whole > 0) model_.AddLease({sequence->scope, sequence->leased});
    CheckContents(*sequence);
  }

  // Finished or preempted (kept with its tail), cut off (whole pages), or aborted (not kept).
  void End(size_t i) {
    Sequence& sequence = running_[i];
    CheckContents(sequence);
    const size_t how = Below(8);
    if (how > 0) Insert(&sequence, /*tail=*/how > 2);
    if (how > 4) texts_.push_back(sequence.text.substr(0, shape_.max_text));  // will resume
    if (texts_.size() > 32) texts_.erase(texts_.begin());
    if (Below(2) == 0) {
      sequence.pages.Clear();
      sequence.lease.Release();
    } else {
      sequence.lease.Release();
      sequence.pages.Clear();
    }
    if (!sequence.leased.empty()) model_.DropLease({sequence.scope, sequence.leased});
    if (sequence.adapter != 0) {
      Release(sequence.adapter, &model_.adapters().at(sequence.adapter));
    }
    if (i + 1 < running_.size()) std::swap(sequence, running_.back());
    running_.pop_back();
  }

  void StepAdapter() {
    const AdapterVersionId id = slots_[Below(kSlots)].id;
    if (!model_.adapters().contains(id)) return BeginLoad(id);
    // Any that is here, retired ones too.
    auto found = model_.adapters().begin();
    std::advance(found, Below(model_.adapters().size()));
    PoolModel::Adapter* adapter = &found->second;
    if (!adapter->loading) {
      adapter->pinned = Below(8) == 0;
      pool_.adapters().SetPinned(found->first, adapter->pinned);
    } else if (Below(4) > 0) {
      FinishLoad(found->first, adapter);
    } else {
      pool_.adapters().AbortLoad(found->first);
      model_.adapters().erase(found);
    }
  }

  void BeginLoad(AdapterVersionId id) {
    const auto pages = static_cast<uint32_t>(1 + Below(shape_.pages / 6));
    const uint32_t available = pool_.available_pages();
    const std::span<const uint32_t> ids =
        pool_.adapters().BeginLoad(id, pages, available, TimePoint{});
    ASSERT_EQ(ids.size(), pages <= available ? pages : 0);
    model_.TakeEvicted(pool_.adapters().TakeEvicted());
    if (ids.empty()) return;
    model_.adapters()[id].pages = pages;
    for (size_t i = 0; i < ids.size(); ++i) {
      model_.Write(ids[i], -static_cast<int>(id), std::to_string(i));
    }
  }

  void FinishLoad(AdapterVersionId id, PoolModel::Adapter* adapter) {
    if (!adapter->loading) return;
    pool_.adapters().FinishLoad(id, static_cast<double>(Below(100)), TimePoint{});
    adapter->loading = false;
    if (adapter->retired) Gone(id);
  }

  void Gone(AdapterVersionId id) {
    ASSERT_THAT(pool_.adapters().TakeEvicted(), testing::ElementsAre(id));
    model_.adapters().erase(id);
  }

  void Lease(AdapterVersionId id, PoolModel::Adapter* adapter) {
    const std::span<const uint32_t> ids = pool_.adapters().Lease(id, TimePoint{});
    ++adapter->leases;
    ASSERT_EQ(ids.size(), adapter->pages);
    for (size_t i = 0; i < ids.size(); ++i) {
      model_.ExpectHolds(ids[i], -static_cast<int>(id), std::to_string(i));
    }
  }

  void Release(AdapterVersionId id, PoolModel::Adapter* adapter) {
    pool_.adapters().Release(id, TimePoint{});
    if (--adapter->leases == 0 && adapter->retired) Gone(id);
  }

  // A new version takes the place of the adapter.
  void Retire(size_t slot) {
    const Slot old = slots_[slot];
    pool_.adapters().Retire(old.id);
    pool_.prefixes().RetireAdapter(old.id);
    for (size_t i = 0; i < kScopesOfOne; ++i) model_.RetireScope(old.scope + static_cast<int>(i));
    const auto found = model_.adapters().find(old.id);
    if (found != model_.adapters().end()) {
      found->second.retired = true;
      if (found->second.idle()) Gone(old.id);
    }
    NewAdapter(slot);
  }

  struct Slot {
    AdapterVersionId id = 0;
    int scope = 0;  // the first of its scopes
  };

  const Shape shape_;
  std::mt19937 random_;
  UnifiedPool pool_;
  PoolModel model_;
  std::vector<PrefixScope> scopes_;
  std::array<Slot, kSlots> slots_;
  AdapterVersionId last_adapter_ = 0;
  std::vector<Sequence> running_;
  std::vector<std::string> texts_;
  std::optional<Asked> asked_;
  uint64_t hits_ = 0, copies_ = 0, preemptions_ = 0, asked_again_ = 0;
};

TEST(PoolProperty, AMillionOperationsKeepTheBooks) {
  const char* given = std::getenv("LORAD_SEED");
  const uint32_t base =
      given == nullptr ? 1 : static_cast<uint32_t>(std::strtoul(given, nullptr, 10));
  std::cout << "LORAD_SEED=" << base << std::endl;  // an abort says no more than this
  const Shape shapes[] = {
      {9, 3, 9, 3, 1, 250'000},     {24, 4, 16, 5, 1, 250'000},    {40, 1, 8, 6, 1, 250'000},
      {64, 5, 30, 10, 16, 400'000}, {200, 2, 20, 16, 64, 100'000}, {1000, 4, 100, 24, 500, 20'000},
  };
  uint64_t hits = 0, copies = 0, preemptions = 0, evicted = 0, loads = 0, asked_again = 0;
  uint32_t seed = base * 100;
  for (const Shape& shape : shapes) {
    RandomEngine engine(shape, ++seed);
    SCOPED_TRACE(testing::Message() << "LORAD_SEED=" << base << ", " << shape.pages << " pages");
    for (int i = 0; i < shape.operations / kScale; ++i) {
      engine.Step(i);
      ASSERT_FALSE(testing::Test::HasFailure()) << "operation " << i;
    }
    hits += engine.hits();
    copies += engine.copies();
    preemptions += engine.preemptions();
    asked_again += engine.asked_again();
    evicted += engine.pool().prefixes().stats().evicted_pages;
    loads += engine.pool().adapters().stats().loads;
    engine.Drain();
    ASSERT_FALSE(testing::Test::HasFailure()) << "while draining";
  }
  EXPECT_GT(hits, 20'000u / kScale);  // the interesting things did happen
  EXPECT_GT(copies, 20'000u / kScale);
  EXPECT_GT(preemptions, 2'000u / kScale);
  EXPECT_GT(evicted, 200'000u / kScale);
  EXPECT_GT(loads, 10'000u / kScale);
  EXPECT_GT(asked_again, 50'000u / kScale);
}

}  // namespace
}  // namespace lorad
