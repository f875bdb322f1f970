// Groups of CUDA backends: sums and gathers on emulated devices over a fake NCCL, short and long
// ones with the same bits; and what becomes of errors.
#include "kernels/cuda/nccl_communicator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/emulator/runtime.h"
#include "tests/unit/kernels/cuda/fake_nccl.h"

namespace lorad::kernels::cuda {
namespace {

using Rows = std::vector<std::vector<float>>;

struct Devices {
  Devices(int ranks, uint64_t seed) {
    std::vector<Runtime*> runtimes;
    for (int rank = 0; rank < ranks; ++rank) {
      emulator::RuntimeOptions options{.order_seed = seed + static_cast<uint64_t>(rank)};
      options.facts.index = rank;
      auto runtime = std::make_unique<emulator::EmulatedRuntime>(options);
      runtimes.push_back(runtime.get());
      emulated.push_back(runtime.get());
      auto backend = CudaBackend::Create(std::move(runtime), {.host_threads = 1});
      EXPECT_TRUE(backend.ok()) << backend.status();
      owned.push_back(*std::move(backend));
      backends.push_back(owned.back().get());
    }
    nccl = std::make_unique<FakeNccl>(std::move(runtimes));
  }

  int size() const { return static_cast<int>(backends.size()); }
  // A thread for each rank.
  void OnEach(const std::function<void(size_t)>& fn) {
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < backends.size(); ++rank) threads.emplace_back(fn, rank);
    for (std::thread& thread : threads) thread.join();
  }

  std::unique_ptr<FakeNccl> nccl;  // after the backends, whose last work it runs
  std::vector<std::unique_ptr<CudaBackend>> owned;
  std::vector<CudaBackend*> backends;
  std::vector<emulator::EmulatedRuntime*> emulated;
};

// A table of numbers that bf16 holds, of very different sizes: the order of a sum shows.
class Table {
 public:
  Table(int rows, int cols, unsigned seed) : cols_(cols) {
    std::mt19937 random(seed);
    for (int i = 0; i < rows * cols; ++i) {
      const float value = std::ldexp(static_cast<float>(static_cast<int>(random() % 255) - 127),
                                     static_cast<int>(random() % 21) - 10);
      uint32_t word;
      std::memcpy(&word, &value, 4);
      bits_.push_back(static_cast<uint16_t>(word >> 16));
    }
  }
  float At(int row, int col) const {
    const uint32_t word = uint32_t{bits_[static_cast<size_t>(row * cols_ + col)]} << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
  }
  // Rows 0 .. rows of a tensor.
  std::unique_ptr<Tensor> Upload(Backend& backend, int rows) {
    const HostMatrix matrix{DType::kBF16, bits_.data(), static_cast<int64_t>(bits_.size()) / cols_,
                            cols_};
    table_ = backend.Pack(std::span(&matrix, 1), {});
    ids_.clear();
    for (int i = 0; i < rows; ++i) ids_.push_back(i);
    auto tensor = backend.NewTensor(rows, cols_, Precision::kFull);
    backend.Embed(ids_, *table_, *tensor);
    return tensor;
  }

 private:
  const int cols_;
  std::vector<uint16_t> bits_;
  std::vector<int32_t> ids_;
  std::unique_ptr<Matrix> table_;
};

Rows Read(Backend& backend, Tensor& tensor) {
  Rows rows;
  for (int i = 0; i < tensor.max_rows(); ++i) {
    const auto row = backend.HostRow(tensor, i);
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}

TEST(NcclCommunicatorTest, SumsInTheOrderOfRanksHoweverLong) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const size_t short_bytes : {size_t{0}, size_t{1} << 20}) {
      Devices devices(ranks, 10 * static_cast<uint64_t>(ranks));
      auto group = NcclCommunicator::Connect(devices.nccl->api(), devices.backends,
                                             {.short_bytes = short_bytes});
      ASSERT_TRUE(group.ok()) << group.status();
      int exchanges = 0;
      for (const auto& [rows, cols] : {std::pair(1, 64), {3, 65}, {5, 200}, {17, 64}}) {
        std::vector<Table> tables;
        for (int rank = 0; rank < ranks; ++rank) {
          tables.emplace_back(rows, cols, static_cast<unsigned>(rank + rows));
        }
        std::vector<Rows> results(static_cast<size_t>(ranks));
        devices.OnEach([&](size_t rank) {
          Backend& backend = *devices.backends[rank];
          const auto x = tables[rank].Upload(backend, rows);
          EXPECT_EQ((*group)[rank]->rank(), static_cast<int>(rank));
          EXPECT_EQ((*group)[rank]->size(), ranks);
          (*group)[rank]->AllReduce(*x, rows);
          results[rank] = Read(backend, *x);
          backend.EndStep();
        });
        for (const Rows& result : results) {
          for (int i = 0; i < rows; ++i) {
            for (int c = 0; c < cols; ++c) {
              float sum = tables[0].At(i, c);
              for (size_t r = 1; r < tables.size(); ++r) sum += tables[r].At(i, c);
              ASSERT_EQ(result[static_cast<size_t>(i)][static_cast<size_t>(c)], sum)
                  << ranks << " ranks, " << rows << " x " << cols << " at " << i << ", " << c;
            }
          }
        }
        // Three ranks cannot slice rows of 64 or 192 columns into vectors... but of 64 * 3 they
        // can.
        const int stride = (cols + 63) / 64 * 64;
        exchanges += short_bytes == 0 && rows * stride % (4 * ranks) == 0 ? 2 : 1;
        EXPECT_EQ(devices.nccl->exchanges(), exchanges);
      }
      group->clear();
      EXPECT_EQ(devices.nccl->open_comms(), 0);
    }
  }
}

