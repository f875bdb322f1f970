#include "tests/unit/kernels/cuda/decoder_rig.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "memory/base/check.h"
#include "model/decoder_executor.h"
#include "model/sites.h"
#include "tests/unit/kernels/cuda/test_runtime.h"
#include "tests/unit/model/decoder/tiny_model.h"

namespace lorad::kernels::cuda {

DecoderRig::DecoderRig(const DecoderRigOptions& options) : config_(TinyConfig()) {
  auto backend =
      CudaBackend::Create(NewTestRuntime(options.seed),
                          {.kv_format = options.kv_format,
                           .host_threads = 1,
                           .programs = {.list_bytes = size_t{1} << 18, .graphs = options.graphs}});
  LORAD_CHECK(backend.ok());
  backend_ = *std::move(backend);
  const KvGeometry geometry = KvGeometryOf(config_, kPageTokens);
  slab_.page_bytes = backend_->KvPageBytes(geometry);
  auto pool = backend_->Allocate(slab_.page_bytes * options.pages);
  LORAD_CHECK(pool.ok());
  pool_ = *std::move(pool);
  slab_.data = pool_->data();
  backend_->SetPool(slab_, geometry);
  free_.resize(options.pages);
  std::iota(free_.begin(), free_.end(), 0u);
  backend_->PoisonPages(free_);
  std::shuffle(free_.begin(), free_.end(), std::mt19937_64(7));
  auto weights = MakeDummyWeights(config_, /*seed=*/17, backend_.get());
  LORAD_CHECK(weights.ok());
  weights_ = *std::move(weights);
  decoder_ = std::make_unique<Decoder>(config_, *weights_, backend_.get(), nullptr, kMaxRows,
                                       kMaxSequences);
}

DecoderRig::~DecoderRig() = default;

std::vector<uint32_t> DecoderRig::TakePages(uint32_t count) {
  LORAD_CHECK(count <= free_.size());
  std::vector<uint32_t> pages(free_.end() - count, free_.end());
  free_.resize(free_.size() - count);
  return pages;
}

void DecoderRig::GiveBack(std::span<const uint32_t> pages) {
  backend_->PoisonPages(pages);
  free_.insert(free_.begin(), pages.begin(), pages.end());
}

int DecoderRig::Stage(uint32_t rank, uint64_t seed, bool start) {
  const TinyFactors factors(config_, rank, seed);
  auto adapter = std::make_unique<Adapter>();
  adapter->layout = backend_->PlanAdapter(factors.factors(), SiteCount(config_), slab_.page_bytes);
  adapter->pages = TakePages(adapter->layout.pages);
  if (start) {
    auto image = backend_->AllocateStaging(adapter->layout.pages * slab_.page_bytes);
    LORAD_CHECK(image.ok());
    adapter->image = *std::move(image);
    const std::span<std::byte> bytes(adapter->image->data(), adapter->image->bytes());
    backend_->StageAdapter(adapter->layout, factors.factors(), bytes);
    adapter->transfer = backend_->StartTransfer(adapter->layout, bytes, slab_, adapter->pages,
                                                backend_->LastStep());
  } else {
    backend_->PackAdapter(adapter->layout, factors.factors(), slab_, adapter->pages);
  }
  adapters_.push_back(std::move(adapter));
  return static_cast<int>(adapters_.size()) - 1;
}

int DecoderRig::AddAdapter(uint32_t rank, uint64_t seed) { return Stage(rank, seed, false); }
int DecoderRig::StartAdapter(uint32_t rank, uint64_t seed) { return Stage(rank, seed, true); }

void DecoderRig::DropAdapter(int index) {
  Adapter& dropped = adapter(index);
  dropped.transfer.reset();
  dropped.image.reset();
  GiveBack(dropped.pages);
  dropped.pages.clear();
}

int DecoderRig::AddSequence(int adapter, float weight) {
  sequences_.push_back({.adapter = adapter, .weight = weight});
  return static_cast<int>(sequences_.size()) - 1;
}

void DecoderRig::DropSequence(int index) {
  GiveBack(sequences_[size_t(index)].pages);
  sequences_[size_t(index)] = {};
}

void DecoderRig::Record(std::span<const Advance> parts) {
  lists_ = lists_ == &both_lists_[0] ? &both_lists_[1] : &both_lists_[0];
  *lists_ = {};
  Lists& l = *lists_;
  // Rows of one adapter are next to each other; those without are the last.
  std::vector<size_t> order(parts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto key = [&](size_t part) {
    const Sequence& s = sequence(parts[part].sequence);
    return std::tuple(s.adapter < 0, s.adapter, s.weight);
  };
  std::ranges::stable_sort(order, {}, key);
  l.pages.resize(parts.size());
  l.place.resize(parts.size());
  for (size_t i = 0; i < order.size(); ++i) {
    const Advance& part = parts[order[i]];
    Sequence& s = sequences_[size_t(part.sequence)];
    const int first_row = static_cast<int>(l.tokens.size());
    const int first_position = static_cast<int>(s.tokens.size());
    for (const int32_t token : part.tokens) {
      l.positions.push_back(static_cast<int32_t>(s.tokens.size()));
      l.tokens.push_back(token);
      s.tokens.push_back(token);
    }
    while (s.pages.size() * kPageTokens < s.tokens.size()) s.pages.push_back(TakePages(1)[0]);
    l.pages[i] = s.pages;
    const int end_row = static_cast<int>(l.tokens.size());
    l.sequences.push_back({first_row, end_row, first_position, l.pages[i]});
    l.last_rows.push_back(end_row - 1);
    l.place[order[i]] = static_cast<int>(i);
    if (s.adapter < 0) continue;
    const Adapter& used = adapter(s.adapter);
    const auto extend = [&](std::vector<AdapterSegment>& segments, int first, int end) {
      if (!segments.empty() && segments.back().layout == &used.layout &&
          segments.back().weight == s.weight) {
        segments.back().end_row = end;
      } else {
        segments.push_back({first, end, &used.layout, used.pages, s.weight, used.transfer.get()});
      }
    };
    extend(l.segments, first_row, end_row);
    extend(l.logit_segments, static_cast<int>(i), static_cast<int>(i) + 1);
  }
  decoder_->Forward({l.tokens, l.positions, l.sequences, l.segments});
  decoder_->Logits(l.last_rows, l.logit_segments);
}

std::span<const float> DecoderRig::Logits(int part) { return decoder_->LogitRow(place(part)); }

std::vector<std::vector<float>> DecoderRig::Step(std::span<const Advance> parts) {
  Record(parts);
  std::vector<std::vector<float>> all;
  for (int part = 0; part < static_cast<int>(parts.size()); ++part) {
    const auto logits = Logits(part);
    all.emplace_back(logits.begin(), logits.end());
  }
  LORAD_CHECK(backend_->WaitForStep(backend_->EndStep()).ok());
  return all;
}

uint64_t DecoderRig::SampleAndEnd() {
  for (size_t i = 0; i < lists_->place.size(); ++i) {
    lists_->sample_rows.push_back({.row = static_cast<int>(i)});
  }
  backend_->Sample(decoder_->logits(), lists_->sample_rows);
  return backend_->EndStep();
}

}  // namespace lorad::kernels::cuda
