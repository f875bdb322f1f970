#include "kernels/cuda/nccl_communicator.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <utility>

#include "fmt/format.h"
#include "kernels/cuda/exchange_ops.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {

class NcclCommunicator::Group {
 public:
  Group(const NcclApi& nccl, std::vector<NcclComm> connected)
      : api(nccl), comms(std::move(connected)), in_use_(comms.size()) {}
  ~Group() {
    if (broken()) return;
    for (NcclComm comm : comms) api.destroy(comm);
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  // Ends the kernels in which ranks wait for each other.
  void Break() {
    if (broken_.exchange(true)) return;
    for (size_t rank = 0; rank < comms.size(); ++rank) {
      // Calls are short, unless a rank waits in one for another; that wait has to be ended, too.
      std::unique_lock lock(in_use_[rank], kCallTime);
      api.abort(comms[rank]);
    }
  }
  bool broken() const { return broken_.load(); }
  // While it is held the rank's part is not freed.
  std::unique_lock<std::timed_mutex> Use(int rank) {
    return std::unique_lock(in_use_[static_cast<size_t>(rank)]);
  }

  const NcclApi api;
  const std::vector<NcclComm> comms;

 private:
  static constexpr auto kCallTime = std::chrono::seconds(1);

  std::atomic<bool> broken_ = false;
  std::vector<std::timed_mutex> in_use_;  // by rank: by a call
};

// What a program keeps of an exchange.
struct NcclCommunicator::Transfer {
  enum Kind : uint64_t {
    kGather,  // everybody's [count] to everybody
    kDeal,    // slice r of everybody's [ranks, count] to rank r
  };
  Kind kind;
  const float* from;
  float* to;  // [ranks, count]
  size_t count;
};

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> NcclCommunicator::Connect(
    const NcclApi& api, std::span<CudaBackend* const> ranks, const NcclOptions& options) {
  std::vector<int> devices;
  for (const CudaBackend* rank : ranks) devices.push_back(rank->device().index);
  std::vector<NcclComm> comms(ranks.size());
  const int error = api.init_all(comms.data(), static_cast<int>(comms.size()), devices.data());
  if (error != kNcclSuccess) {
    return absl::UnavailableError(
        fmt::format("NCCL cannot connect {} devices: {}", ranks.size(), api.error_text(error)));
  }
  const auto group = std::make_shared<Group>(api, std::move(comms));
  std::vector<std::unique_ptr<Communicator>> members;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    members.push_back(std::unique_ptr<Communicator>(
        new NcclCommunicator(group, static_cast<int>(rank), ranks[rank], options)));
  }
  return members;
}

NcclCommunicator::NcclCommunicator(std::shared_ptr<Group> group, int rank, CudaBackend* backend,
                                   const NcclOptions& options)
    : group_(std::move(group)), rank_(rank), backend_(*backend), options_(options) {}

int NcclCommunicator::size() const { return static_cast<int>(group_->comms.size()); }

void NcclCommunicator::AllReduce(Tensor& x, int rows) { backend_.Sum(this, x, rows); }

void NcclCommunicator::AllGather(const Tensor& part, Tensor& whole, int rows) {
  LORAD_CHECK(int64_t{whole.cols()} <= int64_t{part.cols()} * size());
  backend_.Gather(this, part, whole, rows);
}

void NcclCommunicator::Abort() { group_->Break(); }

absl::Status NcclCommunicator::status() const {
  return group_->broken() ? absl::AbortedError("another rank failed") : absl::OkStatus();
}

// A slice of a long message must be whole vectors of four.
bool NcclCommunicator::InOneExchange(size_t count) const {
  return count * sizeof(float) <= options_.short_bytes || count % (4 * size_t(size())) != 0;
}

size_t NcclCommunicator::SumBytes(int rows, const TensorView& x) const {
  const size_t count = size_t(rows) * size_t(x.stride);
  return count * sizeof(float) * (InOneExchange(count) ? size_t(size()) : 1);
}

void NcclCommunicator::RecordSum(Program& program, int rows, const TensorView& x, void* scratch) {
  LORAD_CHECK(x.full);
  auto* const values = static_cast<float*>(x.data);
  auto* const parts = static_cast<float*>(scratch);
  const size_t count = size_t(rows) * size_t(x.stride);
  if (InOneExchange(count)) {
    Record(program, {Transfer::kGather, values, parts, count});
    LaunchAddParts(program, parts, size(), count, values);
    return;
  }
  const size_t slice = count / size_t(size());
  float* const own = values + size_t(rank_) * slice;
  Record(program, {Transfer::kDeal, values, parts, slice});
  LaunchAddParts(program, parts, size(), slice, own);
  Record(program, {Transfer::kGather, own, values, slice});
}

size_t NcclCommunicator::GatherBytes(int rows, const TensorView& part) const {
  return size_t(rows) * size_t(part.stride) * sizeof(float) * size_t(size());
}

void NcclCommunicator::RecordGather(Program& program, int rows, const TensorView& part,
                                    const TensorView& whole, void* scratch) {
  LORAD_CHECK(part.full && whole.full);
  auto* const parts = static_cast<float*>(scratch);
  Record(program, {Transfer::kGather, static_cast<const float*>(part.data), parts,
                   size_t(rows) * size_t(part.stride)});
  LaunchJoinParts(program, parts, rows, part.cols, part.stride, whole);
}

void NcclCommunicator::Record(Program& program, const Transfer& transfer) {
  program.Call(
      [](void* self, Stream stream, const void* args) {
        static_cast<NcclCommunicator*>(self)->Run(stream, *static_cast<const Transfer*>(args));
      },
      this, transfer);
}

void NcclCommunicator::Run(Stream stream, const Transfer& t) {
  const auto in_use = group_->Use(rank_);
  if (group_->broken()) return;
  const NcclApi& api = group_->api;
  const NcclComm comm = group_->comms[size_t(rank_)];
  void* const native = backend_.runtime().NativeStream(stream);
  int error = kNcclSuccess;
  const auto call = [&error](int result) {
    if (error == kNcclSuccess) error = result;
  };
  if (t.kind == Transfer::kGather) {
    call(api.all_gather(t.from, t.to, t.count, kNcclFloat, comm, native));
  } else {
    call(api.group_start());
    for (int peer = 0; peer < size(); ++peer) {
      const size_t at = size_t(peer) * t.count;
      call(api.send(t.from + at, t.count, kNcclFloat, peer, comm, native));
      call(api.receive(t.to + at, t.count, kNcclFloat, peer, comm, native));
    }
    call(api.group_end());
  }
  if (error == kNcclSuccess || group_->broken()) return;
  backend_.runtime().Fail(absl::InternalError(fmt::format("NCCL: {}", api.error_text(error))));
}

}  // namespace lorad::kernels::cuda
