// Programs and their runner on the emulated device: lists, keys, graphs, steps, the side stream.
#include "kernels/cuda/program.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/graph_cache.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/program_runner.h"
#include "tests/emulator/runtime.h"

namespace lorad::kernels::cuda {
namespace {

// state[lane] = state[lane] * factor + the list's sum and length.
struct MixArgs {
  uint64_t* state;  // [32]
  ListView<uint32_t> list;
  uint64_t factor;
};
LORAD_KERNEL(32, 1) void Mix(MixArgs args) {
  uint64_t sum = uint64_t(*args.list.count) << 40;
  for (int i = 0; i < *args.list.count; ++i) sum += args.list.items[i];
  args.state[Lane()] = args.state[Lane()] * args.factor + sum + uint64_t(Lane());
}
const KernelRef kMix = MakeKernel("mix", &Mix, 32);

// to[lane] = from[lane] * 7 + other[lane]
struct CombineArgs {
  uint64_t* to;
  const uint64_t* from;
  const uint64_t* other;
};
LORAD_KERNEL(32, 1) void Combine(CombineArgs args) {
  args.to[Lane()] = args.from[Lane()] * 7 + args.other[Lane()];
}
const KernelRef kCombine = MakeKernel("combine", &Combine, 32);

constexpr Grid kOne{};

class ProgramTest : public testing::Test {
 protected:
  void Start(const ProgramRunnerOptions& options, uint64_t seed = 1) {
    runtime_ =
        std::make_unique<emulator::EmulatedRuntime>(emulator::RuntimeOptions{.order_seed = seed});
    auto runner = ProgramRunner::Create(*runtime_, options);
    ASSERT_TRUE(runner.ok());
    runner_ = *std::move(runner);
    state_ = *DeviceMemory::Allocate(*runtime_, 3 * 32 * sizeof(uint64_t));
  }
  void TearDown() override {
    runner_.reset();
    state_ = {};
  }
  uint64_t* State(int which = 0) const {
    return reinterpret_cast<uint64_t*>(state_.data()) + 32 * which;
  }
  std::vector<uint64_t> Read() {
    auto host = *PinnedMemory::Allocate(*runtime_, state_.bytes());
    runtime_->Copy(runner_->compute(), host.data(), state_.data(), state_.bytes());
    EXPECT_TRUE(runtime_->Synchronize(runner_->compute()).ok());
    const auto* values = reinterpret_cast<const uint64_t*>(host.data());
    return {values, values + 3 * 32};
  }
  void RunMix(std::span<const uint32_t> items, uint64_t factor, bool replayable,
              size_t capacity = 16) {
    Program& program = runner_->Begin();
    const auto list = program.List(items, capacity);
    program(kMix, kOne, MixArgs{State(), list.view, factor});
    ASSERT_TRUE(program.fits());
    runner_->Run(replayable);
  }

  std::unique_ptr<emulator::EmulatedRuntime> runtime_;
  std::unique_ptr<ProgramRunner> runner_;
  DeviceMemory state_;
};

std::vector<uint64_t> MixOnHost(std::vector<uint64_t> state, std::span<const uint32_t> items,
                                uint64_t factor) {
  const uint64_t sum =
      (uint64_t(items.size()) << 40) + std::accumulate(items.begin(), items.end(), uint64_t{0});
  for (uint64_t lane = 0; lane < 32; ++lane) state[lane] = state[lane] * factor + sum + lane;
  return state;
}

TEST_F(ProgramTest, AListIsReadByTheDevice) {
  Start({});
  const std::vector<uint32_t> items = {5, 6, 7};
  RunMix(items, 1, false);
  const auto state = Read();
  EXPECT_EQ(state[0], (uint64_t{3} << 40) + 18);
  EXPECT_EQ(state[31], (uint64_t{3} << 40) + 18 + 31);
}

TEST_F(ProgramTest, ListsOfLikeSizeHaveEqualPlaces) {
  Start({});
  const std::vector<uint32_t> numbers(300, 1);
  const auto places = [&](size_t first, size_t second) {
    Program& program = runner_->Begin();
    const auto a = program.List(std::span(numbers).first(first), 8);
    const auto b = program.List(std::span(numbers).subspan(1, second), 8);
    program(kMix, kOne, MixArgs{State(), a.view, 1});
    program(kMix, kOne, MixArgs{State(), b.view, 1});
    EXPECT_GE(a.capacity, int(first));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.view.count) % 256, 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b.view.items) % 16, 0u);
    const auto key = program.key();
    return std::vector<std::byte>(key.begin(), key.end());
  };
  EXPECT_EQ(places(1, 1), places(8, 5));
  EXPECT_EQ(places(0, 3), places(7, 8));
  EXPECT_EQ(places(129, 3), places(256, 8));
  EXPECT_NE(places(128, 8), places(129, 8));
}

