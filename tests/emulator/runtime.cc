#include "tests/emulator/runtime.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <utility>

#include "tests/emulator/block.h"

namespace lorad::emulator {
namespace {

using kernels::cuda::DeviceFacts;
using kernels::cuda::Event;
using kernels::cuda::Graph;
using kernels::cuda::Grid;
using kernels::cuda::KernelRef;
using kernels::cuda::Stream;

constexpr size_t kDeviceAlignment = 256;

[[noreturn]] void Die(const char* what, const char* detail = "") {
  std::fprintf(stderr, "emulated device: %s %s\n", what, detail);
  std::abort();
}

// Whether the word is an address of this process outside AddressSanitizer's own tables.
bool IsAddress(uint64_t word) {
  if (word < 0x5000'0000'0000 || word >= 0x8000'0000'0000) return false;
  unsigned char resident;
  return mincore(reinterpret_cast<void*>(word / 4096 * 4096), 1, &resident) == 0;
}

// Pinned memory of all runtimes: as CUDA's portable one, any device may use it.
class PinnedMemory {
 public:
  void Add(const void* block, size_t bytes) {
    const std::lock_guard lock(mutex_);
    blocks_.emplace(static_cast<const std::byte*>(block), bytes);
  }
  void Remove(const void* block) {
    const std::lock_guard lock(mutex_);
    blocks_.erase(static_cast<const std::byte*>(block));
  }
  // Whether [at, at + bytes) lies in one block.
  bool Holds(const void* at, size_t bytes) {
    const std::lock_guard lock(mutex_);
    return LiesInOneBlock(blocks_, at, bytes);
  }

 private:
  std::mutex mutex_;
  MemoryBlocks blocks_;
};
PinnedMemory& Pinned() {
  static auto* const pinned = new PinnedMemory;  // outlives every runtime
  return *pinned;
}

}  // namespace

DeviceFacts EmulatedDevice() {
  return {.name = "emulated",
          .compute_capability = 90,
          .multiprocessors = 4,
          .memory_bytes = size_t{1} << 30,
          .shared_bytes_per_block = 227 * 1024};
}

EmulatedRuntime::EmulatedRuntime(const RuntimeOptions& options)
    : options_(options), random_(options.order_seed), device_(options.facts.memory_bytes) {}

EmulatedRuntime::~EmulatedRuntime() {
  RunUntil([this] {
    return std::all_of(streams_.begin(), streams_.end(),
                       [](const StreamState& stream) { return stream.queue.empty(); });
  });
  if (!captures_.empty()) Die("ends while a stream captures");
  if (device_.blocks() > 0) Die("device memory was not freed");
  if (!host_.empty()) Die("host memory was not freed");
  if (!events_.empty()) Die("an event was not freed");
  if (!graphs_.empty()) Die("a graph was not freed");
}

RuntimeCounts EmulatedRuntime::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void EmulatedRuntime::FailAfter(int64_t operations) {
  const std::lock_guard lock(mutex_);
  options_.fail_after = operations;
}

const DeviceFacts& EmulatedRuntime::facts() const { return options_.facts; }

absl::Status EmulatedRuntime::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void EmulatedRuntime::Fail(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  status_.Update(status);
}

// --- Memory ---

size_t EmulatedRuntime::FreeBytes() const {
  const std::lock_guard lock(mutex_);
  return options_.facts.memory_bytes - device_.used();
}

absl::StatusOr<void*> EmulatedRuntime::AllocateDevice(size_t bytes) {
  const std::lock_guard lock(mutex_);
  CheckNotCapturing("AllocateDevice");
  if (!status_.ok()) return status_;
  void* const memory = device_.Allocate(bytes);
  if (memory == nullptr) return absl::ResourceExhaustedError("emulated device: out of memory");
  return memory;
}

void EmulatedRuntime::FreeDevice(void* memory) {
  if (memory == nullptr) return;
  const std::lock_guard lock(mutex_);
  CheckNotCapturing("FreeDevice");
  RunUntil([this] {
    return std::all_of(streams_.begin(), streams_.end(),
                       [](const StreamState& stream) { return stream.queue.empty(); });
  });
  if (!device_.Free(memory)) Die("FreeDevice of what AllocateDevice did not give");
}

absl::StatusOr<void*> EmulatedRuntime::AllocateHost(size_t bytes) {
  const std::lock_guard lock(mutex_);
  CheckNotCapturing("AllocateHost");
  if (!status_.ok()) return status_;
  void* memory = nullptr;
  if (bytes > options_.host_bytes - host_used_ ||
      posix_memalign(&memory, kDeviceAlignment, std::max<size_t>(bytes, 1)) != 0) {
    return absl::ResourceExhaustedError("emulated device: out of pinned memory");
  }
  std::memset(memory, 0xff, bytes);
  host_.emplace(static_cast<const std::byte*>(memory), bytes);
  host_used_ += bytes;
  Pinned().Add(memory, bytes);
  return memory;
}

void EmulatedRuntime::FreeHost(void* memory) {
  if (memory == nullptr) return;
  const std::lock_guard lock(mutex_);
  CheckNotCapturing("FreeHost");
  const auto found = host_.find(static_cast<const std::byte*>(memory));
  if (found == host_.end()) Die("FreeHost of what AllocateHost did not give");
  host_used_ -= found->second;
  host_.erase(found);
  Pinned().Remove(memory);
  std::free(memory);
}

// --- What may be asked ---

EmulatedRuntime::StreamState& EmulatedRuntime::At(Stream stream) {
  if (stream.id < 1 || size_t(stream.id) > streams_.size()) Die("no such stream");
  return streams_[size_t(stream.id) - 1];
}

EmulatedRuntime::EventState& EmulatedRuntime::At(Event event) {
  const auto found = events_.find(event.id);
  if (found == events_.end()) Die("no such event");
  return found->second;
}

void EmulatedRuntime::CheckBlock(const void* at, size_t bytes, const char* what) const {
  if (!device_.Holds(at, bytes) && !Pinned().Holds(at, bytes)) {
    Die("is not inside one block of device or pinned memory:", what);
  }
}

void EmulatedRuntime::CheckArgs(const Work& work) const {
  for (size_t i = 0; i + 8 <= work.args.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, work.args.data() + i, 8);
    const void* const at = reinterpret_cast<const void*>(word);
    if (IsAddress(word) && !device_.Holds(at, 0) && !Pinned().Holds(at, 0)) {
      Die("an argument points to memory that the device has not:", work.kernel.name);
    }
  }
}

