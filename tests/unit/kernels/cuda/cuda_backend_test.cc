// What the CUDA backend does around its kernels, on the emulated device: results on the host,
// numbers of steps, staged images, memory that runs out.
#include "kernels/cuda/cuda_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "tests/emulator/runtime.h"

namespace lorad::kernels::cuda {
namespace {

using emulator::EmulatedRuntime;
using emulator::RuntimeOptions;

class CudaBackendTest : public testing::Test {
 protected:
  static constexpr size_t kPageBytes = 4096;
  static constexpr uint32_t kPages = 64;

  void Start(const RuntimeOptions& options = {}, size_t list_bytes = size_t{1} << 16) {
    auto runtime = std::make_unique<EmulatedRuntime>(options);
    runtime_ = runtime.get();
    auto backend = CudaBackend::Create(std::move(runtime),
                                       {.host_threads = 1, .programs = {.list_bytes = list_bytes}});
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
  }
  void MakePool() {
    pool_ = *backend_->Allocate(kPageBytes * kPages);
    slab_ = {pool_->data(), kPageBytes};
    backend_->SetPool(slab_, {.layers = 1, .kv_heads = 1, .head_dim = 16});
  }
  std::unique_ptr<Matrix> Table(int rows, int cols) {
    std::vector<float> values(size_t(rows) * size_t(cols));
    for (size_t i = 0; i < values.size(); ++i) values[i] = float(i % 251);
    const HostMatrix view{DType::kF32, values.data(), rows, cols};
    return backend_->Pack({&view, 1}, {}, WeightFormat::kBf16);
  }
  static float TableValue(int cols, int row, int col) {
    return float((size_t(row) * size_t(cols) + size_t(col)) % 251);
  }
  // The bytes of a page.
  std::vector<uint8_t> ReadPage(uint32_t page) {
    auto host = *PinnedMemory::Allocate(*runtime_, kPageBytes);
    const Stream stream = runtime_->NewStream(false);
    EXPECT_TRUE(backend_->WaitForStep(backend_->LastStep()).ok());
    runtime_->Copy(stream, host.data(), slab_.Page(page), kPageBytes);
    EXPECT_TRUE(runtime_->Synchronize(stream).ok());
    const auto* bytes = reinterpret_cast<const uint8_t*>(host.data());
    return {bytes, bytes + kPageBytes};
  }
  void TearDown() override {
    pool_.reset();
    backend_.reset();
  }

