// The in-process group: sums and gathers against loops, over tensors of both CPU backends, in any
// order of arrival; and that a broken group keeps nobody.
#include "kernels/communicator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "kernels/host_rows.h"
#include "memory/base/check.h"

namespace lorad::kernels {
namespace {

using Rows = std::vector<std::vector<float>>;
using Communicators = std::vector<std::unique_ptr<Communicator>>;

std::unique_ptr<Backend> NewBackend(bool reference) {
  if (reference) return NewReferenceBackend();
  auto backend = NewCpuBackend({.threads = 1, .isa = "portable"});
  LORAD_CHECK(backend.ok());
  return *std::move(backend);
}

// Runs fn(rank) on a thread for each rank.
void OnEachRank(int ranks, const std::function<void(int)>& fn) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back([&fn, rank] { fn(rank); });
  for (std::thread& thread : threads) thread.join();
}

Rows RandomRows(int rows, int cols, std::mt19937& random) {
  // Of very different sizes, so that the order of a sum shows in its bits.
  std::uniform_real_distribution<float> mantissa(-1, 1);
  std::uniform_int_distribution<int> exponent(-12, 12);
  Rows values(static_cast<size_t>(rows), std::vector<float>(static_cast<size_t>(cols)));
  for (auto& row : values) {
    for (float& x : row) x = std::ldexp(mantissa(random), exponent(random));
  }
  return values;
}

void Fill(Tensor& tensor, const Rows& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    std::ranges::copy(values[i],
                      static_cast<HostRows&>(tensor).HostRow(static_cast<int>(i)).begin());
  }
}

Rows Read(const Tensor& tensor) {
  Rows rows;
  for (int i = 0; i < tensor.max_rows(); ++i) {
    const auto row = static_cast<const HostRows&>(tensor).HostRow(i);
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}

class ThreadCommunicatorTest : public ::testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<Tensor> NewTensor(const Rows& values) {
    auto tensor =
        backend_->NewTensor(static_cast<int>(values.size()), static_cast<int>(values[0].size()));
    Fill(*tensor, values);
    return tensor;
  }

  std::unique_ptr<Backend> backend_ = NewBackend(GetParam());
};

TEST_P(ThreadCommunicatorTest, SumsInTheOrderOfRanks) {
  std::mt19937 random(1);
  for (int ranks = 1; ranks <= 5; ++ranks) {
    const Communicators group = NewThreadCommunicators(ranks);
    for (const int cols : {1, 15, 16, 17, 33, 64, 200}) {
      const int max_rows = 7, rows = std::uniform_int_distribution(0, max_rows)(random);
      std::vector<Rows> before;
      std::vector<std::unique_ptr<Tensor>> tensors;
      for (int rank = 0; rank < ranks; ++rank) {
        before.push_back(RandomRows(max_rows, cols, random));
        tensors.push_back(NewTensor(before.back()));
      }
      OnEachRank(ranks, [&](int rank) {
        EXPECT_EQ(group[static_cast<size_t>(rank)]->rank(), rank);
        EXPECT_EQ(group[static_cast<size_t>(rank)]->size(), ranks);
        group[static_cast<size_t>(rank)]->AllReduce(*tensors[static_cast<size_t>(rank)], rows);
      });
      for (size_t rank = 0; rank < tensors.size(); ++rank) {
        Rows expected = before[rank];  // beyond `rows` nothing changes
        for (size_t i = 0; i < static_cast<size_t>(rows); ++i) {
          for (size_t c = 0; c < static_cast<size_t>(cols); ++c) {
            float sum = before[0][i][c];
            for (size_t r = 1; r < before.size(); ++r) sum += before[r][i][c];
            expected[i][c] = sum;
          }
        }
        EXPECT_EQ(Read(*tensors[rank]), expected)
            << "rank " << rank << " of " << ranks << ", " << rows << " x " << cols;
      }
    }
  }
}