void EmulatedRuntime::CheckNotCapturing(const char* call) const {
  for (const auto& [_, capture] : captures_) {
    if (capture.thread == std::this_thread::get_id()) Die("not while this thread captures:", call);
  }
}

// --- Queueing ---

Stream EmulatedRuntime::NewStream(bool /*high_priority*/) {
  const std::lock_guard lock(mutex_);
  streams_.emplace_back();
  return {static_cast<int>(streams_.size())};
}

void EmulatedRuntime::Copy(Stream stream, void* to, const void* from, size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes == 0) return;
  CheckBlock(to, bytes, "the target of a copy");
  CheckBlock(from, bytes, "the source of a copy");
  Add(stream, {.kind = Work::Kind::kCopy, .to = to, .from = from, .bytes = bytes});
}

void EmulatedRuntime::Fill(Stream stream, void* to, uint8_t byte, size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes == 0) return;
  if (!device_.Holds(to, bytes)) Die("Fill outside one block of device memory");
  Add(stream, {.kind = Work::Kind::kFill, .to = to, .bytes = bytes, .byte = byte});
}

void EmulatedRuntime::Launch(Stream stream, const KernelRef& kernel, const Grid& grid,
                             const void* args) {
  const std::lock_guard lock(mutex_);
  const DeviceFacts& facts = options_.facts;
  if (kernel.emulate == nullptr) Die("not a kernel:", kernel.name);
  if (kernel.threads < 32 || kernel.threads > facts.max_threads_per_block ||
      kernel.threads % 32 != 0) {
    Die("threads of a block:", kernel.name);
  }
  if (grid.x < 0 || grid.y < 0 || grid.y > facts.max_grid_y) Die("size of a grid:", kernel.name);
  if (grid.shared_bytes > facts.shared_bytes_per_block) {
    Die("too much dynamic shared memory:", kernel.name);
  }
  if (grid.x == 0 || grid.y == 0) return;
  Work work{.kind = Work::Kind::kLaunch, .kernel = kernel, .grid = grid};
  work.args.resize(kernel.args_bytes);
  std::memcpy(work.args.data(), args, kernel.args_bytes);
  CheckArgs(work);
  Add(stream, std::move(work));
}

void EmulatedRuntime::Add(Stream stream, Work work) {
  StreamState& state = At(stream);
  if (state.capture < 0) {
    if (status_.ok()) state.queue.push_back({.kind = Entry::Kind::kWork, .work = std::move(work)});
    return;
  }
  WorkGraph& graph = captures_.at(state.capture).graph;
  graph.nodes.push_back({std::move(work), std::move(state.tails)});
  state.tails = {static_cast<int>(graph.nodes.size()) - 1};
}

Event EmulatedRuntime::NewEvent() {
  const std::lock_guard lock(mutex_);
  events_.emplace(++last_event_, EventState{});
  return {last_event_};
}