  std::unique_ptr<CudaBackend> backend_;
  EmulatedRuntime* runtime_ = nullptr;  // the backend's
  std::unique_ptr<Buffer> pool_;
  PageSlab slab_;
};

TEST_F(CudaBackendTest, AllRowsComeToTheHostTogether) {
  Start();
  const auto table = Table(30, 70);
  for (const Precision precision : {Precision::kActivation, Precision::kFull}) {
    const auto x = backend_->NewTensor(12, 70, precision);
    std::vector<int32_t> ids = {3, 29, 0, 7, 7};
    backend_->Embed(ids, *table, *x);
    std::vector<std::span<float>> rows;
    rows.push_back(backend_->HostRow(*x, 2));
    const auto copies = runtime_->counts().copies;
    for (const int row : {0, 1, 3, 4}) rows.push_back(backend_->HostRow(*x, row));
    EXPECT_EQ(runtime_->counts().copies, copies);
    const int order[] = {2, 0, 1, 3, 4};
    for (size_t i = 0; i < rows.size(); ++i) {
      ASSERT_EQ(rows[i].size(), 70u);
      for (int col = 0; col < 70; ++col) {
        EXPECT_EQ(rows[i][size_t(col)], TableValue(70, ids[size_t(order[i])], col));
      }
    }
    ids = {1, 2};
    backend_->Embed(ids, *table, *x);
    EXPECT_EQ(backend_->HostRow(*x, 1)[5], TableValue(70, 2, 5));
    EXPECT_EQ(backend_->HostRow(*x, 3)[5], TableValue(70, 7, 5));  // of before
  }
}

TEST_F(CudaBackendTest, RowsOfAProductComeTogetherToo) {
  Start();
  const auto w = Table(40, 64);
  const auto x = backend_->NewTensor(8, 64, Precision::kActivation);
  const auto y = backend_->NewTensor(8, 40, Precision::kFull);
  const std::vector<int32_t> ids = {3, 9, 0};
  backend_->Embed(ids, *w, *x);
  backend_->Linear({.rows = 3, .x = x.get(), .w = w.get(), .y = y.get()});
  backend_->HostRow(*y, 0);
  const auto copies = runtime_->counts().copies;
  float want = 0;
  for (int i = 0; i < 64; ++i) want += TableValue(64, 9, i) * TableValue(64, 5, i);
  EXPECT_EQ(backend_->HostRow(*y, 1)[5], want);
  EXPECT_NE(backend_->HostRow(*y, 2)[5], want);
  EXPECT_EQ(runtime_->counts().copies, copies);
}

TEST_F(CudaBackendTest, ANewTensorIsNotTakenForAnOldOne) {
  Start();
  const auto table = Table(4, 64);
  auto x = backend_->NewTensor(2, 64, Precision::kFull);
  const std::vector<int32_t> ids = {3, 2};
  backend_->Embed(ids, *table, *x);
  EXPECT_EQ(backend_->HostRow(*x, 0)[1], TableValue(64, 3, 1));
  x.reset();
  for (int i = 0; i < 8; ++i) {
    const auto y = backend_->NewTensor(2, 64, Precision::kFull);
    EXPECT_EQ(backend_->HostRow(*y, 0)[1], 0.0f);
  }
}

TEST_F(CudaBackendTest, StepsAreNumbered) {
  Start();
  EXPECT_EQ(backend_->LastStep(), 0u);
  EXPECT_TRUE(backend_->WaitForStep(0).ok());
  uint64_t last = 0;
  const auto table = Table(4, 8);
  const auto x = backend_->NewTensor(2, 8, Precision::kActivation);
  const std::vector<int32_t> ids = {1, 2};
  for (int i = 0; i < 200; ++i) {
    if (i % 3 > 0) backend_->Embed(ids, *table, *x);
    if (i % 3 == 2) backend_->HostRow(*x, 0);
    const uint64_t step = backend_->EndStep();
    EXPECT_GT(step, last);
    EXPECT_EQ(backend_->LastStep(), step);
    last = step;
    if (i % 2 == 0) {
      EXPECT_TRUE(backend_->WaitForStep(step).ok());
    }
  }
}

TEST_F(CudaBackendTest, TokensOfTheLastTwoStepsAreThere) {
  const auto run = [this](uint64_t seed) {
    const auto table = Table(40, 33);
    const auto logits = backend_->NewTensor(8, 33, Precision::kFull);
    std::mt19937_64 random(seed);
    std::vector<std::vector<int32_t>> ids(30);
    std::vector<std::vector<SampleRow>> rows(30);
    std::vector<uint64_t> steps;
    std::span<const int32_t> older;
    std::vector<int32_t> older_copy;
    for (size_t i = 0; i < ids.size(); ++i) {
      for (int row = 0; row < 8; ++row) ids[i].push_back(int32_t(random() % 40));
      for (size_t k = 1 + random() % 8; k > 0; --k) rows[i].push_back({.row = int(random() % 8)});
      backend_->Embed(ids[i], *table, *logits);
      if (i % 4 == 1) backend_->HostRow(*logits, 0);
      backend_->Sample(*logits, rows[i]);
      if (i % 4 == 2) backend_->HostRow(*logits, 0);
      // Those of two steps ago are valid until this one ends.
      EXPECT_TRUE(std::ranges::equal(older, older_copy));
      steps.push_back(backend_->EndStep());
      for (size_t step = i == 0 ? 0 : i - 1; step <= i; ++step) {
        if (random() % 2 == 0 && step == i) continue;
        const auto tokens = backend_->Sampled(steps[step]);
        ASSERT_TRUE(tokens.ok());
        if (step + 1 == i) {
          older = *tokens;
          older_copy.assign(older.begin(), older.end());
        }
        ASSERT_EQ(tokens->size(), rows[step].size());
        for (size_t k = 0; k < rows[step].size(); ++k) {
          int best = 0;
          const int row = ids[step][size_t(rows[step][k].row)];
          for (int col = 1; col < 33; ++col) {
            if (TableValue(33, row, col) > TableValue(33, row, best)) best = col;
          }
          EXPECT_EQ((*tokens)[k], best);
        }
      }
    }
  };
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Start({.order_seed = seed});
    run(seed);
    TearDown();
  }
}

TEST_F(CudaBackendTest, LargeMatricesGoUpInParts) {
  Start();
  const int rows = 40000, cols = 500;  // 39 MiB
  const auto table = Table(rows, cols);
  const auto x = backend_->NewTensor(6, cols, Precision::kActivation);
  const std::vector<int32_t> ids = {0, 1, 16384, 20000, 32768, rows - 1};
  backend_->Embed(ids, *table, *x);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto row = backend_->HostRow(*x, int(i));
    for (int col = 0; col < cols; ++col) {
      ASSERT_EQ(row[size_t(col)], TableValue(cols, ids[i], col)) << ids[i];
    }
  }
}

