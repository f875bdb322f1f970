#include "tests/golden/models/golden_model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <utility>

#include "memory/base/check.h"
#include "model/model_tensors.h"
#include "model/safetensors.h"
#include "model/sharded_factors.h"
#include "model/sites.h"
#include "model/weights.h"

namespace lorad {
namespace {

constexpr uint32_t kPages = 4096;

template <typename T>
T ValueOrAbort(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", std::string(value.status().message()).c_str());
    std::abort();
  }
  return std::move(value).value();
}

template <typename T>
std::vector<T> Values(const SafetensorsFile& file, const std::string& name,
                      std::string_view dtype) {
  const TensorView* tensor = file.Find(name);
  LORAD_CHECK(tensor != nullptr && tensor->dtype_name == dtype);
  std::vector<T> values(tensor->data.size() / sizeof(T));
  std::memcpy(values.data(), tensor->data.data(), tensor->data.size());
  return values;
}

}  // namespace

std::filesystem::path GoldenDir(const std::string& model) {
  const char* source = std::getenv("LORAD_SOURCE_DIR");
  LORAD_CHECK(source != nullptr);
  return std::filesystem::path(source) / "tests/golden/models" / model;
}

std::vector<GoldenCase> ReadGoldenCases(const std::string& model) {
  const SafetensorsFile file =
      ValueOrAbort(SafetensorsFile::Open(GoldenDir(model) / "golden.safetensors"));
  std::vector<GoldenCase> cases;
  for (const TensorView& tensor : file.tensors()) {
    constexpr std::string_view kPrefix = "prompt.";
    if (!tensor.name.starts_with(kPrefix)) continue;
    GoldenCase& c = cases.emplace_back();
    c.adapter = tensor.name.substr(kPrefix.size());
    c.prompt_tokens = Values<int32_t>(file, tensor.name, "I32").at(0);
    c.tokens = Values<TokenId>(file, "tokens." + c.adapter, "I32");
    c.logits = Values<float>(file, "logits." + c.adapter, "F32");
    c.base = Values<float>(file, "base." + c.adapter, "F32");
  }
  LORAD_CHECK(cases.size() >= 3);
  return cases;
}

GoldenModel::GoldenModel(const std::string& name,
                         std::vector<std::unique_ptr<kernels::Backend>> ranks,
                         const Sabotage& sabotage)
    : cases_(ReadGoldenCases(name)) {
  for (std::unique_ptr<kernels::Backend>& backend : ranks) {
    const Shard shard = {static_cast<int>(ranks_.size()), static_cast<int>(ranks.size())};
    ranks_.push_back({.shard = shard, .backend = std::move(backend)});
  }
  const std::filesystem::path dir = GoldenDir(name);
  config_ = ValueOrAbort(LoadModelConfig(dir / "model"));
  if (sabotage.config) sabotage.config(&config_);
  MakePools();
  LoadModel(dir / "model", sabotage.format);
  LoadAdapters(dir / "adapters", sabotage);
}

GoldenModel::GoldenModel(const std::string& name, std::unique_ptr<kernels::Backend> backend,
                         const Sabotage& sabotage)
    : GoldenModel(
          name,
          [&backend] {
            std::vector<std::unique_ptr<kernels::Backend>> one;
            one.push_back(std::move(backend));
            return one;
          }(),
          sabotage) {}

void GoldenModel::MakePools() {
  for (Rank& rank : ranks_) {
    const kernels::KvGeometry geometry =
        KvGeometryOf(ShardOf(config_, rank.shard), kGoldenPageTokens);
    const size_t page_bytes = rank.backend->KvPageBytes(geometry);
    rank.memory = ValueOrAbort(rank.backend->Allocate(page_bytes * kPages));
    rank.slab = {rank.memory->data(), page_bytes};
    rank.backend->SetPool(rank.slab, geometry);
  }
  pool_ = std::make_unique<PagePool>(kPages, ranks_[0].slab.page_bytes);
  // Take all pages and give them back in random order: from now on the pool gives scattered ones.
  std::vector<PageList> pages(kPages);
  for (PageList& page : pages) {
    page = PageList(pool_.get(), PageUse::kKv);
    LORAD_CHECK(page.Grow(1));
  }
  std::shuffle(pages.begin(), pages.end(), std::mt19937(1));
}

void GoldenModel::LoadModel(const std::filesystem::path& dir, kernels::WeightFormat format) {
  const ModelTensors tensors = ValueOrAbort(ModelTensors::Open(dir));
  DecoderExecutorOptions options;
  options.limits = {.max_rows = 1024, .max_sequences = 32};
  options.max_logit_rows = 50;  // fewer than most steps have
  options.page_tokens = kGoldenPageTokens;
  const auto load = [&](const Rank& rank, kernels::Communicator* communicator) {
    auto weights =
        ValueOrAbort(LoadWeights(config_, tensors, rank.backend.get(),
                                 {.format = format, .check_finite = true, .shard = rank.shard}));
    return std::make_unique<DecoderExecutor>(config_, std::move(weights), rank.backend.get(),
                                             options, communicator);
  };
  if (ranks_.size() == 1) {
    alone_ = load(ranks_[0], nullptr);
    return;
  }
  TensorParallelExecutor::Ranks group;
  group.communicators = kernels::NewThreadCommunicators(static_cast<int>(ranks_.size()));
  for (size_t i = 0; i < ranks_.size(); ++i) {
    group.executors.push_back(load(ranks_[i], group.communicators[i].get()));
  }
  group_ = std::make_unique<TensorParallelExecutor>(std::move(group));
}