TEST_F(ProgramTest, TheKeyHoldsAllThatTheDeviceIsTold) {
  Start({});
  const std::vector<uint32_t> items = {1};
  const auto key = [&](const KernelRef& kernel, const Grid& grid, uint64_t factor, bool fork) {
    Program& program = runner_->Begin();
    const auto list = program.List(std::span(items), 4);
    if (fork) program.Fork();
    program(kernel, grid, MixArgs{State(), list.view, factor});
    if (fork) program.EndFork();
    if (fork) program.Join();
    return std::vector<std::byte>(program.key().begin(), program.key().end());
  };
  const auto plain = key(kMix, kOne, 1, false);
  EXPECT_EQ(key(kMix, kOne, 1, false), plain);
  EXPECT_NE(key(kMix, kOne, 2, false), plain);
  EXPECT_NE(key(kMix, kOne, 1, true), plain);
  EXPECT_NE(key(kMix, {.x = 2}, 1, false), plain);
  EXPECT_NE(key(kMix, {.y = 2}, 1, false), plain);
  EXPECT_NE(key(kMix, {.shared_bytes = 16}, 1, false), plain);
  KernelRef other = kMix;
  other.threads = 64;
  EXPECT_NE(key(other, kOne, 1, false), plain);
  EXPECT_TRUE(key(kMix, {.x = 0}, 1, false).empty());  // an empty grid is no launch
}

// Padding in arguments must not make equal programs differ.
struct PaddedArgs {
  uint8_t small;
  uint64_t large;
  uint16_t middle;
};
LORAD_KERNEL(32, 1) void Nothing(PaddedArgs) {}
const KernelRef kNothing = MakeKernel("nothing", &Nothing, 32);

TEST_F(ProgramTest, PaddingIsNoPartOfTheKey) {
  Start({});
  const auto key = [&](int garbage) {
    alignas(PaddedArgs) std::byte memory[sizeof(PaddedArgs)];
    std::memset(memory, garbage, sizeof(memory));
    auto* args = new (memory) PaddedArgs;
    args->small = 1;
    args->large = 2;
    args->middle = 3;
    Program& program = runner_->Begin();
    program(kNothing, kOne, *args);
    program.Call([](void*, Stream, const void*) {}, nullptr, *args);
    return std::vector<std::byte>(program.key().begin(), program.key().end());
  };
  EXPECT_EQ(key(0), key(0xab));
}

