// What low-precision weights cost: logits, adapters' effects and greedy choices against
// transformers
// + PEFT in fp32. The models are tiny and random, so their logits are closer to one another, and
// errors average out less, than in a trained model of useful size (see the demo's accuracy in
// tests/integration/weight_format_test.cc).
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "fmt/format.h"
#include "kernels/quantise.h"
#include "tests/golden/models/golden_backends.h"
#include "tests/golden/models/golden_model.h"

namespace lorad {
namespace {

using kernels::WeightFormat;

int Whole(int, size_t) { return 1 << 20; }

// What rounding does to weights of a normal distribution is 0.7 % (int8), 2.6 % (fp8) and 10 %
// (int4) of their size, and adds up over the layers.
struct FormatBounds {
  double logits;  // relative error over a sequence
  double effect;  // of an adapter, the same
  double greedy;  // least part of the positions with the same likeliest token
};

FormatBounds BoundsOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kInt8:
      return {0.045, 0.09, 0.94};
    case WeightFormat::kFp8:
      return {0.16, 0.3, 0.82};
    default:
      return {0.55, 0.85, 0.5};
  }
}

using Param = std::tuple<std::string, std::string, WeightFormat>;  // model, backend, format

class WeightFormatGoldenTest : public ::testing::TestWithParam<Param> {};

size_t Likeliest(std::span<const float> row) {
  return static_cast<size_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

TEST_P(WeightFormatGoldenTest, StaysNearTheGoldens) {
  const auto& [name, backend, format] = GetParam();
  GoldenModel model(name, MakeGoldenBackend(backend), {.format = format});
  const auto requests = model.AllRequests();
  const auto logits = model.Run(requests, Whole);
  const FormatBounds bounds = BoundsOf(format);
  const auto vocab = static_cast<size_t>(model.vocab_size());
  const size_t cases = model.cases().size();
  double worst_logits = 0, worst_effect = 0, equal = 0, all = 0;
  for (size_t i = 0; i < cases; ++i) {
    const GoldenCase& c = model.cases()[i];
    worst_logits = std::max({worst_logits, RelativeError(logits[i], c.logits),
                             RelativeError(logits[cases + i], c.base)});
    worst_effect = std::max(worst_effect, RelativeError(Difference(logits[i], logits[cases + i]),
                                                        Difference(c.logits, c.base)));
    for (size_t at = 0; at < c.logits.size(); at += vocab) {
      equal += Likeliest(std::span(logits[i]).subspan(at, vocab)) ==
               Likeliest(std::span(c.logits).subspan(at, vocab));
      all += 1;
    }
  }
  RecordProperty("logits", fmt::format("{:.2e}", worst_logits));
  RecordProperty("effect", fmt::format("{:.2e}", worst_effect));
  RecordProperty("greedy", fmt::format("{:.3f}", equal / all));
  EXPECT_LE(worst_logits, bounds.logits);
  EXPECT_LE(worst_effect, bounds.effect);
  EXPECT_GE(equal, bounds.greedy * all);
}

// The same codes, so what remains is the backend's own arithmetic.
TEST_P(WeightFormatGoldenTest, BackendsAgree) {
  const auto& [name, backend, format] = GetParam();
  if (backend == "reference") GTEST_SKIP();
  GoldenModel model(name, MakeGoldenBackend(backend), {.format = format});
  GoldenModel reference(name, kernels::NewReferenceBackend(), {.format = format});
  const auto requests = model.AllRequests();
  const auto logits = model.Run(requests, Whole), want = reference.Run(requests, Whole);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_LE(WorstRow(logits[i], want[i], model.vocab_size()), kBf16Bounds.logits) << i;
  }
  EXPECT_EQ(model.Run(requests, [](int, size_t i) { return 1 + static_cast<int>(i % 5); }), logits)
      << "in chunks";
}

std::vector<Param> Params() {
  std::vector<Param> params;
  for (const char* model : {"llama", "llama31", "mistral", "qwen2", "qwen3"}) {
    for (const WeightFormat format :
         {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFp8}) {
      for (const char* backend : {"reference", "portable", "avx2", "avx512", "avx512bf16", "amx"}) {
        const auto made = MakeGoldenBackend(backend);
        if (made != nullptr && made->Supports(format)) params.emplace_back(model, backend, format);
      }
    }
  }
  return params;
}

INSTANTIATE_TEST_SUITE_P(All, WeightFormatGoldenTest, ::testing::ValuesIn(Params()),
                         [](const auto& param) {
                           return fmt::format("{}_{}_{}", std::get<0>(param.param),
                                              std::get<1>(param.param),
                                              std::string(Name(std::get<2>(param.param))));
                         });

}  // namespace
}  // namespace lorad