TEST_F(CudaBackendTest, ListsLongerThanTheBlockGrowIt) {
  Start({}, /*list_bytes=*/1024);
  const auto table = Table(50, 8);
  const auto x = backend_->NewTensor(3000, 8, Precision::kActivation);
  std::vector<int32_t> ids(3000);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i * 7 % 50);
  backend_->Embed(ids, *table, *x);
  EXPECT_EQ(backend_->HostRow(*x, 2999)[3], TableValue(8, ids[2999], 3));
  EXPECT_EQ(backend_->HostRow(*x, 1000)[3], TableValue(8, ids[1000], 3));
  EXPECT_TRUE(backend_->status().ok());
}

// --- Pages and images ---

// An image of six pages: site 1 begins in the first, site 3 in the fifth.
AdapterLayout SixPages() {
  AdapterLayout layout{.image_bytes = 6 * 4096, .pages = 6};
  const auto add = [&](uint32_t site, uint64_t a, uint64_t b) {
    layout.modules.push_back({.site = site,
                              .rank = 1,
                              .a = {.offset = a, .row_bytes = 512, .rows = 2},
                              .b = {.offset = b, .row_bytes = 512, .rows = 1}});
  };
  add(0, 0, 1024);
  add(1, 2048, 2 * 4096);
  add(3, 4 * 4096, 5 * 4096 + 3584);
  layout.site_begin = {0, 1, 2, 2, 3};
  return layout;
}

TEST(SiteEndsTest, ASiteEndsWhereTheNextOneBegins) {
  EXPECT_EQ(SiteEnds(SixPages()), (std::vector<uint64_t>{2048, 4 * 4096, 4 * 4096, 6 * 4096}));
}

TEST_F(CudaBackendTest, ImagesGoToTheirPagesAfterWhatWasThere) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Start({.order_seed = seed});
    MakePool();
    const AdapterLayout layout = SixPages();
    const std::vector<uint32_t> pages = {9, 10, 11, 40, 3, 4};
    auto image = *backend_->AllocateStaging(6 * kPageBytes);
    for (size_t i = 0; i < 6; ++i) {
      std::memset(image->data() + i * kPageBytes, int(i + 1), kPageBytes);
    }
    // The pages are poisoned; a step copies what is there elsewhere; then the image may come.
    backend_->PoisonPages(pages);
    const std::vector<PageCopy> copies = {{9, 50}, {40, 51}, {4, 52}};
    backend_->CopyPages(copies);
    const uint64_t step = backend_->EndStep();
    auto transfer =
        backend_->StartTransfer(layout, {image->data(), image->bytes()}, slab_, pages, step);
    if (seed % 2 == 0) {
      EXPECT_TRUE(transfer->Wait().ok());
      EXPECT_TRUE(transfer->Done());
    }
    transfer.reset();  // waits, so the image may go
    image.reset();
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(ReadPage(pages[i]), std::vector<uint8_t>(kPageBytes, uint8_t(i + 1))) << i;
    }
    for (const PageCopy& copy : copies) {
      EXPECT_EQ(ReadPage(copy.to), std::vector<uint8_t>(kPageBytes, 0xff)) << copy.from;
    }
    TearDown();
  }
}