TEST_F(ProgramTest, ASpanThatIsGivenTwiceIsUploadedOnce) {
  Start({});
  const std::vector<uint32_t> items = {1, 2, 3}, others = {4, 5, 6};
  Program& program = runner_->Begin();
  const auto first = program.List(std::span(items), 4);
  const size_t bytes = program.list_bytes();
  EXPECT_EQ(program.List(std::span(items), 4).view.items, first.view.items);
  EXPECT_EQ(program.list_bytes(), bytes);
  EXPECT_NE(program.List(std::span(others), 4).view.items, first.view.items);
  EXPECT_NE(program.List(std::span(items).first(2), 4).view.items, first.view.items);
  const uint32_t* array = program.Array(std::span(items), 5, uint32_t{9}, 8);
  EXPECT_EQ(program.Array(std::span(items), 5, uint32_t{9}, 8), array);
  EXPECT_NE(program.Array(std::span(items), 6, uint32_t{9}, 8), array);
  // Nothing is nothing in particular.
  EXPECT_NE(program.List(std::span<const uint32_t>(), 4).view.items,
            program.List(std::span<const uint32_t>(), 4).view.items);
}

TEST_F(ProgramTest, ArraysAreFilledUp) {
  Start({});
  const std::vector<uint32_t> items = {1, 2, 3};
  Program& program = runner_->Begin();
  const uint32_t* array = program.Array(std::span(items), 6, uint32_t{100}, 2);
  EXPECT_EQ(reinterpret_cast<const std::byte*>(array), program.device());
  std::vector<uint32_t> got(6);
  std::memcpy(got.data(), program.staging().data(), 24);
  EXPECT_EQ(got, (std::vector<uint32_t>{1, 2, 3, 100, 100, 100}));
}

TEST_F(ProgramTest, ListsGrow) {
  Start({.list_bytes = 1024});
  const std::vector<uint32_t> few = {1}, many(5000, 3);
  RunMix(few, 1, true);
  Program& program = runner_->Begin();
  program.List(std::span(many), 1);
  EXPECT_FALSE(program.fits());
  ASSERT_TRUE(runner_->Grow().ok());
  auto want = MixOnHost(std::vector<uint64_t>(32), few, 1);
  RunMix(many, 3, true, 1);
  want = MixOnHost(want, many, 3);
  auto got = Read();
  got.resize(32);
  EXPECT_EQ(got, want);
}

TEST_F(ProgramTest, ReplayedProgramsReadTheListsOfTheirOwnStep) {
  for (const uint64_t seed : {1, 2, 3}) {
    TearDown();
    Start({}, seed);
    std::mt19937_64 random(seed);
    std::vector<uint64_t> want(32);
    // Nothing waits for the device, so steps pile up; the list's memory is used again at once.
    std::vector<uint32_t> items;
    for (int step = 0; step < 60; ++step) {
      items.assign(random() % 40, 0);
      for (uint32_t& item : items) item = uint32_t(random());
      const uint64_t factor = 3 + 2 * (random() % 2);
      want = MixOnHost(want, items, factor);
      RunMix(items, factor, true);
    }
    auto got = Read();
    got.resize(32);
    EXPECT_EQ(got, want);
    // Two factors: two programs, each run once before its capture.
    EXPECT_EQ(runner_->counts().eager, 2u);
    EXPECT_EQ(runner_->counts().captured, 2u);
    EXPECT_EQ(runner_->counts().replayed, 58u);
    EXPECT_EQ(runtime_->counts().graph_launches, 58);
  }
}

TEST_F(ProgramTest, WithoutGraphsEverythingIsEager) {
  Start({.graphs = 0});
  const std::vector<uint32_t> items = {2};
  for (int i = 0; i < 5; ++i) RunMix(items, 1, true);
  EXPECT_EQ(runner_->counts().eager, 5u);
}

TEST_F(ProgramTest, TheGraphUsedLongestAgoMakesRoom) {
  Start({.graphs = 3});
  const std::vector<uint32_t> items = {2};
  std::vector<uint64_t> want(32);
  const auto run = [&](uint64_t factor) {
    RunMix(items, factor, true);
    want = MixOnHost(want, items, factor);
  };
  for (uint64_t factor = 1; factor <= 3; ++factor) {
    run(factor);
    run(factor);
  }
  run(1);
  run(4);
  run(4);  // in place of 2, whose graph may not have run to its end yet
  EXPECT_EQ(runner_->counts().captured, 4u);
  run(1);
  run(3);
  run(4);
  EXPECT_EQ(runner_->counts().captured, 4u);
  run(2);
  EXPECT_EQ(runner_->counts().captured, 5u);
  auto got = Read();
  got.resize(32);
  EXPECT_EQ(got, want);
}

