// Products by a library: what it is asked for, on a fake of the library that multiplies as
// cublasLt's documentation says; which algorithm is chosen; what is kept in the file.
#include "kernels/cuda/cublas_matmul.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/cuda/gemm_choices.h"
#include "kernels/cuda/program.h"

namespace lorad::kernels::cuda {
namespace {

// --- A fake library, column-major as the real one ---

struct FakeAlgorithm {
  uint64_t id = 0;
  float milliseconds = 1;
  int most_rows = 1 << 20;  // that it can do
};

struct FakeLt {
  std::vector<FakeAlgorithm> algorithms;
  bool offers = true;  // candidates at all
  bool works = true;
  std::vector<uint64_t> multiplied;  // ids, 0: the library's own choice
  float last_milliseconds = 0;
  int objects = 0;
};
FakeLt fake;

struct FakeOperation {
  int transpose_a = 0;
  uint32_t epilogue = 1;
  const void* bias = nullptr;
};
struct FakeLayout {
  int type;
  int64_t rows, cols, stride;
};
FakeOperation* Of(LtOperation o) { return reinterpret_cast<FakeOperation*>(o); }
FakeLayout* Of(LtLayout l) { return reinterpret_cast<FakeLayout*>(l); }

float Load(const void* data, int type, int64_t at) {
  if (type == kLtFloat) return static_cast<const float*>(data)[at];
  EXPECT_EQ(type, kLtBf16);
  const uint32_t bits = uint32_t{static_cast<const uint16_t*>(data)[at]} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
uint16_t Bf16(float value) {  // of values that need no rounding
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>(bits >> 16);
}
void Store(void* data, int type, int64_t at, float value) {
  if (type == kLtFloat) {
    static_cast<float*>(data)[at] = value;
  } else {
    static_cast<uint16_t*>(data)[at] = Bf16(value);
  }
}

int Matmul(LtHandle, LtOperation operation, const void* alpha, const void* a, LtLayout a_layout,
           const void* b, LtLayout b_layout, const void* beta, const void* c, LtLayout c_layout,
           void* d, LtLayout d_layout, const LtAlgorithm* algorithm, void* workspace,
           size_t workspace_bytes, void*) {
  const FakeLayout& la = *Of(a_layout);
  const FakeLayout& lb = *Of(b_layout);
  const FakeLayout& lc = *Of(c_layout);
  const FakeLayout& ld = *Of(d_layout);
  EXPECT_NE(workspace, nullptr);
  EXPECT_GT(workspace_bytes, 0u);
  const uint64_t id = algorithm == nullptr ? 0 : algorithm->data[0];
  fake.multiplied.push_back(id);
  if (!fake.works) return 13;
  if (algorithm != nullptr) {
    const auto known = std::ranges::find(fake.algorithms, id, &FakeAlgorithm::id);
    if (known == fake.algorithms.end() || lb.cols > known->most_rows) return 15;
    fake.last_milliseconds = known->milliseconds;
  }
  EXPECT_EQ(Of(operation)->transpose_a, kLtTransposed);
  EXPECT_EQ(la.rows, lb.rows);  // A is [k, m] as it lies
  EXPECT_EQ(la.cols, ld.rows);
  EXPECT_EQ(lb.cols, ld.cols);
  EXPECT_EQ(lc.type, ld.type);
  for (int64_t column = 0; column < ld.cols; ++column) {
    for (int64_t row = 0; row < ld.rows; ++row) {
      float sum = 0;
      for (int64_t i = 0; i < la.rows; ++i) {
        sum += Load(a, la.type, row * la.stride + i) * Load(b, lb.type, column * lb.stride + i);
      }
      const int64_t at = column * ld.stride + row;
      float value = *static_cast<const float*>(alpha) * sum;
      if (*static_cast<const float*>(beta) != 0) {
        value += *static_cast<const float*>(beta) * Load(c, lc.type, column * lc.stride + row);
      }
      if (Of(operation)->epilogue == kLtEpilogueBias) {
        value += Load(Of(operation)->bias, ld.type, row);
      }
      Store(d, ld.type, at, value);
    }
  }
  return kLtSuccess;
}

LtApi FakeApi() {
  LtApi api;
  api.create = [](LtHandle* handle) {
    ++fake.objects;
    *handle = reinterpret_cast<LtHandle>(&fake);
    return kLtSuccess;
  };
  api.destroy = [](LtHandle) {
    --fake.objects;
    return kLtSuccess;
  };
  api.version = [] { return size_t{130000}; };
  api.operation_create = [](LtOperation* operation, int compute, int scale) {
    EXPECT_EQ(compute, kLtComputeFloat);
    EXPECT_EQ(scale, kLtFloat);
    ++fake.objects;
    *operation = reinterpret_cast<LtOperation>(new FakeOperation);
    return kLtSuccess;
  };
  api.operation_destroy = [](LtOperation operation) {
    --fake.objects;
    delete Of(operation);
    return kLtSuccess;
  };
  api.operation_set = [](LtOperation operation, int attribute, const void* value, size_t bytes) {
    switch (attribute) {
      case kLtTransposeA:
        EXPECT_EQ(bytes, 4u);
        std::memcpy(&Of(operation)->transpose_a, value, 4);
        return kLtSuccess;
      case kLtEpilogue:
        EXPECT_EQ(bytes, 4u);
        std::memcpy(&Of(operation)->epilogue, value, 4);
        return kLtSuccess;
      case kLtBiasPointer:
        EXPECT_EQ(bytes, sizeof(void*));
        std::memcpy(&Of(operation)->bias, value, sizeof(void*));
        return kLtSuccess;
      default:
        return 7;
    }
  };
  api.layout_create = [](LtLayout* layout, int type, uint64_t rows, uint64_t cols, int64_t stride) {
    ++fake.objects;
    *layout =
        reinterpret_cast<LtLayout>(new FakeLayout{type, int64_t(rows), int64_t(cols), stride});
    return kLtSuccess;
  };
  api.layout_destroy = [](LtLayout layout) {
    --fake.objects;
    delete Of(layout);
    return kLtSuccess;
  };
  api.preference_create = [](LtPreference* preference) {
    ++fake.objects;
    *preference = reinterpret_cast<LtPreference>(&fake);
    return kLtSuccess;
  };
  api.preference_destroy = [](LtPreference) {
    --fake.objects;
    return kLtSuccess;
  };
  api.preference_set = [](LtPreference, int, const void*, size_t) { return kLtSuccess; };
  api.candidates = [](LtHandle, LtOperation, LtLayout, LtLayout, LtLayout, LtLayout, LtPreference,
                      int wanted, LtCandidate* found, int* count) {
    if (!fake.offers) return 15;
    *count = 0;
    for (const FakeAlgorithm& algorithm : fake.algorithms) {
      if (*count == wanted) break;
      found[*count].algorithm.data[0] = algorithm.id;
      found[*count].algorithm.data[7] = algorithm.id * 3;
      ++*count;
    }
    return kLtSuccess;
  };
  api.matmul = &Matmul;
  return api;
}

// --- A fake device whose memory is the host's and whose work is done at once ---

class FakeRuntime final : public Runtime {
 public:
  const DeviceFacts& facts() const override { return facts_; }
  absl::Status status() const override { return status_; }
  void Fail(const absl::Status& status) override { status_.Update(status); }
  size_t FreeBytes() const override { return 0; }
  absl::StatusOr<void*> AllocateDevice(size_t bytes) override {
    if (bytes > most_bytes) return absl::ResourceExhaustedError("full");
    ++blocks;
    return std::calloc(bytes, 1);
  }
  void FreeDevice(void* memory) override {
    --blocks;
    std::free(memory);
  }
  absl::StatusOr<void*> AllocateHost(size_t bytes) override { return AllocateDevice(bytes); }
  void FreeHost(void* memory) override { FreeDevice(memory); }
  Stream NewStream(bool) override { return {1}; }
  void Copy(Stream, void* to, const void* from, size_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void Fill(Stream, void*, uint8_t, size_t bytes) override { flushed = std::max(flushed, bytes); }
  void Launch(Stream, const KernelRef&, const Grid&, const void*) override {}
  Event NewEvent() override { return {0}; }
  void FreeEvent(Event) override { --timers; }
  void Record(Event, Stream) override {}
  void Wait(Stream, Event) override {}
  bool IsDone(Event) override { return true; }
  absl::Status Synchronize(Event) override { return status_; }
  absl::Status Synchronize(Stream) override { return status_; }
  Event NewTimingEvent() override {
    ++timers;
    return {0};
  }
  // Every fifth is disturbed.
  float MillisecondsBetween(Event, Event) override {
    return ++asked % 5 == 0 ? 100.0f : fake.last_milliseconds;
  }
  void* NativeStream(Stream) override { return nullptr; }
  void BeginCapture(Stream) override {}
  absl::StatusOr<Graph> EndCapture(Stream) override {
    return absl::InternalError("nothing is captured here");
  }
  void LaunchGraph(Stream, Graph) override {}
  void FreeGraph(Graph) override {}

  size_t most_bytes = size_t{1} << 40;
  size_t flushed = 0;
  int blocks = 0;
  int timers = 0;
  int asked = 0;

 private:
  DeviceFacts facts_{.name = "fake device"};
  absl::Status status_;
};

class CublasMatmulTest : public testing::Test {
 protected:
  void SetUp() override {
    fake = {};
    fake.algorithms = {{.id = 11, .milliseconds = 3},
                       {.id = 12, .milliseconds = 1},
                       {.id = 13, .milliseconds = 2}};
    file_ = std::filesystem::temp_directory_path() /
            ("lorad-gemm-choices-" + std::to_string(::getpid()));
    std::filesystem::remove(file_);
  }
  void TearDown() override {
    matmul_.reset();
    std::filesystem::remove(file_);
    EXPECT_EQ(fake.objects, 0);
    EXPECT_EQ(runtime_.blocks, 0);
    EXPECT_EQ(runtime_.timers, 0);
  }
  void Open() {
    matmul_.reset();
    auto made = CublasMatmul::Create(runtime_, FakeApi(), file_);
    ASSERT_TRUE(made.ok());
    matmul_ = *std::move(made);
  }

  struct Case {
    int rows = 65;
    int n = 5;
    int k = 7;
    bool full = false;
    bool accumulate = false;
    bool bias = false;
  };
  // Small whole numbers, so that every sum is exact in bf16 too; padding full of zeros as it is
  // everywhere.
  void ExpectRight(const Case& c) {
    const int k_stride = PaddedColumns(c.k), n_stride = PaddedColumns(c.n);
    std::vector<uint16_t> x(size_t(c.rows * k_stride)), w(size_t(c.n * k_stride)),
        bf16_bias(size_t(c.n));
    std::vector<float> bias(size_t(c.n));
    std::vector<float> y(size_t(c.rows * n_stride));  // holds bf16 too
    const auto number = [](int i) { return float(i * 7 % 5 - 2); };
    for (int row = 0; row < c.rows; ++row) {
      for (int i = 0; i < c.k; ++i) x[size_t(row * k_stride + i)] = Bf16(number(row + 3 * i));
    }
    for (int row = 0; row < c.n; ++row) {
      for (int i = 0; i < c.k; ++i) w[size_t(row * k_stride + i)] = Bf16(number(2 * row + i));
      bias[size_t(row)] = float(row + 1);
      bf16_bias[size_t(row)] = Bf16(float(row + 1));
    }
    const int type = c.full ? kLtFloat : kLtBf16;
    for (int row = 0; row < c.rows; ++row) {
      for (int i = 0; i < c.n; ++i) Store(y.data(), type, row * n_stride + i, number(row + i));
    }
    GemmParams params{.rows = c.rows,
                      .x = {x.data(), c.k, k_stride, false},
                      .w = {.data = w.data(),
                            .bias = c.bias ? bias.data() : nullptr,
                            .rows = c.n,
                            .cols = c.k,
                            .stride = k_stride},
                      .y = {y.data(), c.n, n_stride, c.full},
                      .accumulate = c.accumulate};
    Program program;
    program.Begin({}, nullptr);
    matmul_->Record(program, params, c.bias ? bf16_bias.data() : nullptr);
    program.Issue(runtime_, {1}, {2}, {}, {});
    for (int row = 0; row < c.rows; ++row) {
      for (int i = 0; i < n_stride; ++i) {
        float want = 0;
        if (i < c.n) {
          for (int j = 0; j < c.k; ++j) want += number(row + 3 * j) * number(2 * i + j);
          if (c.accumulate) want += number(row + i);
          if (c.bias) want += bias[size_t(i)];
        }
        ASSERT_EQ(Load(y.data(), type, row * n_stride + i), want) << row << ", " << i;
      }
    }
  }
  uint64_t Last() const { return fake.multiplied.back(); }

  FakeRuntime runtime_;
  std::filesystem::path file_;
  std::unique_ptr<CublasMatmul> matmul_;
};

TEST_F(CublasMatmulTest, Products) {
  Open();
  for (const bool full : {false, true}) {
    for (const bool accumulate : {false, true}) {
      for (const bool bias : {false, true}) {
        for (const int k : {1, 64, 70}) {
          ExpectRight(
              {.rows = 66, .n = 67, .k = k, .full = full, .accumulate = accumulate, .bias = bias});
        }
      }
    }
  }
  EXPECT_TRUE(runtime_.status().ok());
}

TEST_F(CublasMatmulTest, TheFastestIsChosenOnceForAShape) {
  Open();
  ExpectRight({});
  EXPECT_EQ(Last(), 12u);
  EXPECT_GE(runtime_.flushed, size_t{128} << 20);
  const size_t tried = fake.multiplied.size();
  EXPECT_GE(tried, 3u * 3 + 1);
  ExpectRight({});
  ExpectRight({.rows = 90});  // of the same bucket
  EXPECT_EQ(fake.multiplied.size(), tried + 2);
  EXPECT_EQ(Last(), 12u);
  EXPECT_EQ(matmul_->choices().size(), 1u);
  fake.algorithms[2].milliseconds = 0.5f;
  ExpectRight({.rows = 97});
  EXPECT_EQ(Last(), 13u);
  ExpectRight({.accumulate = true});
  ExpectRight({.full = true});
  ExpectRight({.bias = true});
  ExpectRight({.n = 6});
  ExpectRight({.k = 200});
  EXPECT_EQ(matmul_->choices().size(), 7u);
}

TEST_F(CublasMatmulTest, ChoicesOutliveAStart) {
  Open();
  ExpectRight({});
  Open();
  fake.multiplied.clear();
  ExpectRight({});
  EXPECT_EQ(fake.multiplied, std::vector<uint64_t>{12});
}

TEST_F(CublasMatmulTest, AnAlgorithmThatFailsIsNotChosen) {
  fake.algorithms[1].most_rows = 3;
  Open();
  ExpectRight({});
  EXPECT_EQ(Last(), 13u);
}

TEST_F(CublasMatmulTest, AChoiceThatCannotDoOtherRowsIsLeftToTheLibrary) {
  fake.algorithms[1].most_rows = 70;
  Open();
  ExpectRight({.rows = 70});
  ExpectRight({.rows = 71});
  EXPECT_EQ(Last(), 0u);
  ExpectRight({.rows = 70});
  EXPECT_EQ(Last(), 12u);
}

TEST_F(CublasMatmulTest, WithoutCandidatesTheLibraryChooses) {
  fake.offers = false;
  Open();
  ExpectRight({});
  ExpectRight({});
  EXPECT_EQ(fake.multiplied, (std::vector<uint64_t>{0, 0}));
}

TEST_F(CublasMatmulTest, WithoutMemoryForTrialsTheFirstIsTaken) {
  Open();
  runtime_.most_bytes = 1 << 20;
  ExpectRight({});
  EXPECT_EQ(fake.multiplied, std::vector<uint64_t>{11});
}

TEST_F(CublasMatmulTest, AProductThatFailsIsTheDevicesError) {
  Open();
  fake.works = false;
  std::vector<uint16_t> x(64 * 65), w(64), y(64 * 65);
  Program program;
  program.Begin({}, nullptr);
  matmul_->Record(program,
                  {.rows = 65,
                   .x = {x.data(), 1, 64, false},
                   .w = {.data = w.data(), .rows = 1, .cols = 1, .stride = 64},
                   .y = {y.data(), 1, 64, false}},
                  nullptr);
  program.Issue(runtime_, {1}, {2}, {}, {});
  EXPECT_TRUE(absl::IsInternal(runtime_.status()));
}

// --- The file ---

class GemmChoicesTest : public CublasMatmulTest {
 protected:
  std::string Text() const {
    std::ifstream in(file_, std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
  }
  void Write(const std::string& text) const {
    std::ofstream(file_, std::ios::binary | std::ios::trunc) << text;
  }
  static LtAlgorithm Some(uint64_t seed) {
    LtAlgorithm algorithm;
    for (uint64_t& word : algorithm.data) word = seed++ * 0x9e3779b97f4a7c15u;
    return algorithm;
  }
  const GemmShape a_{4096, 64, 96, true, false, true}, b_{17, 128, 64, false, true, false};
};

TEST_F(GemmChoicesTest, AreReadBack) {
  GemmChoices choices(file_, "device, library 1");
  ASSERT_TRUE(choices.Add(a_, Some(1)).ok());
  ASSERT_TRUE(choices.Add(b_, Some(2)).ok());
  ASSERT_TRUE(choices.Add(a_, Some(3)).ok());
  const GemmChoices again(file_, "device, library 1");
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(std::memcmp(again.Find(a_), Some(3).data, 64), 0);
  EXPECT_EQ(std::memcmp(again.Find(b_), Some(2).data, 64), 0);
  EXPECT_EQ(again.Find({4096, 64, 96, true, false, false}), nullptr);
  EXPECT_EQ(GemmChoices(file_, "device, library 2").size(), 0u);
  EXPECT_EQ(GemmChoices("", "device, library 1").size(), 0u);
  // Nothing else is left behind.
  for (const auto& entry : std::filesystem::directory_iterator(file_.parent_path())) {
    const std::string name = entry.path().filename();
    EXPECT_TRUE(name == file_.filename() || !name.starts_with(file_.filename().string())) << name;
  }
}

TEST_F(GemmChoicesTest, ADamagedFileIsNotRead) {
  {
    GemmChoices choices(file_, "owner");
    ASSERT_TRUE(choices.Add(a_, Some(1)).ok());
    ASSERT_TRUE(choices.Add(b_, Some(2)).ok());
  }
  const std::string whole = Text();
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = damaged[i] == '1' ? '2' : '1';
    Write(damaged);
    ASSERT_EQ(GemmChoices(file_, "owner").size(), 0u) << "byte " << i;
    Write(whole.substr(0, i));
    ASSERT_EQ(GemmChoices(file_, "owner").size(), 0u) << "cut at " << i;
  }
  Write(whole + "\n");
  EXPECT_EQ(GemmChoices(file_, "owner").size(), 0u);
  Write(whole);
  EXPECT_EQ(GemmChoices(file_, "owner").size(), 2u);
}

TEST_F(GemmChoicesTest, AChoiceHoldsWhereItCannotBeWritten) {
  GemmChoices choices("/nowhere/at/all", "owner");
  EXPECT_TRUE(absl::IsUnavailable(choices.Add(a_, Some(1))));
  EXPECT_NE(choices.Find(a_), nullptr);
}

TEST(GemmRowsBucketTest, GrowsByThirdsAndHalves) {
  const std::map<int, int> expected = {{1, 64},    {64, 64},   {65, 96},    {96, 96},
                                       {97, 128},  {128, 128}, {129, 192},  {193, 256},
                                       {300, 384}, {512, 512}, {1025, 1536}};
  for (const auto& [rows, bucket] : expected) EXPECT_EQ(GemmRowsBucket(rows), bucket) << rows;
}

TEST(FastestOfTest, GoesByTheMedian) {
  const std::vector<std::vector<float>> times = {
      {5, 5, 5}, {}, {1, 9, 9}, {4, 4, 100}, {6, 2, 4.5f}};
  EXPECT_EQ(FastestOf(times), 3);
  EXPECT_EQ(FastestOf({}), -1);
  EXPECT_EQ(FastestOf(std::vector<std::vector<float>>{{}, {}}), -1);
}

}  // namespace
}  // namespace lorad::kernels::cuda