Event EmulatedRuntime::NewTimingEvent() {
  const std::lock_guard lock(mutex_);
  events_.emplace(++last_event_, EventState{.timing = true});
  return {last_event_};
}

void EmulatedRuntime::FreeEvent(Event event) {
  if (event.id < 0) return;
  const std::lock_guard lock(mutex_);
  times_.erase(At(event).mark);
  events_.erase(event.id);
}

float EmulatedRuntime::MillisecondsBetween(Event from, Event to) {
  const std::lock_guard lock(mutex_);
  int64_t times[2];
  for (int i = 0; i < 2; ++i) {
    const EventState& event = At(i == 0 ? from : to);
    if (!event.timing) Die("the time of an event that does not note it");
    const auto time = times_.find(event.mark);
    if (time == times_.end()) {
      if (!status_.ok()) return 0;
      Die("the time of an event that is not done");
    }
    times[i] = time->second;
  }
  return static_cast<float>(times[1] - times[0]) * 1e-3f;
}

void EmulatedRuntime::Record(Event event, Stream stream) {
  const std::lock_guard lock(mutex_);
  StreamState& state = At(stream);
  EventState& recorded = At(event);
  times_.erase(recorded.mark);
  recorded.capture = state.capture;
  recorded.tails = state.tails;
  recorded.mark = ++last_mark_;
  if (state.capture >= 0 || !status_.ok()) return;
  pending_.insert(recorded.mark);
  state.queue.push_back(
      {.kind = Entry::Kind::kRecord, .mark = recorded.mark, .timing = recorded.timing});
}

void EmulatedRuntime::Wait(Stream stream, Event event) {
  const std::lock_guard lock(mutex_);
  StreamState& state = At(stream);
  const EventState& awaited = At(event);
  if (awaited.capture < 0) {
    if (state.capture >= 0) Die("a stream that captures waits for an event from outside");
    if (pending_.contains(awaited.mark)) {
      state.queue.push_back({.kind = Entry::Kind::kWait, .mark = awaited.mark});
    }
    return;
  }
  if (!captures_.contains(awaited.capture)) Die("Wait for an event of a capture that has ended");
  if (state.capture >= 0 && state.capture != awaited.capture) Die("two captures in one stream");
  if (state.capture < 0) {
    state.capture = awaited.capture;
    state.tails.clear();
  }
  for (const int node : awaited.tails) {
    if (std::find(state.tails.begin(), state.tails.end(), node) == state.tails.end()) {
      state.tails.push_back(node);
    }
  }
}

bool EmulatedRuntime::IsDone(Event event) {
  const std::lock_guard lock(mutex_);
  CheckNotCapturing("IsDone");
  const EventState& asked = At(event);
  if (asked.capture >= 0) Die("IsDone of an event of a capture");
  // Time passes with every question; under odd seeds, where the host is fast, with few of them.
  const bool passes = options_.order_seed % 2 == 0 || random_() % 16 == 0;
  int steps = passes ? static_cast<int>(random_() % 4) + 1 : 0;
  RunUntil([&] { return !pending_.contains(asked.mark) || steps-- == 0; });
  return !pending_.contains(asked.mark);
}

absl::Status EmulatedRuntime::Synchronize(Event event) {
  const std::lock_guard lock(mutex_);
  CheckNotCapturing("Synchronize");
  const EventState& awaited = At(event);
  if (awaited.capture >= 0) Die("Synchronize with an event of a capture");
  RunUntil([&] { return !pending_.contains(awaited.mark); });
  return status_;
}

absl::Status EmulatedRuntime::Synchronize(Stream stream) {
  const std::lock_guard lock(mutex_);
  CheckNotCapturing("Synchronize");
  const StreamState& state = At(stream);
  RunUntil([&] { return state.queue.empty(); });
  return status_;
}

// --- Graphs ---

void EmulatedRuntime::BeginCapture(Stream stream) {
  const std::lock_guard lock(mutex_);
  StreamState& state = At(stream);
  if (state.capture >= 0) Die("BeginCapture of a stream that captures");
  state.capture = ++last_capture_;
  state.tails.clear();
  captures_[state.capture] = {.origin = stream.id, .thread = std::this_thread::get_id()};
}

absl::StatusOr<Graph> EmulatedRuntime::EndCapture(Stream stream) {
  const std::lock_guard lock(mutex_);
  StreamState& state = At(stream);
  const auto found = captures_.find(state.capture);
  if (found == captures_.end() || found->second.origin != stream.id) {
    Die("EndCapture of a stream where no capture began");
  }
  if (found->second.thread != std::this_thread::get_id()) Die("EndCapture in another thread");
  WorkGraph graph = std::move(found->second.graph);
  const std::vector<bool> joined = graph.Before(state.tails);
  for (StreamState& other : streams_) {
    if (other.capture != found->first) continue;
    other.capture = -1;
    other.tails.clear();
  }
  captures_.erase(found);
  if (!status_.ok()) return status_;
  if (std::find(joined.begin(), joined.end(), false) != joined.end()) {
    return absl::InternalError("emulated device: a stream was not joined to the capture");
  }
  ++counts_.captures;
  graphs_.emplace(++last_graph_, std::move(graph));
  return Graph{last_graph_};
}