TEST_F(ProgramTest, TheSideStreamIsForkedAndJoined) {
  for (const uint64_t seed : {1, 2, 3, 4, 5, 6, 7, 8}) {
    for (const bool replayable : {false, true}) {
      TearDown();
      Start({}, seed);
      const std::vector<uint32_t> items = {seed != 0 ? 1u : 2u};
      std::vector<uint64_t> main(32), side(32), sum(32);
      for (int step = 0; step < 6; ++step) {
        Program& program = runner_->Begin();
        const auto list = program.List(std::span(items), 4);
        program(kMix, kOne, MixArgs{State(0), list.view, 5});
        program.Fork();
        program(kCombine, kOne, CombineArgs{State(1), State(1), State(0)});
        program(kMix, kOne, MixArgs{State(1), list.view, 11});
        program.EndFork();
        program(kMix, kOne, MixArgs{State(2), list.view, 3});
        program.Join();
        program(kCombine, kOne, CombineArgs{State(0), State(1), State(2)});
        EXPECT_TRUE(program.joined());
        runner_->Run(replayable);
        main = MixOnHost(main, items, 5);
        for (size_t i = 0; i < 32; ++i) side[i] = side[i] * 7 + main[i];
        side = MixOnHost(side, items, 11);
        sum = MixOnHost(sum, items, 3);
        for (size_t i = 0; i < 32; ++i) main[i] = side[i] * 7 + sum[i];
      }
      auto got = Read();
      EXPECT_TRUE(std::equal(main.begin(), main.end(), got.begin()));
      EXPECT_TRUE(std::equal(side.begin(), side.end(), got.begin() + 32));
      EXPECT_TRUE(std::equal(sum.begin(), sum.end(), got.begin() + 64));
      EXPECT_EQ(runner_->counts().replayed, replayable ? 5u : 0u);
    }
  }
}

TEST_F(ProgramTest, AnotherStreamWaitsForAStep) {
  for (const uint64_t seed : {1, 2, 3, 4, 5, 6, 7, 8}) {
    TearDown();
    Start({}, seed);
    const Stream other = runtime_->NewStream(false);
    const std::vector<uint32_t> items = {1};
    EXPECT_EQ(runner_->last_step(), 0u);
    runner_->WaitFor(other, 0);
    std::vector<uint64_t> want(32);
    const int steps = 70;  // more than there are events
    for (int i = 0; i < steps; ++i) {
      RunMix(items, 3, true);
      want = MixOnHost(want, items, 3);
    }
    EXPECT_EQ(runner_->last_step(), uint64_t(steps));
    auto host = *PinnedMemory::Allocate(*runtime_, 32 * 8);
    runner_->WaitFor(other, seed % 2 ? uint64_t(steps) : 2);  // of an old one: a later one will do
    runtime_->Copy(other, host.data(), State(), 32 * 8);
    ASSERT_TRUE(runtime_->Synchronize(other).ok());
    const auto* got = reinterpret_cast<const uint64_t*>(host.data());
    if (seed % 2) {
      EXPECT_TRUE(std::equal(want.begin(), want.end(), got));
    } else {
      EXPECT_NE(got[0], 0u);
    }
    ASSERT_TRUE(runner_->AwaitStep(uint64_t(steps)).ok());
  }
}