// An adapter's expansion and the activation that follows are one kernel where they can be, and give
// the same bits where something comes between them.
TEST_F(CudaBackendTest, AnActivationExpandsWhatComesBefore) {
  constexpr int kInputs = 64, kRows = 5;
  const auto values = [](int count, int modulus, float unit) {
    std::vector<float> v;
    for (int i = 0; i < count; ++i) v.push_back(float(i % modulus - 2) * unit);
    return v;
  };
  struct Case {
    int ffn = 48;
    int activated = kRows;
    Precision precision = Precision::kActivation;
    bool of_another = false;  // the activation is of another tensor
  };
  // How many launches are saved where nothing comes between the two.
  const auto saved = [&](const Case& c) {
    const int ffn = c.ffn;
    const auto a = values(4 * kInputs, 7, 0.25f), b = values(4 * ffn, 5, 0.125f);
    const auto weights = values(2 * ffn * kInputs, 11, 0.01f);
    const std::vector<LowRankFactors> factors = {{.site = 0,
                                                  .out_begin = uint32_t(ffn),
                                                  .scale = 0.5f,
                                                  .a = {DType::kF32, a.data(), 4, kInputs},
                                                  .b = {DType::kF32, b.data(), ffn, 4}}};
    const AdapterLayout layout = backend_->PlanAdapter(factors, 1, kPageBytes);
    std::vector<uint32_t> pages(layout.pages);
    std::iota(pages.begin(), pages.end(), 7);
    backend_->PackAdapter(layout, factors, slab_, pages);
    const std::vector<AdapterSegment> segments = {
        {.first_row = 1, .end_row = 3, .layout = &layout, .pages = pages}};
    const HostMatrix view{DType::kF32, weights.data(), 2 * ffn, kInputs};
    const auto w = backend_->Pack({&view, 1}, {}, WeightFormat::kBf16);
    const auto x = backend_->NewTensor(kRows, kInputs, Precision::kActivation);
    const auto y = backend_->NewTensor(kRows, 2 * ffn, c.precision);
    const auto other = backend_->NewTensor(kRows, 2 * ffn, c.precision);
    const Tensor& gate_up = c.of_another ? *other : *y;
    const auto out = backend_->NewTensor(kRows, ffn, Precision::kActivation);
    const std::vector<int32_t> ids = {0, 1, 2, 3, 4};
    backend_->Embed(ids, *w, *x);
    backend_->Linear({.rows = kRows, .x = x.get(), .w = w.get(), .y = other.get()});
    backend_->HostRow(*other, 0);

    std::vector<std::vector<float>> results;
    std::vector<int64_t> launches;
    for (const bool apart : {true, false}) {
      const auto before = runtime_->counts().launches;
      backend_->Linear(
          {.rows = kRows, .x = x.get(), .w = w.get(), .y = y.get(), .segments = segments});
      if (apart) backend_->HostRow(*y, 0);
      backend_->SwiGlu(c.activated, gate_up, *out);
      for (int row = 0; row < c.activated; ++row) {
        const auto got = backend_->HostRow(*out, row);
        results.emplace_back(got.begin(), got.end());
      }
      launches.push_back(runtime_->counts().launches - before);
    }
    const size_t half = results.size() / 2;
    for (size_t row = 0; row < half; ++row) EXPECT_EQ(results[row], results[half + row]) << row;
    return launches[0] - launches[1];
  };
  Start();
  MakePool();
  EXPECT_EQ(saved({}), 1);
  EXPECT_EQ(saved({.ffn = 44}), 0);  // columns that fill no vector
  EXPECT_EQ(saved({.activated = 3}), 0);
  EXPECT_EQ(saved({.precision = Precision::kFull}), 0);
  EXPECT_EQ(saved({.of_another = true}), 0);
}

TEST_F(CudaBackendTest, PoisonComesAfterWhatWasGivenBefore) {
  Start();
  MakePool();
  const std::vector<uint32_t> pages = {1};
  const std::vector<PageCopy> copies = {{1, 2}};
  backend_->CopyPages(copies);
  backend_->PoisonPages(pages);
  backend_->EndStep();
  EXPECT_EQ(ReadPage(2), std::vector<uint8_t>(kPageBytes, 0));
  EXPECT_EQ(ReadPage(1), std::vector<uint8_t>(kPageBytes, 0xff));
}