void GoldenModel::LoadAdapters(const std::filesystem::path& dir, const Sabotage& sabotage) {
  for (const GoldenCase& c : cases_) {
    const PeftAdapter file = ValueOrAbort(LoadPeftAdapter(dir / c.adapter, config_));
    std::vector<kernels::LowRankFactors> factors(file.factors().begin(), file.factors().end());
    if (sabotage.factors) sabotage.factors(&factors);
    LoadedAdapter& adapter = adapters_.emplace_back();
    std::vector<ShardedFactors> shards;
    for (const Rank& rank : ranks_) {
      shards.emplace_back(factors, config_, rank.shard);
      adapter.image.layouts.push_back(rank.backend->PlanAdapter(
          shards.back().factors(), SiteCount(config_), rank.slab.page_bytes));
    }
    adapter.pages = PageList(pool_.get(), PageUse::kAdapter);
    LORAD_CHECK(adapter.pages.Grow(adapter.image.pages()));
    for (size_t i = 0; i < ranks_.size(); ++i) {
      const kernels::AdapterLayout& layout = adapter.image.layouts[i];
      ranks_[i].backend->PackAdapter(layout, shards[i].factors(), ranks_[i].slab,
                                     adapter.pages.ids().first(layout.pages));
    }
  }
}

Executor& GoldenModel::executor() {
  if (alone_ != nullptr) return *alone_;
  return *group_;
}

std::vector<float> GoldenModel::AllLogits(const StepInput& input) {
  return alone_ != nullptr ? alone_->AllLogits(input) : group_->AllLogits(input);
}

std::vector<AdapterUse> GoldenModel::Use(int adapter) const {
  if (adapter < 0) return {};
  const LoadedAdapter& loaded = adapters_[static_cast<size_t>(adapter)];
  return {{&loaded.image, loaded.pages.ids(), 1.0f}};
}

PageList GoldenModel::KvPages(size_t tokens) {
  PageList pages(pool_.get(), PageUse::kKv);
  LORAD_CHECK(
      pages.Grow(static_cast<uint32_t>((tokens + kGoldenPageTokens - 1) / kGoldenPageTokens)));
  return pages;
}

std::vector<GoldenModel::Request> GoldenModel::AllRequests() const {
  std::vector<Request> requests;
  for (size_t i = 0; i < cases_.size(); ++i) requests.push_back({i, static_cast<int>(i)});
  for (size_t i = 0; i < cases_.size(); ++i) requests.push_back({i, -1});
  return requests;
}

std::vector<std::vector<float>> GoldenModel::Run(
    std::span<const Request> requests, const std::function<int(int step, size_t i)>& chunk) {
  const size_t count = requests.size();
  std::vector<std::vector<float>> logits(count);
  std::vector<PageList> pages;
  std::vector<std::vector<AdapterUse>> uses;
  for (const Request& request : requests) {
    pages.push_back(KvPages(cases_[request.tokens_of].tokens.size()));
    uses.push_back(Use(request.adapter));
  }
  std::vector<size_t> done(count);  // tokens
  for (int step = 0;; ++step) {
    std::vector<SequenceInput> sequences;
    std::vector<size_t> running;
    for (size_t i = 0; i < count; ++i) {
      const std::span<const TokenId> tokens = cases_[requests[i].tokens_of].tokens;
      const size_t next = std::min(static_cast<size_t>(chunk(step, i)), tokens.size() - done[i]);
      if (next == 0) continue;
      running.push_back(i);
      sequences.push_back({.tokens = tokens.subspan(done[i], next),
                           .first_position = static_cast<int>(done[i]),
                           .kv_pages = pages[i].ids(),
                           .adapters = uses[i]});
      done[i] += next;
    }
    if (sequences.empty()) return logits;
    const std::vector<float> all = AllLogits({sequences});
    auto at = all.begin();
    for (size_t j = 0; j < running.size(); ++j) {
      const auto end = at + static_cast<ptrdiff_t>(sequences[j].tokens.size()) * config_.vocab_size;
      logits[running[j]].insert(logits[running[j]].end(), at, end);
      at = end;
    }
  }
}

double RelativeError(std::span<const float> a, std::span<const float> b) {
  LORAD_CHECK(a.size() == b.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  return std::sqrt(difference / norm);
}

double WorstRow(std::span<const float> a, std::span<const float> b, int cols) {
  LORAD_CHECK(a.size() == b.size() && a.size() % static_cast<size_t>(cols) == 0);
  double worst = 0;
  const auto width = static_cast<size_t>(cols);
  for (size_t i = 0; i < a.size(); i += width) {
    const double error = RelativeError(a.subspan(i, width), b.subspan(i, width));
    if (!(error <= worst)) worst = error;  // NaN sticks
  }
  return worst;
}

std::vector<float> Difference(std::span<const float> a, std::span<const float> b) {
  LORAD_CHECK(a.size() == b.size());
  std::vector<float> difference(a.size());
  for (size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return difference;
}

}  // namespace lorad