TEST_F(ProgramTest, AProgramWaitsForAnEvent) {
  for (const uint64_t seed : {1, 2, 3, 4, 5, 6, 7, 8}) {
    TearDown();
    Start({}, seed);
    const Stream copies = runtime_->NewStream(false);
    auto host = *PinnedMemory::Allocate(*runtime_, 32 * 8);
    std::fill_n(reinterpret_cast<uint64_t*>(host.data()), 32, 1000);
    runtime_->Copy(copies, State(1), host.data(), 32 * 8);
    const OwnedEvent copied(*runtime_);
    runtime_->Record(copied.get(), copies);
    for (int i = 0; i < 3; ++i) {  // never replayed
      Program& program = runner_->Begin();
      program.Wait(copied.get());
      EXPECT_TRUE(program.has_waits());
      program(kCombine, kOne, CombineArgs{State(0), State(2), State(1)});
      runner_->Run(true);
    }
    EXPECT_EQ(Read()[0], 1000u);
    EXPECT_EQ(runner_->counts().eager, 3u);
  }
}

TEST_F(ProgramTest, CallsRunOnTheStreamOfTheirPlace) {
  Start({});
  struct Seen {
    std::vector<std::pair<int, int>> calls;  // stream, argument
  } seen;
  const auto call = [](void* self, Stream stream, const void* args) {
    static_cast<Seen*>(self)->calls.emplace_back(stream.id, *static_cast<const int*>(args));
  };
  const auto run = [&] {
    Program& program = runner_->Begin();
    program.Call(call, &seen, 1);
    program.Fork();
    program.Call(call, &seen, 2);
    program.EndFork();
    program.Call(call, &seen, 3);
    program.Join();
    runner_->Run(true);
  };
  run();
  ASSERT_EQ(seen.calls.size(), 3u);
  EXPECT_EQ(seen.calls[0], std::pair(runner_->compute().id, 1));
  EXPECT_NE(seen.calls[1].first, runner_->compute().id);
  EXPECT_EQ(seen.calls[2], std::pair(runner_->compute().id, 3));
  run();  // captured
  run();
  EXPECT_EQ(seen.calls.size(), 6u);
}

TEST_F(ProgramTest, AFailureIsKept) {
  Start({});
  const std::vector<uint32_t> items = {1};
  RunMix(items, 1, true);
  runtime_->FailAfter(3);
  for (int i = 0; i < 10; ++i) RunMix(items, 1, true);
  EXPECT_FALSE(runner_->AwaitStep(runner_->last_step()).ok());
  for (int i = 0; i < 10; ++i) RunMix(items, 1, true);
  EXPECT_FALSE(runtime_->status().ok());
}

TEST(GraphCacheTest, EqualHashesAreToldApart) {
  emulator::EmulatedRuntime runtime;
  GraphCache cache(runtime, 4);
  const auto capture = [&, stream = runtime.NewStream(false)] {
    runtime.BeginCapture(stream);
    return *runtime.EndCapture(stream);
  };
  const std::vector<std::byte> a(16, std::byte{1}), b(16, std::byte{2}), shorter(8, std::byte{1});
  const auto await = [](uint64_t) {};
  cache.Add(a, 5, capture(), await);
  EXPECT_EQ(cache.Find(b, 5), nullptr);
  EXPECT_EQ(cache.Find(shorter, 5), nullptr);
  cache.Add(b, 5, capture(), await);
  ASSERT_NE(cache.Find(a, 5), nullptr);
  EXPECT_EQ(cache.Find(a, 5)->key, a);
  EXPECT_EQ(cache.Find(b, 5)->key, b);
  EXPECT_EQ(cache.Find(a, 6), nullptr);
}

TEST(HashBytesTest, AnyByteCounts) {
  std::vector<std::byte> bytes(67);
  const uint64_t zero = HashBytes(bytes);
  EXPECT_NE(zero, 0u);
  for (std::byte& byte : bytes) {
    byte = std::byte{1};
    EXPECT_NE(HashBytes(bytes), zero);
    byte = std::byte{0};
  }
  EXPECT_NE(HashBytes(std::span(bytes).first(66)), zero);
  EXPECT_EQ(HashBytes(bytes), zero);
}

}  // namespace
}  // namespace lorad::kernels::cuda
