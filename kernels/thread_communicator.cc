// Ranks as threads of one process, tensors in its memory. The ranks meet before an operation, when
// all tensors are ready, and after it, when all have been read.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "kernels/communicator.h"
#include "kernels/host_rows.h"
#include "memory/base/check.h"

namespace lorad::kernels {
namespace {

// Where threads wait for each other, again and again, unless it is broken.
class MeetingPoint {
 public:
  explicit MeetingPoint(int size) : size_(size) {}

  // Returns when all have arrived; false: it is broken.
  bool Arrive() {
    // Before the others can know that this thread is here, so no meeting can be missed.
    const int meeting = meeting_.load();
    if (broken_.load()) return false;
    if (arrived_.fetch_add(1) + 1 == size_) {
      arrived_.store(0);
      meeting_.fetch_add(1);
      meeting_.notify_all();
    } else {
      meeting_.wait(meeting);  // spins a little, then sleeps
    }
    return !broken_.load();
  }

  void Break() {
    broken_.store(true);
    meeting_.fetch_add(1);
    meeting_.notify_all();
  }
  bool broken() const { return broken_.load(); }

 private:
  const int size_;
  std::atomic<int> arrived_ = 0;
  std::atomic<int> meeting_ = 0;  // the number of the one that is awaited
  std::atomic<bool> broken_ = false;
};

// What the ranks share. A rank writes its own pointers before a meeting and reads the others' after
// it.
struct Group {
  explicit Group(int size)
      : meeting(size), tensors(static_cast<size_t>(size)), parts(static_cast<size_t>(size)) {}

  MeetingPoint meeting;
  std::vector<HostRows*> tensors;      // of AllReduce, by rank
  std::vector<const HostRows*> parts;  // of AllGather, by rank
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Group> group, int rank)
      : group_(std::move(group)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(group_->tensors.size()); }

  void AllReduce(Tensor& x, int rows) override {
    LORAD_CHECK(rows <= x.max_rows());
    group_->tensors[static_cast<size_t>(rank_)] = &static_cast<HostRows&>(x);
    if (!group_->meeting.Arrive()) return;
    for (const HostRows* other : group_->tensors) LORAD_CHECK(other->cols() == x.cols());
    // Each rank adds up a slice of the columns and writes it to everybody.
    const auto [begin, end] = Slice(x.cols());
    for (int row = 0; row < rows && begin < end; ++row) AddUp(row, begin, end);
    group_->meeting.Arrive();
  }

  void AllGather(const Tensor& part, Tensor& whole, int rows) override {
    LORAD_CHECK(rows <= part.max_rows() && rows <= whole.max_rows());
    LORAD_CHECK(int64_t{whole.cols()} <= int64_t{part.cols()} * size());
    group_->parts[static_cast<size_t>(rank_)] = &static_cast<const HostRows&>(part);
    if (!group_->meeting.Arrive()) return;
    const int width = part.cols();
    for (const HostRows* other : group_->parts) LORAD_CHECK(other->cols() == width);
    for (int row = 0; row < rows; ++row) {
      const std::span<float> out = static_cast<HostRows&>(whole).HostRow(row);
      for (int r = 0; r < size() && r * width < whole.cols(); ++r) {
        const int cols = std::min(width, whole.cols() - r * width);
        const std::span<const float> in = group_->parts[static_cast<size_t>(r)]->HostRow(row);
        std::copy_n(in.begin(), cols, out.begin() + r * width);
      }
    }
    group_->meeting.Arrive();
  }

  void Abort() override { group_->meeting.Break(); }
  absl::Status status() const override {
    return group_->meeting.broken() ? absl::AbortedError("another rank failed") : absl::OkStatus();
  }

 private:
  // This rank's share of the columns, in whole cache lines.
  std::pair<int, int> Slice(int cols) const {
    constexpr int kLine = 16;
    const int lines = (cols + kLine - 1) / kLine;
    return {std::min(cols, lines * rank_ / size() * kLine),
            std::min(cols, lines * (rank_ + 1) / size() * kLine)};
  }

  void AddUp(int row, int begin, int end) {
    const auto columns = [&](HostRows* tensor) { return tensor->HostRow(row).data() + begin; };
    const int count = end - begin;
    sum_.assign(columns(group_->tensors[0]), columns(group_->tensors[0]) + count);
    for (size_t r = 1; r < group_->tensors.size(); ++r) {
      const float* in = columns(group_->tensors[r]);
      for (int i = 0; i < count; ++i) sum_[static_cast<size_t>(i)] += in[i];
    }
    for (HostRows* tensor : group_->tensors) std::ranges::copy(sum_, columns(tensor));
  }

  const std::shared_ptr<Group> group_;
  const int rank_;
  std::vector<float> sum_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> NewThreadCommunicators(int size) {
  LORAD_CHECK(size >= 1);
  const auto group = std::make_shared<Group>(size);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.push_back(std::make_unique<ThreadCommunicator>(group, rank));
  }
  return ranks;
}

}  // namespace lorad::kernels