TEST(NcclCommunicatorTest, GathersPartsAndDropsWhatIsBeyond) {
  for (const int ranks : {1, 2, 3}) {
    Devices devices(ranks, 5);
    auto group = NcclCommunicator::Connect(devices.nccl->api(), devices.backends);
    ASSERT_TRUE(group.ok()) << group.status();
    for (const auto& [rows, width, dropped] :
         {std::tuple(1, 64, 0), {4, 65, 1}, {3, 5, 4}, {2, 300, 0}, {2, 33, 34}}) {
      const int cols = ranks * width - dropped;
      if (cols < 1) continue;
      std::vector<Table> tables;
      for (int rank = 0; rank < ranks; ++rank) {
        tables.emplace_back(rows, width, static_cast<unsigned>(rank));
      }
      devices.OnEach([&](size_t rank) {
        Backend& backend = *devices.backends[rank];
        const auto part = tables[rank].Upload(backend, rows);
        const auto whole = backend.NewTensor(rows, cols, Precision::kFull);
        (*group)[rank]->AllGather(*part, *whole, rows);
        const Rows result = Read(backend, *whole);
        backend.EndStep();
        for (int i = 0; i < rows; ++i) {
          for (int c = 0; c < cols; ++c) {
            ASSERT_EQ(result[static_cast<size_t>(i)][static_cast<size_t>(c)],
                      tables[static_cast<size_t>(c / width)].At(i, c % width));
          }
        }
      });
    }
  }
}

TEST(NcclCommunicatorTest, ADeviceThatFailsEndsTheWaitOfTheOthers) {
  Devices devices(3, 1);
  auto group = NcclCommunicator::Connect(devices.nccl->api(), devices.backends);
  ASSERT_TRUE(group.ok()) << group.status();
  std::vector<Table> tables;
  for (unsigned rank = 0; rank < 3; ++rank) tables.emplace_back(2, 64, rank);
  devices.OnEach([&](size_t rank) {
    Backend& backend = *devices.backends[rank];
    const auto x = tables[rank].Upload(backend, 2);
    if (rank == 1) devices.emulated[1]->FailAfter(0);
    (*group)[rank]->AllReduce(*x, 2);
    const absl::Status status = backend.WaitForStep(backend.EndStep());
    EXPECT_EQ(status.ok(), rank != 1);
    if (!status.ok()) (*group)[rank]->Abort();
  });
  for (const auto& member : *group) {
    EXPECT_EQ(member->status().code(), absl::StatusCode::kAborted);
  }
  EXPECT_EQ(devices.nccl->open_comms(), 0);
  // Whoever goes on gets garbage, but does not hang.
  devices.OnEach([&](size_t rank) {
    if (rank == 1) return;
    Backend& backend = *devices.backends[rank];
    const auto x = tables[rank].Upload(backend, 2);
    (*group)[rank]->AllReduce(*x, 2);
    EXPECT_TRUE(backend.WaitForStep(backend.EndStep()).ok());
  });
}

TEST(NcclCommunicatorTest, ErrorsOfTheLibraryAreTheDevices) {
  Devices devices(1, 1);
  auto group = NcclCommunicator::Connect(devices.nccl->api(), devices.backends);
  ASSERT_TRUE(group.ok()) << group.status();
  Table table(1, 64, 1);
  const auto x = table.Upload(*devices.backends[0], 1);
  devices.nccl->FailNextGather();
  (*group)[0]->AllReduce(*x, 1);
  const absl::Status status = devices.backends[0]->WaitForStep(devices.backends[0]->EndStep());
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(std::string(status.message()), "NCCL: the fake failed");
}

TEST(NcclCommunicatorTest, DevicesThatCannotBeConnectedAreAnError) {
  Devices devices(2, 1);
  devices.nccl->FailConnecting();
  const auto group = NcclCommunicator::Connect(devices.nccl->api(), devices.backends);
  EXPECT_EQ(group.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(std::string(group.status().message()),
            "NCCL cannot connect 2 devices: the fake failed");
}

}  // namespace
}  // namespace lorad::kernels::cuda