TEST_P(ThreadCommunicatorTest, GathersPartsAndDropsWhatIsBeyond) {
  std::mt19937 random(2);
  for (int ranks = 1; ranks <= 5; ++ranks) {
    const Communicators group = NewThreadCommunicators(ranks);
    for (const int width : {1, 5, 16, 40}) {
      for (const int dropped : {0, 1, width - 1, width + 1}) {
        const int cols = ranks * width - dropped;
        if (cols < 1) continue;
        const int max_rows = 4, rows = std::uniform_int_distribution(0, max_rows)(random);
        std::vector<Rows> parts;
        std::vector<std::unique_ptr<Tensor>> part_tensors, whole_tensors;
        const Rows before = RandomRows(max_rows, cols, random);
        for (int rank = 0; rank < ranks; ++rank) {
          parts.push_back(RandomRows(max_rows, width, random));
          part_tensors.push_back(NewTensor(parts.back()));
          whole_tensors.push_back(NewTensor(before));
        }
        OnEachRank(ranks, [&](int rank) {
          const auto r = static_cast<size_t>(rank);
          group[r]->AllGather(*part_tensors[r], *whole_tensors[r], rows);
        });
        Rows expected = before;
        for (size_t i = 0; i < static_cast<size_t>(rows); ++i) {
          for (int c = 0; c < cols; ++c) {
            expected[i][static_cast<size_t>(c)] =
                parts[static_cast<size_t>(c / width)][i][static_cast<size_t>(c % width)];
          }
        }
        for (size_t r = 0; r < parts.size(); ++r) {
          EXPECT_EQ(Read(*whole_tensors[r]), expected) << "rank " << r << " of " << ranks;
          EXPECT_EQ(Read(*part_tensors[r]), parts[r]);
        }
      }
    }
  }
}

// Many operations in a row, ranks arriving in any order: none reads what another has already
// overwritten for the next.
TEST_P(ThreadCommunicatorTest, OneOperationAfterTheOther) {
  constexpr int kRanks = 3, kSteps = 300, kCols = 50;
  const Communicators group = NewThreadCommunicators(kRanks);
  OnEachRank(kRanks, [&](int rank) {
    const auto r = static_cast<size_t>(rank);
    auto sum = backend_->NewTensor(1, kCols);
    auto part = backend_->NewTensor(1, kCols);
    auto whole = backend_->NewTensor(1, kRanks * kCols);
    std::mt19937 random(static_cast<unsigned>(rank));
    for (int step = 0; step < kSteps; ++step) {
      Fill(*sum, {std::vector<float>(kCols, static_cast<float>(step * (rank + 1)))});
      group[r]->AllReduce(*sum, 1);
      EXPECT_EQ(Read(*sum)[0], std::vector<float>(kCols, static_cast<float>(step * 6)));
      if (random() % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
      Fill(*part, {std::vector<float>(kCols, static_cast<float>(step * 10 + rank))});
      group[r]->AllGather(*part, *whole, 1);
      const std::vector<float> all = Read(*whole)[0];
      for (int c = 0; c < kRanks * kCols; ++c) {
        ASSERT_EQ(all[static_cast<size_t>(c)], static_cast<float>(step * 10 + c / kCols));
      }
    }
  });
}

TEST_P(ThreadCommunicatorTest, AbortSendsEverybodyHome) {
  constexpr int kRanks = 4;
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    const Communicators group = NewThreadCommunicators(kRanks);
    std::vector<std::unique_ptr<Tensor>> tensors;
    for (int rank = 0; rank < kRanks; ++rank) tensors.push_back(NewTensor(Rows(3, {1, 2, 3})));
    const int fails_at = std::uniform_int_distribution(0, 30)(random);
    std::atomic<int> home = 0;
    OnEachRank(kRanks, [&](int rank) {
      Communicator& self = *group[static_cast<size_t>(rank)];
      for (int step = 0; self.status().ok(); ++step) {
        if (rank == 2 && step == fails_at) return self.Abort();
        self.AllReduce(*tensors[static_cast<size_t>(rank)], 3);
      }
      ++home;
      EXPECT_EQ(self.status().code(), absl::StatusCode::kAborted);
      self.AllReduce(*tensors[static_cast<size_t>(rank)], 3);  // returns at once
    });
    EXPECT_EQ(home, kRanks - 1);
    EXPECT_FALSE(group[2]->status().ok());
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ThreadCommunicatorTest, ::testing::Bool(),
                         [](const auto& param) { return param.param ? "reference" : "cpu"; });

}  // namespace
}  // namespace lorad::kernels