TEST_F(CudaBackendTest, AnImageNeverLosesToPoisonGivenBefore) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Start({.order_seed = seed});
    MakePool();
    const uint64_t before = backend_->EndStep();
    const std::vector<uint32_t> pages = {0, 1, 2, 3, 4, 5};
    auto image = *backend_->AllocateStaging(6 * kPageBytes);
    std::memset(image->data(), 7, image->bytes());
    backend_->PoisonPages(pages);
    auto transfer =
        backend_->StartTransfer(SixPages(), {image->data(), image->bytes()}, slab_, pages, before);
    EXPECT_TRUE(transfer->Wait().ok());
    EXPECT_EQ(ReadPage(2), std::vector<uint8_t>(kPageBytes, 7));
    transfer.reset();
    image.reset();
    TearDown();
  }
}

// --- What goes wrong ---

TEST_F(CudaBackendTest, MemoryThatRunsOutIsReportedAtLoadTime) {
  RuntimeOptions options;
  options.facts.memory_bytes = size_t{8} << 20;
  Start(options);
  EXPECT_GT(backend_->FreeBytes(), size_t{4} << 20);
  EXPECT_TRUE(absl::IsResourceExhausted(backend_->Allocate(size_t{1} << 30).status()));
  EXPECT_TRUE(backend_->status().ok());  // whoever asked was told
  const auto table = Table(4, 8);
  const auto small = backend_->NewTensor(2, 8, Precision::kFull);
  const auto large = backend_->NewTensor(1 << 20, 8, Precision::kFull);
  EXPECT_TRUE(absl::IsResourceExhausted(backend_->status()));
  const std::vector<int32_t> ids = {1};
  backend_->Embed(ids, *table, *large);
  EXPECT_EQ(backend_->HostRow(*small, 0)[0], 0.0f);
  EXPECT_TRUE(absl::IsResourceExhausted(backend_->WaitForStep(backend_->EndStep())));
}

TEST_F(CudaBackendTest, PinnedMemoryThatRunsOutIsAnError) {
  RuntimeOptions options;
  options.host_bytes = size_t{18} << 20;  // enough for the start and an upload
  Start(options);
  EXPECT_TRUE(absl::IsResourceExhausted(backend_->AllocateStaging(size_t{1} << 30).status()));
  const auto table = Table(4, 64);
  const auto x = backend_->NewTensor(1 << 14, 64, Precision::kFull);
  const std::vector<int32_t> ids = {1};
  backend_->Embed(ids, *table, *x);
  EXPECT_EQ(backend_->HostRow(*x, 0).size(), 64u);
  EXPECT_TRUE(absl::IsResourceExhausted(backend_->status()));
}

TEST_F(CudaBackendTest, AFailureEndsEverything) {
  Start();
  const auto table = Table(4, 8);
  const auto x = backend_->NewTensor(2, 8, Precision::kActivation);
  const std::vector<int32_t> ids = {1, 2};
  runtime_->FailAfter(0);
  backend_->Embed(ids, *table, *x);
  EXPECT_FALSE(backend_->WaitForStep(backend_->EndStep()).ok());
  const auto launches = runtime_->counts().launches;
  for (int i = 0; i < 5; ++i) {
    backend_->Embed(ids, *table, *x);
    backend_->HostRow(*x, 0);
    EXPECT_FALSE(backend_->WaitForStep(backend_->EndStep()).ok());
  }
  EXPECT_EQ(runtime_->counts().launches, launches);
}

TEST_F(CudaBackendTest, Fp8HalvesKeysAndValues) {
  auto fp8 = *CudaBackend::Create(std::make_unique<EmulatedRuntime>(),
                                  {.kv_format = KvFormat::kFp8, .host_threads = 1});
  Start();
  const KvGeometry geometry{.layers = 32, .kv_heads = 8, .head_dim = 128, .page_tokens = 16};
  EXPECT_EQ(backend_->KvPageBytes(geometry), size_t{2} << 20);
  EXPECT_LE(fp8->KvPageBytes(geometry), (size_t{2} << 20) * 17 / 32);
}

}  // namespace
}  // namespace lorad::kernels::cuda