void EmulatedRuntime::LaunchGraph(Stream stream, Graph graph) {
  const std::lock_guard lock(mutex_);
  StreamState& state = At(stream);
  const auto found = graphs_.find(graph.id);
  if (found == graphs_.end()) Die("no such graph");
  if (state.capture >= 0) Die("LaunchGraph on a stream that captures");
  if (!status_.ok()) return;
  ++found->second.queued;
  state.queue.push_back({.kind = Entry::Kind::kGraph, .graph = graph.id});
}

void EmulatedRuntime::FreeGraph(Graph graph) {
  if (graph.id < 0) return;
  const std::lock_guard lock(mutex_);
  const auto found = graphs_.find(graph.id);
  if (found == graphs_.end()) Die("no such graph");
  if (found->second.queued > 0) Die("FreeGraph of a graph that has not run to its end");
  graphs_.erase(found);
}

// --- Running ---

bool EmulatedRuntime::IsReady(const Entry& entry) const {
  switch (entry.kind) {
    case Entry::Kind::kWork:
    case Entry::Kind::kRecord:
      return true;
    case Entry::Kind::kWait:
      return !pending_.contains(entry.mark);
    case Entry::Kind::kGraph:
      return entry.run.has_value() || !graphs_.at(entry.graph).running;
  }
  return false;
}

void EmulatedRuntime::Run(const Work& work) {
  if (!status_.ok()) return;
  if (options_.fail_after >= 0 && options_.fail_after-- == 0) {
    status_ = absl::InternalError("emulated device: failed as the test asked");
    return;
  }
  ++clock_;
  switch (work.kind) {
    case Work::Kind::kCopy:
      CheckBlock(work.to, work.bytes, "the target of a copy, by now");
      CheckBlock(work.from, work.bytes, "the source of a copy, by now");
      std::memcpy(work.to, work.from, work.bytes);
      ++counts_.copies;
      return;
    case Work::Kind::kFill:
      CheckBlock(work.to, work.bytes, "the target of a fill, by now");
      std::memset(work.to, work.byte, work.bytes);
      ++counts_.fills;
      return;
    case Work::Kind::kLaunch:
      RunGrid(work.kernel, work.grid, work.args.data(),
              {.order_seed = random_(), .shared_limit = options_.facts.shared_bytes_per_block});
      ++counts_.launches;
      return;
  }
}

void EmulatedRuntime::RunHead(StreamState& stream) {
  Entry& head = stream.queue.front();
  switch (head.kind) {
    case Entry::Kind::kWork:
      Run(head.work);
      break;
    case Entry::Kind::kRecord:
      pending_.erase(head.mark);
      if (head.timing && status_.ok()) times_[head.mark] = clock_;
      break;
    case Entry::Kind::kWait:
      break;
    case Entry::Kind::kGraph: {
      WorkGraph& graph = graphs_.at(head.graph);
      if (!head.run.has_value()) {
        head.run.emplace(graph);
        graph.running = true;
        ++counts_.graph_launches;
      }
      if (!head.run->done()) {
        const size_t i = random_() % head.run->ready().size();
        Run(graph.nodes[size_t(head.run->ready()[i])].work);
        head.run->Finish(i);
      }
      if (!head.run->done()) return;
      graph.running = false;
      --graph.queued;
      break;
    }
  }
  stream.queue.pop_front();
}

bool EmulatedRuntime::Step(const std::vector<int>& ranks) {
  std::vector<int> ready;
  for (const int i : ranks) {
    const auto& queue = streams_[size_t(i)].queue;
    if (!queue.empty() && IsReady(queue.front())) ready.push_back(i);
  }
  if (ready.empty()) return false;
  // Mostly the first in rank, so that one stream gets far ahead of another; sometimes any.
  const size_t chosen = random_() % 8 == 0 ? random_() % ready.size() : 0;
  RunHead(streams_[size_t(ready[chosen])]);
  return true;
}

template <typename Condition>
void EmulatedRuntime::RunUntil(Condition condition) {
  if (condition()) return;
  std::vector<int> ranks(streams_.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  std::shuffle(ranks.begin(), ranks.end(), random_);
  device_.Open();
  do {
    if (!Step(ranks)) Die("streams wait for each other");
  } while (!condition());
  device_.Close();
}

}  // namespace lorad::emulator
