#include "tests/unit/kernels/cuda/fake_nccl.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "kernels/cuda/gpu.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr int kMaxRanks = 8;
constexpr int kBroken = 3;  // any error

struct Comm {
  int rank;
};

// One group at a time: kernels find it here, since an argument may not point to the host's memory.
struct World {
  std::vector<Runtime*> devices;
  std::vector<std::unique_ptr<Comm>> comms;
  std::atomic<int> open = 0;
  std::atomic<bool> fail_gather = false, fail_init = false;
  std::vector<std::thread> drivers;  // by rank

  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by mutex.
  bool broken = false, closing = false;
  int exchanges = 0;
  int meeting = 0;
  int waiting = 0;
  std::vector<bool> here;       // by rank: in this meeting
  std::vector<Stream> streams;  // by rank: where its last exchange was launched
  std::vector<std::vector<std::vector<float>>> mail;  // [from][to]

  // Waits for all ranks; false: the group is broken.
  bool Meet(std::unique_lock<std::mutex>& lock, size_t self) {
    const int now = meeting;
    here[self] = true;
    if (std::ranges::find(here, false) == here.end()) {
      here.assign(here.size(), false);
      ++meeting;
      changed.notify_all();
      return !broken;
    }
    ++waiting;
    changed.notify_all();
    changed.wait(lock, [&] { return broken || meeting != now; });
    --waiting;
    return !broken;
  }

  // Runs what is queued on a rank's stream whenever others wait for it.
  void Drive(size_t rank) {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return closing || (waiting > 0 && !here[rank] && !broken); });
      if (closing) return;
      const Stream stream = streams[rank];
      lock.unlock();
      if (stream.id != 0) devices[rank]->Synchronize(stream).IgnoreError();
      lock.lock();
      // If it is still not here its host has not come so far.
      if (!here[rank]) changed.wait_for(lock, std::chrono::milliseconds(1));
    }
  }

  void Close() {
    if (--open > 0) return;
    {
      const std::lock_guard lock(mutex);
      closing = true;
    }
    changed.notify_all();
    for (std::thread& driver : drivers) driver.join();
    drivers.clear();
  }
};
World* world = nullptr;

struct ExchangeArgs {
  const float* from[kMaxRanks];  // to each rank
  float* to[kMaxRanks];          // of each rank
  size_t count;
  int rank;
  int ranks;
};

void Exchange(ExchangeArgs args) {
  if (Thread() != 0) return;
  std::unique_lock lock(world->mutex);
  const auto self = static_cast<size_t>(args.rank);
  world->exchanges += args.rank == 0;
  for (size_t peer = 0; peer < static_cast<size_t>(args.ranks); ++peer) {
    world->mail[self][peer].assign(args.from[peer], args.from[peer] + args.count);
  }
  if (world->broken || !world->Meet(lock, self)) return;
  for (size_t peer = 0; peer < static_cast<size_t>(args.ranks); ++peer) {
    const std::vector<float>& letter = world->mail[peer][self];
    LORAD_CHECK(letter.size() == args.count);
    std::copy(letter.begin(), letter.end(), args.to[peer]);
  }
  world->Meet(lock, self);
}
const KernelRef kExchange = MakeKernel("fake_nccl", &Exchange, 32);

int RankOf(NcclComm comm) { return reinterpret_cast<Comm*>(comm)->rank; }

ExchangeArgs ArgsOf(NcclComm comm, size_t count) {
  ExchangeArgs args{};
  args.count = count;
  args.rank = RankOf(comm);
  args.ranks = static_cast<int>(world->comms.size());
  return args;
}

void LaunchOn(void* stream, const ExchangeArgs& args) {
  const Stream on = {static_cast<int>(reinterpret_cast<intptr_t>(stream))};
  {
    const std::lock_guard lock(world->mutex);
    LORAD_CHECK(!world->broken);  // what was aborted is gone
    world->streams[static_cast<size_t>(args.rank)] = on;
  }
  world->devices[static_cast<size_t>(args.rank)]->Launch(on, kExchange, {.x = 1}, &args);
}

int InitAll(NcclComm* comms, int count, const int* devices) {
  if (world->fail_init || count > kMaxRanks) return kBroken;
  for (int rank = 0; rank < count; ++rank) {
    LORAD_CHECK(devices[rank] == rank);
    world->comms.push_back(std::make_unique<Comm>(Comm{rank}));
    comms[rank] = reinterpret_cast<NcclComm>(world->comms.back().get());
  }
  world->open = count;
  const auto size = static_cast<size_t>(count);
  world->mail.assign(size, std::vector<std::vector<float>>(size));
  world->here.assign(size, false);
  world->streams.assign(size, Stream{});
  for (size_t rank = 0; rank < size; ++rank) {
    world->drivers.emplace_back([rank] { world->Drive(rank); });
  }
  return kNcclSuccess;
}

int Destroy(NcclComm) {
  world->Close();
  return kNcclSuccess;
}

int Abort(NcclComm) {
  {
    const std::lock_guard lock(world->mutex);
    world->broken = true;
  }
  world->changed.notify_all();
  world->Close();
  return kNcclSuccess;
}

int AllGather(const void* from, void* to, size_t count, int type, NcclComm comm, void* stream) {
  LORAD_CHECK(type == kNcclFloat);
  if (world->fail_gather.exchange(false)) return kBroken;
  ExchangeArgs args = ArgsOf(comm, count);
  // In place, or apart.
  const float *first = static_cast<const float*>(to), *own = static_cast<const float*>(from);
  LORAD_CHECK(own == first + static_cast<size_t>(args.rank) * count || own + count <= first ||
              own >= first + static_cast<size_t>(args.ranks) * count);
  for (int peer = 0; peer < args.ranks; ++peer) {
    args.from[peer] = static_cast<const float*>(from);
    args.to[peer] = static_cast<float*>(to) + static_cast<size_t>(peer) * count;
  }
  LaunchOn(stream, args);
  return kNcclSuccess;
}

// What a thread has gathered since GroupStart.
struct OpenGroup {
  bool open = false;
  int sent = 0, received = 0;
  ExchangeArgs args;
  void* stream = nullptr;
};
thread_local OpenGroup group;

int GroupStart() {
  LORAD_CHECK(!std::exchange(group, {.open = true}).open);
  return kNcclSuccess;
}

void Note(size_t count, int type, NcclComm comm, void* stream) {
  LORAD_CHECK(group.open && type == kNcclFloat);
  if (group.sent + group.received == 0) {
    group.args = ArgsOf(comm, count);
    group.stream = stream;
  }
  LORAD_CHECK(group.args.count == count && group.args.rank == RankOf(comm) &&
              group.stream == stream);
}

int Send(const void* from, size_t count, int type, int peer, NcclComm comm, void* stream) {
  Note(count, type, comm, stream);
  group.args.from[peer] = static_cast<const float*>(from);
  ++group.sent;
  return kNcclSuccess;
}

int Receive(void* to, size_t count, int type, int peer, NcclComm comm, void* stream) {
  Note(count, type, comm, stream);
  group.args.to[peer] = static_cast<float*>(to);
  ++group.received;
  return kNcclSuccess;
}

int GroupEnd() {
  LORAD_CHECK(group.open && group.sent == group.args.ranks && group.received == group.sent);
  group.open = false;
  LaunchOn(group.stream, group.args);
  return kNcclSuccess;
}

const char* ErrorText(int) { return "the fake failed"; }

}  // namespace

FakeNccl::FakeNccl(std::vector<Runtime*> devices) {
  LORAD_CHECK(world == nullptr);
  world = new World;
  world->devices = std::move(devices);
}

FakeNccl::~FakeNccl() { delete std::exchange(world, nullptr); }

NcclApi FakeNccl::api() const {
  return {.init_all = InitAll,
          .destroy = Destroy,
          .abort = Abort,
          .all_gather = AllGather,
          .send = Send,
          .receive = Receive,
          .group_start = GroupStart,
          .group_end = GroupEnd,
          .error_text = ErrorText};
}

int FakeNccl::exchanges() const {
  const std::lock_guard lock(world->mutex);
  return world->exchanges;
}
int FakeNccl::open_comms() const { return world->open; }
void FakeNccl::FailNextGather() { world->fail_gather = true; }
void FakeNccl::FailConnecting() { world->fail_init = true; }

}  // namespace lorad::kernels::cuda
